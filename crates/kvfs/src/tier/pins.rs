//! Pins: inodes that an operator wants to stay in the store.

use std::collections::HashSet;

use tier_types::Ino;

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;

impl Core {
    /// Keeps an inode, and for a directory everything below it, from being evicted, or not any
    /// longer.
    pub fn set_pin(&self, ino: Ino, pinned: bool) -> Result<(), FsError> {
        let permit = self.admit(Purpose::Removal, ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino]);
        self.reader().attr(ino)?;
        if self.reader().has_pin(ino)? != pinned {
            self.committer.commit(permit, 0, move |draft| draft.set_pin(ino, pinned))?;
            tracing::info!(%ino, pinned, "pin changed");
        }
        Ok(())
    }

    /// Whether an inode, or a directory above it, is pinned. A file with several names is pinned
    /// through any of them.
    pub fn is_pinned(&self, ino: Ino) -> Result<bool, FsError> {
        // Mostly there are none, and the way up of every candidate need not be gone.
        if self.committer.counters().n_pins == 0 {
            return Ok(false);
        }
        let mut todo = vec![ino];
        let mut seen = HashSet::new();
        while let Some(ino) = todo.pop() {
            // Two names may lead up to one directory, and in a damaged store a directory to itself.
            if !seen.insert(ino) {
                continue;
            }
            if self.reader().has_pin(ino)? {
                return Ok(true);
            }
            todo.extend(self.reader().links(ino)?.into_iter().map(|link| link.parent));
        }
        Ok(false)
    }
}
