//! Room on the store's disk: what is left, and the reserve that operations leave alone.
//!
//! RocksDB must never see a full disk, because a failed write poisons the filesystem. So operations
//! that take room ask first, against a reserve for the write-ahead log, for what is being flushed,
//! and for a compaction. Operations that free room do not ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_types::{FileName, to_u64};

use crate::activity::Activity;
use crate::store::{Counters, Db};
use crate::{FsError, KvfsOptions};

/// So many write buffers stay free.
const RESERVE_BUFFERS: u64 = 6;
/// With less room than so many reserves, background work that frees room does not yield any more.
const LOW_SPACE_RESERVES: u64 = 4;
/// How often the disk is asked how much is left.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What statfs says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Inodes.
    pub n_inodes: u64,
    /// Inodes that can still be made.
    pub n_inodes_free: u64,
    /// Bytes of file data, in the store or evicted.
    pub data_bytes: u64,
    /// Bytes that the disk has left for more.
    pub free_bytes: u64,
    /// Size of a chunk in bytes.
    pub chunk_bytes: u32,
    /// Longest name in bytes.
    pub name_bytes_max: u32,
}

/// The disk on which a store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpace {
    /// Bytes in use, by the store or by anything else.
    pub used_bytes: u64,
    /// Bytes in use and bytes that an ordinary user can still take.
    pub capacity_bytes: u64,
}

/// Says whether there is room for more.
pub(crate) struct Room {
    db: Arc<Db>,
    activity: Arc<Activity>,
    reserve_bytes: u64,
    /// What was left on the disk at the last look.
    last_look: Mutex<Option<Look>>,
}

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    free_bytes: u64,
}

impl Room {
    pub(crate) fn new(db: Arc<Db>, activity: Arc<Activity>, options: &KvfsOptions) -> Self {
        let reserve_bytes = RESERVE_BUFFERS * to_u64(options.write_buffer_bytes);
        Self { db, activity, reserve_bytes, last_look: Mutex::new(None) }
    }

    /// Whether there is room for more.
    pub(crate) fn check(&self) -> Result<(), FsError> {
        // Asking the disk is a system call: too much for every small write.
        let mut last_look = self.last_look.lock();
        let free_bytes = match *last_look {
            Some(look) if look.at.elapsed() < LOOK_INTERVAL => look.free_bytes,
            _ => {
                let found = free_bytes(&self.db)?;
                *last_look = Some(Look { at: Instant::now(), free_bytes: found });
                if found < LOW_SPACE_RESERVES * self.reserve_bytes {
                    self.activity.note_low_space();
                }
                found
            }
        };
        if free_bytes > self.reserve_bytes {
            Ok(())
        } else {
            Err(FsError::NoSpace("the disk of the store is full but for a reserve"))
        }
    }

    pub(crate) fn statfs(&self, counters: &Counters, chunk_bytes: u32) -> Result<StatFs, FsError> {
        Ok(StatFs {
            n_inodes: counters.n_inodes(),
            // A number is never used again, and there are more than can be used.
            n_inodes_free: u64::from(u32::MAX),
            free_bytes: free_bytes(&self.db)?.saturating_sub(self.reserve_bytes),
            data_bytes: counters.resident_bytes() + counters.cold_bytes(),
            chunk_bytes,
            name_bytes_max: NAME_BYTES_MAX,
        })
    }
}

/// How full the store's disk is.
pub(crate) fn disk_space(db: &Db) -> Result<DiskSpace, FsError> {
    let stat = db.statvfs()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let used_bytes = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
    let capacity_bytes = used_bytes.saturating_add(bytes(stat.f_bavail));
    Ok(DiskSpace { used_bytes, capacity_bytes })
}

/// Bytes that the disk has left for an ordinary user.
fn free_bytes(db: &Db) -> Result<u64, FsError> {
    let stat = db.statvfs()?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "it is 255")]
const NAME_BYTES_MAX: u32 = FileName::BYTES_MAX as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{options, store};

    fn room(db: &Arc<Db>, write_buffer_bytes: usize) -> Room {
        Room::new(Arc::clone(db), Arc::default(), &KvfsOptions { write_buffer_bytes, ..options() })
    }

    #[test]
    fn a_reserve_stays_free() {
        let (_dir, db) = store();
        let small = room(&db, 1);
        small.check().unwrap();
        let statfs = small.statfs(&Counters::default(), 512).unwrap();
        assert!(statfs.free_bytes > 0 && statfs.name_bytes_max == 255);
        let large = room(&db, 1 << 55);
        assert!(matches!(large.check(), Err(FsError::NoSpace(_))));
        assert_eq!(large.statfs(&Counters::default(), 512).unwrap().free_bytes, 0);
    }

    #[test]
    fn low_space_ends_yielding() {
        let (_dir, db) = store();
        let activity = Arc::<Activity>::default();
        let options = KvfsOptions { write_buffer_bytes: 1 << 55, ..options() };
        let room = Room::new(db, Arc::clone(&activity), &options);
        activity.note_use();
        assert!(activity.is_foreground());
        room.check().unwrap_err();
        activity.note_use();
        assert!(!activity.is_foreground());
    }

    #[test]
    fn totals_that_damage_made_negative_count_as_none() {
        let (_dir, db) = store();
        let counters =
            Counters { n_inodes: -1, resident_bytes: -5, cold_bytes: 7, ..Counters::default() };
        let statfs = room(&db, 1).statfs(&counters, 512).unwrap();
        assert_eq!((statfs.n_inodes, statfs.data_bytes), (0, 7));
    }

    #[test]
    fn a_disk_is_no_fuller_than_it_is_large() {
        let (_dir, db) = store();
        let DiskSpace { used_bytes, capacity_bytes } = disk_space(&db).unwrap();
        assert!(0 < used_bytes && used_bytes <= capacity_bytes);
    }
}
