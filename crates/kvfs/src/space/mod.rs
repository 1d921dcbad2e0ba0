//! Room: one account of the bytes of a store, and the permission without which nothing commits.
//!
//! # The account
//! What counts is the files of the filesystem (key-value store, chunks, log segments), what the
//! rest of the store says it takes (index, tarballs, status logs, temporary files), what RocksDB
//! holds in memory and has yet to write, and how full the disk is. All of this is looked at
//! together and kept for a while, because a look takes system calls. So that no look can be
//! overrun, however fast writers are, what is committed after it is added to it, and so is what was
//! permitted and is not committed yet. What another program takes is seen at the next look; looks
//! come faster as room becomes short, and the reserve is for what falls between two.
//!
//! # The permission
//! [`Room::admit`] is asked before any lock is taken, with what the room is wanted for
//! ([`Purpose`]); what each purpose may take is computed in `limit`. It hands out a [`Permit`], and
//! the committer takes no mutation without one, so that no operation can forget to ask. A permit
//! that is dropped gives back what was promised for it.
//!
//! Before growth or a removal is refused, RocksDB is told to write what it holds in memory: until
//! then these bytes count twice, in its log and as the table that they will be, and a store would
//! be called full that is not.
//!
//! # A disk that is full all the same
//! Another program may fill the disk within one look. RocksDB then fails a write and refuses all
//! later ones until it has flushed, which it tries by itself every few seconds. The committer
//! reports it ([`Room::ran_out`]), and the ballast is given up for that flush.

mod ballast;
#[cfg(test)]
mod full_disk_tests;
mod limit;
mod measure;
#[cfg(test)]
mod tests;
mod waiting;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_types::{FileName, PortError, SpaceUsage};

use crate::activity::Activity;
use crate::store::Counters;
use crate::{FsError, KvfsOptions};
use ballast::Ballast;
use limit::Account;
use waiting::RoomWaiting;

pub(crate) use limit::Purpose;
pub(crate) use measure::{Disk, StoreDisk};
pub(crate) use waiting::WaitingForRoom;

/// How long a look counts where there is room.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long it counts where room is low.
const LOOK_INTERVAL_LOW: Duration = Duration::from_millis(20);
/// A look that has seen room run out is not repeated before so much was written.
const LOOK_BYTES: u64 = 64 << 10;

/// Says how many bytes the parts of the store take that the filesystem does not know.
pub type UsedElsewhere = Box<dyn Fn() -> Result<u64, PortError> + Send + Sync>;

/// What statfs says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Inodes.
    pub n_inodes: u64,
    /// Inodes that can still be made.
    pub n_inodes_free: u64,
    /// Bytes of file data, in the store or evicted.
    pub data_bytes: u64,
    /// What the store may take: its capacity, or the disk, less the reserve.
    pub limit_bytes: u64,
    /// What counts against that.
    pub used_bytes: u64,
    /// Bytes that a writer can still take.
    pub free_bytes: u64,
    /// Size of a chunk in bytes.
    pub chunk_bytes: u32,
    /// Longest name in bytes.
    pub name_bytes_max: u32,
}

/// Says whether there is room for more.
pub(crate) struct Room {
    disk: Box<dyn Disk>,
    activity: Arc<Activity>,
    /// `None` for the whole disk.
    capacity_bytes: Option<u64>,
    used_elsewhere: OnceLock<UsedElsewhere>,
    /// Committed since the last look.
    written_bytes: AtomicU64,
    /// Committed since the filesystem was opened.
    committed_bytes: AtomicU64,
    /// Permitted, and neither committed nor given back.
    promised_bytes: AtomicU64,
    state: Mutex<State>,
    waiting: RoomWaiting,
    /// From this share of the limit on nothing is stored that need not be, in percent.
    critical_percent: u8,
    /// How often the key-value store was opened again.
    epoch: AtomicU64,
    /// One flush at a time.
    flushing: Mutex<()>,
    /// Whether the operator was told that the store is full.
    told: AtomicBool,
}

