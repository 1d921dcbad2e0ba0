//! The committer: group commit with consecutive transaction ids.
//!
//! Every change of the filesystem is a mutation: a closure that is told its transaction id and its
//! time, and fills a draft. Threads put their mutations into a queue and ask for the lead. The
//! thread that gets it takes the whole queue, gives each mutation the next ids, and writes all
//! drafts, their log records, the new totals and the last id as one batch of the key-value store.
//! So
//!
//! - ids have no gaps, and their order is the order in which batches become visible;
//! - a change, its log record and its share of the totals are in the store together or not at all;
//! - the store knows its own last id, and an opening can tell that batches are missing at its end;
//! - the cost of a batch is shared by all threads that came while the one before was written. A
//!   thread that comes alone leads at once and waits for nothing.
//!
//! A commit makes a change visible, and keeps it if the process ends, but not through a loss of
//! power: that takes a [`sync`](Committer::sync). A sync counts the batches that it covers before
//! it begins; threads that come while one is under way wait for it and share the next one, and a
//! thread whose batch is covered by then has nothing left to do. Lock order: `synced` before the
//! lead, and never the other way round, so that commits go on while a sync is under way.
//!
//! A KVS snapshot is taken with the lead held. No batch is half written then, so that the snapshot
//! and the last transaction id that comes with it belong together: this is what makes a publication
//! of log segment and snapshot atomic.
//!
//! # What a failure does
//! Every mutation comes with a [`Permit`] of the account of room, so that RocksDB mostly never sees
//! a full disk. If it does, the batch fails as a whole: each mutation in it gets
//! [`FsError::NoSpace`], no id was used, and nothing of it will ever be visible, because a record
//! that is torn off ends its log. From then on RocksDB itself refuses to write, until its own
//! recovery has written everything in memory into tables; then it accepts again, and this is how
//! the committer notices. Until then no sync is asked for: it would find the torn log, which
//! RocksDB would take for an error that it cannot recover from.
//!
//! Writes that are no transaction, such as the record of a publication, go through the lead as
//! well: one of them that met the full disk would otherwise leave a torn log behind of which the
//! committer knows nothing.
//!
//! After any other error a batch may or may not be in the write-ahead log, and after a failed sync
//! it is unknown what is on the disk. Both poison the committer: every later change and sync fails
//! with [`FsError::Poisoned`] until the key-value store is opened again, which looks at what is
//! there ([`Core`](crate::Core) does so by itself). The mutation that met the error gets it, the
//! others of its batch get `Poisoned`; and those that were under way with a permit of before get
//! [`FsError::Reopened`] instead of being committed.
//!
//! A panic must not leave threads waiting. There are three places for one:
//!
//! 1. In a mutation's closure. It runs with a draft of its own, which is dropped: nothing of it is
//!    in the batch, no id was used, and the others of the batch are written as if it had not come.
//!    The panic goes on in the thread that committed the mutation, whichever thread was leading.
//! 2. In the leader before anything was written (its clock, say). Everything that it had taken off
//!    the queue is dropped and by that settled with [`FsError::LeaderPanicked`]; nothing was
//!    changed, and the next thread leads.
//! 3. In the leader while it writes. The same, but the committer is poisoned: it is before the
//!    write begins, and is well again only when the write has come back.

mod extent_state;
mod faults;
mod group;
mod health;
mod reopen;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::Cell;
use std::iter;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tier_types::{Clock, Timestamp, Xid, to_u64};

use super::Draft;
use super::draft::{put_extents_floor, put_totals};
use crate::space::{Permit, Room};
use crate::store::extents::{Appended, Committing};
use crate::store::{Batch, Counters, Db, KvsSnapshot, Synced, Witness};
use crate::{FsError, Loss};
use extent_state::ExtentState;
use group::{GroupCommit, Lead, Pending, Promise, Queue, SharedSync};
use health::{Health, Reopening};

/// A batch takes no further mutation when it has this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// After an error the key-value store is opened again at most this often.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// A change that knows its content but not yet its transaction ids. It says beforehand how many
/// operations it logs: none for what is no operation, such as an eviction.
struct Mutation {
    n_operations: u64,
    /// How often the key-value store had been opened again when its room was asked for.
    epoch: Option<u64>,
    fill: Box<dyn FnOnce(&mut Draft) + Send>,
}

