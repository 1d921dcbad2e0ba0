//! The list of inodes with recalled data that did not change since: evicting it again is free.

use tier_types::{ChunkNo, ChunkState, Ino};

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;
use crate::tx::ListKind;

impl Core {
    /// Takes an inode off the list if it has no warm data any more. An inode that stays on the list
    /// for nothing costs a look, one that is missing would be evicted late.
    pub(super) fn unlist_warm(&self, ino: Ino) -> Result<(), FsError> {
        let permit = self.admit(Purpose::Reclaim, ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino]);
        if !self.reader().is_listed_warm(ino)? {
            return Ok(());
        }
        // An eviction names one extent of the inode: other parts of it may still be warm.
        for run in self.reader().all_runs(ino, ChunkNo::new(0)) {
            if run?.state == ChunkState::Warm {
                return Ok(());
            }
        }
        self.committer.commit(permit, 0, move |draft| draft.unlist(ListKind::Warm, ino))?;
        Ok(())
    }
}
