//! What is wrong with the disk: another program that fills it, and syncs that fail.

use fuser::Errno;

use super::blocks::BLOCK_BYTES;

/// How syncs fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailedSync {
    /// What was not synced stays to be synced.
    Keeps,
    /// What was not synced is never written by a later sync.
    Forgets,
}

#[derive(Clone, Debug)]
pub(super) struct Faults {
    n_blocks: u64,
    /// Blocks that another program has.
    n_foreign_blocks: u64,
    /// So many syncs fail, one after the other.
    n_failing_syncs: u64,
    failed_sync: FailedSync,
    n_failed_syncs: u64,
}

impl Faults {
    pub(super) fn none(capacity_bytes: u64) -> Self {
        Self {
            n_blocks: capacity_bytes / BLOCK_BYTES,
            n_foreign_blocks: 0,
            n_failing_syncs: 0,
            failed_sync: FailedSync::Keeps,
            n_failed_syncs: 0,
        }
    }

    pub(super) fn n_blocks(&self) -> u64 {
        self.n_blocks
    }

    /// Blocks that can be given out if so many are in use.
    pub(super) fn n_free_blocks(&self, n_used_blocks: u64) -> u64 {
        self.n_blocks.saturating_sub(self.n_foreign_blocks).saturating_sub(n_used_blocks)
    }

    /// Lets another program take or give back room until so many bytes are free.
    pub(super) fn leave_free(&mut self, free_bytes: u64, n_used_blocks: u64) {
        let n_wanted = n_used_blocks + free_bytes / BLOCK_BYTES;
        self.n_foreign_blocks = self.n_blocks.saturating_sub(n_wanted);
    }

    pub(super) fn fail_syncs(&mut self, n_syncs: u64, failed_sync: FailedSync) {
        (self.n_failing_syncs, self.failed_sync) = (n_syncs, failed_sync);
    }

    /// Syncs that failed until now.
    pub(super) fn n_failed_syncs(&self) -> u64 {
        self.n_failed_syncs
    }

    /// Whether the sync that begins fails, and how.
    pub(super) fn sync(&mut self) -> Option<FailedSync> {
        self.n_failing_syncs = self.n_failing_syncs.checked_sub(1)?;
        self.n_failed_syncs += 1;
        Some(self.failed_sync)
    }

    pub(super) fn sync_error() -> Errno {
        Errno::EIO
    }
}