/// A mutation is in the store, though not yet durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    /// The transaction id of its first operation.
    pub(crate) xid: Xid,
    pub(crate) time: Timestamp,
}

/// What became of a mutation.
enum Outcome {
    Done(Result<Committed, FsError>),
    /// Its closure panicked, with this.
    Panicked(Box<dyn Any + Send>),
}

/// Gives mutations their transaction ids and writes them.
pub(crate) struct Committer {
    db: Arc<Db>,
    /// Is told what each sync covered.
    witness: Witness,
    group: GroupCommit<Leader>,
    syncs: SharedSync,
    /// The leader's, to be asked without waiting for the lead.
    is_poisoned: Arc<AtomicBool>,
    /// Why no operation is accepted.
    refusal: Option<Loss>,
}

/// What the leading thread goes by.
struct Leader {
    db: Arc<Db>,
    room: Arc<Room>,
    clock: Arc<dyn Clock>,
    next_xid: Xid,
    counters: Counters,
    /// Batches written, to tell what a sync covers.
    n_batches: u64,
    health: Health,
    is_poisoned: Arc<AtomicBool>,
    /// When the key-value store was last opened again, or that was tried.
    reopened: Option<Reopening>,
    /// Whether the log says that the disk is full.
    told_full: bool,
    extents: ExtentState,
}

/// The last numbers that were given out before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastIds {
    pub(crate) xid: Xid,
    /// Of what was freed; `None` if nothing was.
    pub(crate) generation: Option<u64>,
}

impl Committer {
    pub(crate) fn new(
        db: Arc<Db>,
        room: Arc<Room>,
        witness: Witness,
        clock: Arc<dyn Clock>,
        last: LastIds,
        counters: Counters,
    ) -> Self {
        let is_poisoned = Arc::<AtomicBool>::default();
        let leader = Leader {
            db: Arc::clone(&db),
            room,
            clock,
            next_xid: last.xid.next(),
            counters,
            n_batches: 0,
            health: Health::Well,
            is_poisoned: Arc::clone(&is_poisoned),
            reopened: None,
            told_full: false,
            extents: ExtentState::new(last.generation),
        };
        let group = GroupCommit::new(leader);
        Self { db, witness, group, syncs: SharedSync::default(), is_poisoned, refusal: None }
    }

    /// The same, but every mutation that is an operation fails with a loss, if there is one.
    pub(crate) fn refusing(self, refusal: Option<Loss>) -> Self {
        Self { refusal, ..self }
    }

    /// Whether operations are accepted.
    pub(crate) fn check_writable(&self) -> Result<(), FsError> {
        self.refusal.clone().map_or(Ok(()), |loss| Err(loss.into()))
    }

    /// Commits a mutation that logs `n_operations`; `fill` must add exactly as many. If `fill`
    /// panics, so does this, and nothing of it is in the store. There must be room for it, which
    /// the permit says.
    pub(crate) fn commit(
        &self,
        permit: Permit<'_>,
        n_operations: u64,
        fill: impl FnOnce(&mut Draft) + Send + 'static,
    ) -> Result<Committed, FsError> {
        // Data may come back from the archive and go there: that takes no id.
        if n_operations > 0 {
            self.check_writable()?;
        }
        let (epoch, fill) = (permit.epoch(), Box::new(fill));
        let outcome = self.group.commit(Mutation { n_operations, epoch, fill });
        // Only now that it is counted as written, or is not written at all.
        drop(permit);
        match outcome {
            Outcome::Done(done) => done,
            Outcome::Panicked(panic) => panic::resume_unwind(panic),
        }
    }

    /// Makes a write that is no transaction, as a batch of its own, not synced. Of all errors of
    /// writes the committer must know: what follows one fails, or may have to wait.
    pub(crate) fn write_beside(
        &self,
        write: impl FnOnce(&Db) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let mut leader = self.group.leader();
        leader.attempt(write)?;
        // Counted like a batch: a sync that found no new one would return at once, and leave this
        // write to a loss of power.
        leader.n_batches += 1;
        Ok(())
    }

    /// The last transaction id given out.
    pub(crate) fn last_xid(&self) -> Xid {
        self.group.leader().last_xid()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.group.leader().counters
    }

    /// A KVS snapshot with the last transaction id that it shows.
    pub(crate) fn snapshot(&self) -> Result<(KvsSnapshot, Xid), FsError> {
        let leader = self.group.leader();
        Ok((KvsSnapshot::take(&self.db)?, leader.last_xid()))
    }

