//! Locks of inodes: whoever changes one holds its lock until the change is committed.

use parking_lot::{Mutex, MutexGuard};
use tier_types::{Ino, to_u64, to_usize};

const N_SHARDS: usize = 1024;

/// One lock for many inodes each, taken in order, so that nobody waits in a circle.
#[derive(Debug)]
pub(crate) struct InodeLocks(Vec<Mutex<()>>);

/// Held while inodes change.
#[derive(Debug)]
pub(crate) struct InodeGuard<'a> {
    _guards: Vec<MutexGuard<'a, ()>>,
}

impl InodeLocks {
    pub(crate) fn new() -> Self {
        Self((0..N_SHARDS).map(|_| Mutex::new(())).collect())
    }

    pub(crate) fn lock(&self, inodes: &[Ino]) -> InodeGuard<'_> {
        let mut shards: Vec<_> =
            inodes.iter().map(|ino| to_usize(ino.get() % to_u64(N_SHARDS))).collect();
        shards.sort_unstable();
        shards.dedup();
        let locks = shards.iter().filter_map(|&shard| self.0.get(shard));
        InodeGuard { _guards: locks.map(Mutex::lock).collect() }
    }
}
