//! Further names of inodes.

use tier_log::Operation;
use tier_types::{FileAttr, FileName, Ino, Link};

use super::lookup::is_directory;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::tx::ListKind;

/// The greatest number of names.
const N_LINKS_MAX: u32 = 65_000;

impl Core {
    /// Gives an inode one more name, of which the kernel is told.
    pub(crate) fn link_known(
        &self,
        ino: Ino,
        dir: Ino,
        name: &FileName,
    ) -> Result<FileAttr, FsError> {
        let attr = self.link(ino, dir, name)?;
        // The kernel asked by its number, so that it knows the inode already; another name of it
        // that goes meanwhile does not end it.
        if self.references.add_lookup_if_held(ino) { Ok(attr) } else { self.know(ino) }
    }

    /// Gives an inode one more name. One without any becomes permanent by it.
    pub fn link(&self, ino: Ino, dir: Ino, name: &FileName) -> Result<FileAttr, FsError> {
        let permit = self.admit_growth(ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino, dir]);
        let mut attr = self.reader().attr(ino)?;
        let mut parent = self.linked_directory(dir)?;
        if is_directory(&attr) {
            return Err(FsError::IsDirectory);
        }
        if attr.nlink >= N_LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        if self.reader().entry(dir, name)?.is_some() {
            return Err(FsError::Exists);
        }
        attr.nlink += 1;
        let link = Link { parent: dir, name: name.clone() };
        let mut updated = attr.clone();
        let committed = self.committer.commit(permit, 1, move |draft| {
            draft.add_name(ino, &link);
            // It may have been made without a name, or lost its last one while it was open.
            draft.unlist(ListKind::Orphans, ino);
            draft.log(Operation::Link { ino, link });
            draft.put_changed(&mut updated);
            draft.touch_directory(&mut parent);
        })?;
        attr.changed = committed.time;
        attr.xid = committed.xid;
        Ok(attr)
    }
}