    /// Whether nothing can be committed before the key-value store is opened again.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned.load(Ordering::Relaxed)
    }

    /// Bytes of extents that were freed in the generation of the moment.
    pub(crate) fn freed_bytes(&self) -> u64 {
        self.group.leader().extents.freed_bytes
    }

    /// Bytes of extents that were committed since the last sync began.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.group.leader().extents.unsynced_bytes
    }

    /// Ends a generation: what is freed from now on belongs to the next one. Returns its number.
    pub(crate) fn end_generation(&self) -> u64 {
        let mut leader = self.group.leader();
        let generation = leader.extents.generation;
        leader.extents.generation += 1;
        leader.extents.freed_bytes = 0;
        generation
    }

    /// Makes what an earlier process left durable, and known to be: a later sync that finds nothing
    /// new would note nothing.
    pub(crate) fn sync_at_opening(&self) -> Result<(), FsError> {
        if self.db.extent_files().needs_rewrite() {
            // What an earlier process wrote cannot be synced: it can be read all the same.
            return Ok(());
        }
        // Read before the sync: the witness may lag, but must never claim what is not on the disk.
        let synced = Synced { xid: self.last_xid(), n_writes: self.db.n_writes()? };
        self.db.sync()?;
        self.witness.note(synced);
        Ok(())
    }

    /// Makes everything that is committed durable. Threads that come while a sync is under way
    /// share the next one.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        // Read before the wait for a sync under way: one that another thread begins meanwhile
        // covers these batches as well, and nothing is left to do here.
        let wanted = self.group.leader().n_batches;
        let covered = Cell::new(Synced { xid: Xid::new(0), n_writes: 0 });
        let epoch = Cell::new(0);
        let written = || {
            let mut leader = self.group.leader();
            leader.ready_to_sync()?;
            covered.set(Synced { xid: leader.last_xid(), n_writes: self.db.n_writes()? });
            // Set back before the sync and not after it: what is committed meanwhile may not be
            // covered, and must count towards the next one.
            leader.extents.unsynced_bytes = 0;
            epoch.set(leader.room.epoch());
            Ok(leader.n_batches)
        };
        let sync = || {
            // Without the lead, so that commits go on meanwhile.
            let synced = self.db.sync();
            let mut leader = self.group.leader();
            if leader.room.epoch() != epoch.get() {
                // The database that was synced may not be the one that has the batches.
                return Err(leader.overtaken());
            }
            match synced {
                Ok(floor) => {
                    // Only now, and no more than the sync covered for sure.
                    self.witness.note(covered.get());
                    leader.extents.synced(floor);
                    Ok(())
                }
                Err(error) => Err(leader.sync_failed(error)),
            }
        };
        self.syncs.sync(wanted, written, sync)
    }
}

impl Leader {
    fn last_xid(&self) -> Xid {
        before(self.next_xid)
    }

    fn write(&mut self, batch: Batch) -> Result<(), FsError> {
        let bytes = to_u64(batch.bytes());
        self.attempt(|db| db.write(batch))?;
        self.room.wrote(bytes);
        Ok(())
    }

    /// Makes a write. Poisoned before and well only after: a panic in between is a failure.
    fn attempt(&mut self, write: impl FnOnce(&Db) -> Result<(), FsError>) -> Result<(), FsError> {
        if let Some(refusal) = self.health.refusal() {
            // Also after a panic, which could not say so.
            self.is_poisoned.store(true, Ordering::Relaxed);
            return Err(refusal);
        }
        let before = std::mem::replace(&mut self.health, Health::Poisoned);
        let written = write(&self.db);
        let health = match &written {
            Ok(()) => Health::Well,
            Err(error) => self.health_after(error, before),
        };
        self.set_health(health);
        written.map_err(|error| health.refusal_instead_of(error))
    }

    /// Whether a sync can be asked for. After a failed one it is unknown what is on the disk.
    fn ready_to_sync(&mut self) -> Result<(), FsError> {
        if let Some(refusal) = self.health.refusal() {
            return Err(refusal);
        }
        if self.health != Health::Full {
            return Ok(());
        }
        // A batch that changes nothing tells whether RocksDB has recovered.
        let mut batch = Batch::default();
        put_totals(&mut batch, &self.counters, self.last_xid());
        self.write(batch)
    }
}