struct State {
    last_look: Option<Look>,
    ballast: Ballast,
}

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    account: Account,
}

/// Permission to commit one mutation. No mutation is committed without one.
#[must_use]
pub(crate) struct Permit<'a> {
    room: Option<&'a Room>,
    bytes: u64,
    epoch: u64,
}

impl Permit<'_> {
    /// The epoch in which it was given; `None` if it was not asked for.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.room.map(|_| self.epoch)
    }
}

#[cfg(test)]
impl Permit<'static> {
    /// For tests of what is below the question whether there is room.
    pub(crate) fn unchecked() -> Self {
        Self { room: None, bytes: 0, epoch: 0 }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room {
            // What was committed is counted as written by then.
            room.promised_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Room {
    /// The room of a filesystem in this directory.
    pub(crate) fn new(
        directory: &Path,
        disk: Box<dyn Disk>,
        activity: Arc<Activity>,
        options: &KvfsOptions,
    ) -> Self {
        let KvfsOptions { capacity_bytes, critical_percent, room_wait, .. } = *options;
        Self {
            disk,
            activity,
            capacity_bytes: Some(capacity_bytes).filter(|bytes| *bytes > 0),
            used_elsewhere: OnceLock::new(),
            written_bytes: AtomicU64::new(0),
            committed_bytes: AtomicU64::new(0),
            promised_bytes: AtomicU64::new(0),
            state: Mutex::new(State { last_look: None, ballast: Ballast::find(directory) }),
            waiting: RoomWaiting::new(room_wait),
            critical_percent,
            epoch: AtomicU64::new(0),
            flushing: Mutex::new(()),
            told: AtomicBool::new(false),
        }
    }

    /// Counts what the rest of the store takes as well; only the first call counts.
    pub(crate) fn count_also(&self, used_elsewhere: UsedElsewhere) {
        let _ = self.used_elsewhere.set(used_elsewhere);
        self.state.lock().last_look = None;
    }

    /// Asks for room for a mutation of about so many bytes. To be called without any lock.
    pub(crate) fn admit(&self, purpose: Purpose, bytes: u64) -> Result<Permit<'_>, FsError> {
        if let Some(permit) = self.promise(purpose, bytes)? {
            return Ok(permit);
        }
        // Whatever came of it, it has looked anew: room may have appeared since the look that
        // counted.
        self.flush_unflushed()?;
        match self.promise(purpose, bytes)? {
            Some(permit) => Ok(permit),
            None => Err(self.refused()),
        }
    }

    /// Asks for room for what an opening must do, which a full disk must not prevent: if there is
    /// none, the ballast is given up for it.
    pub(crate) fn admit_at_opening(&self, bytes: u64) -> Result<Permit<'_>, FsError> {
        self.admit(Purpose::Reclaim, bytes).or_else(|_| {
            self.ran_out();
            self.admit(Purpose::Reclaim, bytes)
        })
    }

    /// The epoch of the moment: permits of earlier ones are not good any more.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The key-value store was opened again.
    pub(crate) fn note_reopening(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Room may have appeared: the next question looks.
    pub(crate) fn forget_look(&self) {
        self.state.lock().last_look = None;
        self.waiting.notify();
    }

    /// A batch of so many bytes was written.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.committed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The archive is about to write so many bytes beside the filesystem. They count at once: the
    /// same room must not be promised to another request before the next look at the disk.
    pub(crate) fn archive_writes(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were committed since the filesystem was opened.
    pub(crate) fn committed_bytes(&self) -> u64 {
        self.committed_bytes.load(Ordering::Relaxed)
    }

    /// What the store takes and may take.
    pub(crate) fn usage(&self) -> Result<SpaceUsage, FsError> {
        let account = self.look(&mut self.state.lock())?;
        Ok(SpaceUsage {
            used_bytes: account.used_bytes(),
            limit_bytes: account.limit_bytes(),
            free_bytes: account.free_bytes(),
            reserve_bytes: account.reserve_bytes(),
            n_waiting: self.waiting.n_waiting(),
        })
    }

    /// Bytes that are free on the disk, whatever they are set apart for.
    pub(crate) fn disk_free_bytes(&self) -> Result<u64, FsError> {
        let disk = self.disk.space()?;
        Ok(disk.capacity_bytes.saturating_sub(disk.used_bytes))
    }

    /// Says whether something may make room.
    pub(crate) fn expect(&self, is_expected: bool) {
        self.waiting.expect(is_expected);
    }

    /// Whether something may make room.
    pub(crate) fn is_expected(&self) -> bool {
        self.waiting.is_expected()
    }

    /// Begins to wait for room.
    pub(crate) fn begin_waiting(&self) -> WaitingForRoom<'_> {
        self.waiting.begin()
    }

    /// How long an operation waits at most.
    pub(crate) fn wait_max(&self) -> Duration {
        self.waiting.at_most
    }

    /// Waits until something may have changed, so long at most.
    pub(crate) fn pause(&self, at_most: Duration) {
        self.waiting.pause(at_most);
    }

    /// Whether so little room is left that nothing is to be stored that need not be.
    pub(crate) fn is_critical(&self) -> bool {
        let account = self.account(&mut self.state.lock());
        account.is_ok_and(|account| account.is_above(self.critical_percent))
    }

    /// A write found the disk full. RocksDB needs room to recover from that.
    pub(crate) fn ran_out(&self) {
        let mut state = self.state.lock();
        state.last_look = None;
        state.ballast.give_up();
    }

    pub(crate) fn statfs(&self, counters: &Counters, chunk_bytes: u32) -> Result<StatFs, FsError> {
        let account = self.look(&mut self.state.lock())?;
        Ok(StatFs {
            n_inodes: counters.n_inodes(),
            // A number is never used again, and there are more than can be used.
            n_inodes_free: u64::from(u32::MAX),
            limit_bytes: account.limit_bytes(),
            used_bytes: account.used_bytes(),
            free_bytes: account.free_bytes(),
            data_bytes: counters.resident_bytes() + counters.cold_bytes(),
            chunk_bytes,
            name_bytes_max: NAME_BYTES_MAX,
        })
    }

    /// The permit, if there is room by the last look or by a new one.
    fn promise(&self, purpose: Purpose, bytes: u64) -> Result<Option<Permit<'_>>, FsError> {
        // With the lock held, so that of several writers that come at a time each sees what was
        // promised to the others.
        let mut state = self.state.lock();
        // Promises are read before the account: a commit in between is counted as written and as
        // promised, where the other order could miss it altogether.
        let promised = self.promised_bytes.load(Ordering::Relaxed);
        let wanted = promised.saturating_add(bytes);
        let mut account = self.account(&mut state)?;
        if !account.fits(purpose, wanted) && self.is_stale(&state) {
            account = self.look(&mut state)?;
        }
        if !account.fits(purpose, wanted) {
            return Ok(None);
        }
        self.promised_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Some(Permit { room: Some(self), bytes, epoch: self.epoch() }))
    }

    /// The account by the last look and what was written since, or by a new one if that is due.
    fn account(&self, state: &mut State) -> Result<Account, FsError> {
        if let Some(look) = state.last_look {
            let written = self.written_bytes.load(Ordering::Relaxed);
            let account = look.account.after(written);
            let low = account.is_low();
            if look.at.elapsed() < if low { LOOK_INTERVAL_LOW } else { LOOK_INTERVAL } {
                return Ok(account);
            }
        }
        self.look(state)
    }

    /// Whether a new look may find more room than the last one and what was added to it.
    fn is_stale(&self, state: &State) -> bool {
        state.last_look.is_none_or(|look| {
            self.written_bytes.load(Ordering::Relaxed) >= LOOK_BYTES
                || look.at.elapsed() >= LOOK_INTERVAL_LOW
        })
    }

    /// Counts everything.
    fn look(&self, state: &mut State) -> Result<Account, FsError> {
        // Before the counting: what is written meanwhile may be counted twice, and not be missed.
        let written_before = self.written_bytes.load(Ordering::Relaxed);
        let mut account = self.measure(state.ballast.bytes())?;
        let wanted = account.wanted_ballast_bytes();
        if wanted != account.ballast_bytes {
            state.ballast.resize(wanted);
            account = self.measure(state.ballast.bytes())?;
        }
        // Not set to zero: what was added during the measuring may not be in the account.
        self.written_bytes.fetch_sub(written_before, Ordering::Relaxed);
        state.last_look = Some(Look { at: Instant::now(), account });
        if account.is_low() {
            self.activity.note_low_space();
        } else if self.told.swap(false, Ordering::Relaxed) {
            tracing::info!(free_bytes = account.free_bytes(), "the store has room again");
        }
        Ok(account)
    }

    fn measure(&self, ballast_bytes: u64) -> Result<Account, FsError> {
        let own_bytes = match self.capacity_bytes {
            None => 0,
            Some(_) => self.disk.own_bytes()?.saturating_add(self.elsewhere_bytes()?),
        };
        Ok(Account {
            capacity_bytes: self.capacity_bytes,
            own_bytes,
            unflushed_bytes: self.disk.unflushed_bytes()?,
            disk: self.disk.space()?,
            ballast_bytes,
        })
    }

    fn elsewhere_bytes(&self) -> Result<u64, FsError> {
        let Some(used_elsewhere) = self.used_elsewhere.get() else { return Ok(0) };
        used_elsewhere().map_err(|source| FsError::Store {
            operation: "measure what lies beside",
            kind: source.kind(),
            source: source.into(),
        })
    }

    /// Has RocksDB write what it holds in memory, if that is worth it. Whether it was.
    fn flush_unflushed(&self) -> Result<bool, FsError> {
        // Before the wait, so that a flush of another thread shows as fewer bytes afterwards.
        let seen = self.last_unflushed();
        let _flushing = self.flushing.lock();
        // A thread that waited finds it done, and looks again.
        let account = self.look(&mut self.state.lock())?;
        if account.unflushed_bytes < account.flush_bytes_min() {
            return Ok(account.unflushed_bytes < seen);
        }
        // Without room even for the flush it is not begun: a flush that fails stops all writes.
        if !account.fits(Purpose::Reclaim, account.unflushed_bytes) {
            return Ok(false);
        }
        tracing::debug!(bytes = account.unflushed_bytes, "room is short: flushing");
        // Without the lock of the state: a flush takes long, and what fits is let in meanwhile.
        let flushed = self.disk.flush();
        self.state.lock().last_look = None;
        if matches!(flushed, Err(FsError::NoSpace(_))) {
            self.ran_out();
        }
        flushed.map(|()| true)
    }

    fn last_unflushed(&self) -> u64 {
        let look = self.state.lock().last_look;
        look.map_or(0, |look| look.account.unflushed_bytes)
    }

    /// The error of a refusal; the operator is told once, until there is room again.
    fn refused(&self) -> FsError {
        self.activity.note_low_space();
        if !self.told.swap(true, Ordering::Relaxed)
            && let Some(Look { account, .. }) = self.state.lock().last_look
        {
            tracing::warn!(
                used_bytes = account.used_bytes(),
                limit_bytes = account.limit_bytes(),
                disk_used_bytes = account.disk.used_bytes,
                disk_bytes = account.disk.capacity_bytes,
                "{STORE_IS_FULL}"
            );
        }
        FsError::NoSpace(STORE_IS_FULL)
    }
}

/// Gives up the ballast of a filesystem that is not open. Whether there was one.
pub(crate) fn give_up_ballast(directory: &Path) -> bool {
    Ballast::find(directory).give_up()
}

/// What an operator reads.
const STORE_IS_FULL: &str = "the store is full: run `tier evict`, give it a cloud, raise \
                             space.capacity_bytes, or make room on its disk";

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "it is 255")]
const NAME_BYTES_MAX: u32 = FileName::BYTES_MAX as u32;
