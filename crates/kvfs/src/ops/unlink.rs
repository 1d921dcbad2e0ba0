//! Names that are taken away. What becomes of the inode that loses its last one: see `lifetime`.

use tier_log::Operation;
use tier_types::{FileName, Ino, Link};

use super::lookup::{count_subdirectories, is_directory};
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::{Permit, Purpose};
use crate::store::Entry;

impl Core {
    /// Takes a name of something that is not a directory away.
    pub fn unlink(&self, dir: Ino, name: &FileName) -> Result<(), FsError> {
        self.remove_entry(dir, name, false)?;
        self.bound_backlogs();
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, dir: Ino, name: &FileName) -> Result<(), FsError> {
        self.remove_entry(dir, name, true)
    }

    fn remove_entry(&self, dir: Ino, name: &FileName, directory: bool) -> Result<(), FsError> {
        let permit = self.admit(Purpose::Removal, ROWS_BYTES)?;
        // Without a bound: each further round means that another operation changed this very name.
        loop {
            // Without locks, to learn which ones to take.
            let Entry { ino, .. } = self.entry_in(dir, name)?;
            let _guard = self.locks.lock(&[dir, ino]);
            // The name may have changed hands before it was locked.
            match self.reader().entry(dir, name)? {
                Some(entry) if entry.ino == ino => {
                    let link = Link { parent: dir, name: name.clone() };
                    return self.remove_locked(permit, link, entry, directory);
                }
                _ => {}
            }
        }
    }

    fn remove_locked(
        &self,
        permit: Permit<'_>,
        link: Link,
        entry: Entry,
        directory: bool,
    ) -> Result<(), FsError> {
        let Entry { ino, cookie } = entry;
        let mut parent = self.directory(link.parent)?;
        let mut attr = self.reader().attr(ino)?;
        // The lock of what goes is held as well: no entry can be added to an empty directory
        // between this look and the commit.
        match (directory, is_directory(&attr)) {
            (true, false) => return Err(FsError::NotDirectory),
            (false, true) => return Err(FsError::IsDirectory),
            (true, true) if !self.reader().is_empty_dir(ino)? => return Err(FsError::NotEmpty),
            _ => {}
        }
        let after = self.after_unlink(&mut attr)?;
        let leaves_rows = after.leaves_rows();
        if directory {
            count_subdirectories(&mut parent, -1);
        }
        self.committer.commit(permit, 1 + after.n_operations(), move |draft| {
            draft.remove_name(ino, &link, cookie);
            draft.log(Operation::Unlink { ino, link });
            draft.touch_directory(&mut parent);
            after.apply(&mut attr, draft);
        })?;
        if leaves_rows {
            self.reaping.wake();
        }
        Ok(())
    }
}
