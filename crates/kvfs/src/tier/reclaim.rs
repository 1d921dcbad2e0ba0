//! Reclaiming: the way of free space back to the disk.
//!
//! Large chunks lie in extent files, of which parts can be given back: that is a matter of punching
//! holes, and done in full, but for what a KVS snapshot still shows. Small chunks are rows of the
//! key-value store, and their space comes back when a file is rewritten: that is done for files of
//! which much was deleted, one after another, none larger than a share of what is free, so that the
//! disk is never filled by what is to empty it.

use tier_types::Reclaimed;

use crate::FsError;
use crate::core::Core;

/// A file that is rewritten takes no more than this share of what is free.
const FREE_SHARE: u64 = 3;

impl Core {
    pub(super) fn reclaim_now(&self, is_stopped: &dyn Fn() -> bool) -> Result<Reclaimed, FsError> {
        let before = self.db.physical_bytes()?;
        // This makes detours durable before the bytes behind them are gone from the files.
        self.give_back()?;
        self.room.forget_look();
        self.db.flush_deletions()?;
        let mut n_files = 0_u64;
        while !is_stopped() && self.db.reclaim_file(self.room.disk_free_bytes()? / FREE_SHARE)? {
            n_files += 1;
            self.room.forget_look();
        }
        let reclaimed = Reclaimed {
            // Nothing was gained if as much was written meanwhile.
            returned_bytes: before.saturating_sub(self.db.physical_bytes()?),
            garbage_bytes: self.db.garbage_bytes()?,
            pinned_bytes: self.freed.pinned_bytes(),
        };
        tracing::info!(n_files, ?reclaimed, "reclaimed");
        Ok(reclaimed)
    }
}
