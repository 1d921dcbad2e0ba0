//! Locks of inodes: an operation that changes one holds its lock until the change is committed.
//!
//! # Order
//! Locks are taken in this order, and each is given up before an earlier one is taken again:
//!
//! 1. `publishing`, held by a publication from its snapshot to the release of its log records;
//! 2. `tree`, held while a directory moves to another one. With two such moves at a time (a into b,
//!    and b into a) each could find that it makes no circle, and both would make one;
//! 3. the locks of inodes, by number of their shard, all that an operation needs at once. A
//!    thousand shards stand for all inodes: two inodes of one shard wait for each other without
//!    need, which is harmless, and one operation that needs both takes the shard once;
//! 4. the committer's sync, then its lead, then its queue;
//! 5. leaves, under which nothing else is taken: references, last uses, room, places of restored
//!    entries, held KVS snapshots, published segments.
//!
//! # What a lock is for
//! Reads take none: they see single rows as they are, or a KVS snapshot where map and data must
//! belong together. A change reads under the lock of each inode whose rows it writes, and commits
//! before it gives the lock up; so two changes of an inode never build on the same state, and the
//! mutations of one batch are of different inodes. A name is looked up first to learn which inodes
//! to lock, and looked up again under their locks: if it leads elsewhere by now, the operation
//! starts over.
//!
//! No lock of the first three is held while a thread waits for the archive, for the kernel, or for
//! room; residency listeners are called without any. A closure that fills a draft runs under the
//! lead, on any thread: it must take no lock but a leaf.

use std::collections::BTreeSet;

use parking_lot::{Mutex, MutexGuard};
use tier_types::{Ino, to_u64, to_usize};

/// Locks that all inodes share among them.
const N_SHARDS: usize = 1024;

/// Inodes that one operation locks at most: both directories of a rename, and both inodes.
const N_LOCKED_MAX: usize = 4;

/// The locks of a filesystem.
#[derive(Debug)]
pub(crate) struct Locks {
    tree: Mutex<()>,
    shards: Vec<Mutex<()>>,
}

/// Held while many inodes change.
#[derive(Debug)]
#[must_use]
pub(crate) struct InodesGuard<'a> {
    _guards: Vec<MutexGuard<'a, ()>>,
}

/// Held while inodes change.
#[derive(Debug)]
#[must_use]
pub(crate) struct InodeGuard<'a> {
    _guards: [Option<MutexGuard<'a, ()>>; N_LOCKED_MAX],
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self { tree: Mutex::new(()), shards: (0..N_SHARDS).map(|_| Mutex::new(())).collect() }
    }

    /// For the rename of a directory to another one: one at a time, so that none becomes its own
    /// ancestor. Taken before the locks of inodes.
    pub(crate) fn tree(&self) -> MutexGuard<'_, ()> {
        self.tree.lock()
    }

    /// Locks one to four inodes.
    pub(crate) fn lock(&self, inodes: &[Ino]) -> InodeGuard<'_> {
        let mut shards = [usize::MAX; N_LOCKED_MAX];
        assert!(!inodes.is_empty(), "a guard of nothing guards nothing");
        assert!(inodes.len() <= N_LOCKED_MAX, "an operation changes up to {N_LOCKED_MAX} inodes");
        for (shard, ino) in shards.iter_mut().zip(inodes) {
            *shard = shard_of(*ino);
        }
        // In one order for all operations, so that no two wait for each other.
        shards.sort_unstable();
        let mut guards = [const { None }; N_LOCKED_MAX];
        let mut last = usize::MAX;
        for (guard, shard) in guards.iter_mut().zip(shards) {
            // Beyond the last shard there are the places that were not asked for.
            if shard != last {
                *guard = self.shards.get(shard).map(Mutex::lock);
            }
            last = shard;
        }
        InodeGuard { _guards: guards }
    }

    /// Locks any number of inodes.
    pub(crate) fn lock_all(&self, inodes: &[Ino]) -> InodesGuard<'_> {
        // A set: in the one order for all operations, and each shard once.
        let shards: BTreeSet<usize> = inodes.iter().copied().map(shard_of).collect();
        let guards = shards.into_iter().filter_map(|shard| self.shards.get(shard));
        InodesGuard { _guards: guards.map(Mutex::lock).collect() }
    }
}

fn shard_of(ino: Ino) -> usize {
    to_usize(ino.get() % to_u64(N_SHARDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_of_one_shard_are_locked_once() {
        let locks = Locks::new();
        let (a, b) = (Ino::new(7), Ino::new(7 + to_u64(N_SHARDS)));
        let guard = locks.lock(&[b, Ino::new(3), a, a]);
        assert_eq!(locks.shards.iter().filter(|shard| shard.is_locked()).count(), 2);
        assert!(locks.shards[7].is_locked() && locks.shards[3].is_locked());
        drop(guard);
        assert!(locks.shards.iter().all(|shard| !shard.is_locked()));
    }

    #[test]
    fn other_inodes_stay_free() {
        let locks = Locks::new();
        let _guard = locks.lock(&[Ino::new(1)]);
        assert!(locks.shards[2].try_lock().is_some());
        assert!(locks.shards[1].try_lock().is_none());
    }

    #[test]
    fn any_number_of_inodes_is_locked_each_shard_once() {
        let locks = Locks::new();
        let inodes: Vec<_> = (0..to_u64(N_SHARDS) + 5).rev().step_by(2).map(Ino::new).collect();
        let guard = locks.lock_all(&inodes);
        // The last even numbers share their shards with the first ones.
        let n_locked = locks.shards.iter().filter(|shard| shard.is_locked()).count();
        assert_eq!(n_locked, N_SHARDS / 2);
        drop(guard);
        assert!(locks.shards.iter().all(|shard| !shard.is_locked()));
    }
}