impl Lead for Leader {
    type Mutation = Mutation;
    type Outcome = Outcome;

    fn write_batch(&mut self, queue: &mut Queue<Self>) {
        let time = self.clock.now();
        let mut batch = Batch::default();
        let mut batch_bytes = 0;
        let mut next_xid = self.next_xid;
        let mut counters = self.counters;
        let mut members: Vec<(Promise<Self>, Committed)> = Vec::new();
        let mut committing = Vec::new();
        let mut freed_bytes = 0;
        for Pending { mutation, promise } in queue.by_ref() {
            // What it was decided by was read from the database of before: a batch that failed then
            // may be there by now.
            if mutation.epoch.is_some_and(|epoch| epoch != self.room.epoch()) {
                promise.settle(Outcome::Done(Err(self.overtaken())));
                continue;
            }
            // On this thread, whichever thread the mutation came from: the closure knows its
            // content, and only here the id that it gets.
            let draft = match filled(mutation, next_xid, time, self.extents.generation) {
                Ok(draft) => draft,
                Err(panic) => {
                    promise.settle(Outcome::Panicked(panic));
                    continue;
                }
            };
            members.push((promise, Committed { xid: next_xid, time }));
            counters.add(&draft.counters);
            batch_bytes += draft.bytes();
            let n_operations = draft.n_operations();
            let drafted = draft.append_to(&mut batch);
            let n_ids = drafted.next_xid.get() - next_xid.get();
            assert_eq!(n_ids, n_operations, "ids have no gaps");
            next_xid = drafted.next_xid;
            freed_bytes += drafted.freed_bytes;
            committing.extend(drafted.appended.into_iter().map(Appended::into_committing));
            if batch_bytes >= BATCH_BYTES {
                break;
            }
        }
        if members.is_empty() {
            // None is left: a batch of nothing but the totals would be a write for nothing.
            return;
        }
        put_totals(&mut batch, &counters, before(next_xid));
        if let Some(floor) = self.extents.floor {
            put_extents_floor(&mut batch, floor);
        }
        // What lies in the extent files was written for this batch as well.
        self.room.wrote(committing.iter().map(Committing::bytes).sum());
        match self.write(batch) {
            Ok(()) => {
                assert!(next_xid >= self.next_xid, "transaction ids only ever rise");
                // Only now: a batch that failed has used no id and changed no total.
                self.next_xid = next_xid;
                self.counters = counters;
                self.n_batches += 1;
                self.extents.floor = None;
                self.extents.committed(committing, freed_bytes);
                for (promise, committed) in members {
                    promise.settle(Outcome::Done(Ok(committed)));
                }
            }
            Err(error) => {
                // A disk that was full is one for all of them, and any other error is unlike it.
                let no_space =
                    if let FsError::NoSpace(problem) = error { Some(problem) } else { None };
                if self.health == Health::Full {
                    // Nothing of the batch is in the store, and its extents belong to no row. After
                    // any other error they stay in flight.
                    committing.into_iter().for_each(Committing::give_back);
                }
                let others = || no_space.map_or(FsError::Poisoned, FsError::NoSpace);
                let errors = iter::once(error).chain(iter::repeat_with(others));
                for ((promise, _), error) in members.into_iter().zip(errors) {
                    promise.settle(Outcome::Done(Err(error)));
                }
            }
        }
    }

    fn abandoned() -> Outcome {
        Outcome::Done(Err(FsError::LeaderPanicked))
    }
}

/// The transaction before the next one.
fn before(next: Xid) -> Xid {
    assert!(next > Xid::new(0), "the first transaction is 1");
    Xid::new(next.get() - 1)
}

/// The draft that a mutation fills, or what its closure panicked with. A draft of its own is all
/// that a closure can leave half made.
fn filled(
    mutation: Mutation,
    xid: Xid,
    time: Timestamp,
    generation: u64,
) -> Result<Draft, Box<dyn Any + Send>> {
    let Mutation { n_operations, fill, .. } = mutation;
    panic::catch_unwind(AssertUnwindSafe(|| {
        let mut draft = Draft::new(xid, time);
        draft.generation = generation;
        fill(&mut draft);
        assert_eq!(draft.n_operations(), n_operations, "as many operations as announced");
        draft
    }))
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}
