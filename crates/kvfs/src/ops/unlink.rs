//! Names that are taken away, handles that are closed, and the deletion of the inode that loses its
//! last one.
//!
//! An inode lives as long as it has a name or a handle. The name that goes last finds no handle,
//! and deletes the inode in its own transaction; or it finds one, and lists the inode as an orphan,
//! which the last handle deletes when it is closed. Both look at the other under the inode's lock.
//! After a crash no handle is left, and the reaper deletes the orphans that it finds then. An inode
//! is never deleted because a list says so: it must have no name, and a count of none.
//!
//! The deletion is one small batch, whatever the inode has: its attributes go, and with them all
//! that readers see of it; its data leaves the sums; its end is logged. The rows of its map, its
//! chunks and its extended attributes go in the same batch if they are few. If not, the inode is
//! put into the table of the dying, and the reaper deletes them (`reaper`). What cannot be decoded
//! is no obstacle: it is left to the reaper as well.

use std::sync::Arc;

use tier_log::Operation;
use tier_types::{ChunkNo, FileAttr, FileName, Ino, Link, to_usize};

use super::change::N_ROWS_AT_ONCE;
use super::lookup::{count_subdirectories, is_directory};
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::{Permit, Purpose};
use crate::store::{Dying, Entry, Leftovers, StoreReader};
use crate::tx::{Draft, InodeRows, ListKind};

/// An open file: as long as one is held, an inode without names lives on.
#[derive(Debug)]
pub struct OpenHandle {
    core: Arc<Core>,
    ino: Ino,
}

impl OpenHandle {
    /// A handle that is counted already.
    pub(super) fn of_counted(core: Arc<Core>, ino: Ino) -> Self {
        Self { core, ino }
    }

    /// Which inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }
}

impl Drop for OpenHandle {
    fn drop(&mut self) {
        // An orphan that cannot be deleted now is deleted after the next opening.
        let _ = self.core.close(self.ino);
    }
}

/// All that must be known of an inode to delete it.
#[derive(Debug)]
pub(super) struct InodeDeletion {
    ino: Ino,
    rows: InodeRows,
    /// All other rows of it; `None` if they are more than one transaction should delete.
    leftovers: Option<Leftovers>,
}

impl InodeDeletion {
    fn load(reader: StoreReader<'_>, ino: Ino) -> Result<Self, FsError> {
        let rows = InodeRows {
            sums: reader.data_sums(ino)?,
            is_pinned: reader.has_pin(ino)?,
            is_cut: reader.has_cuts(ino)?,
        };
        let n_max = to_usize(N_ROWS_AT_ONCE);
        let leftovers = reader.leftovers(ino, ChunkNo::new(0), n_max)?;
        Ok(Self { ino, rows, leftovers: Some(leftovers).filter(|left| left.is_complete) })
    }

    /// Deletes everything of the inode but its names, and logs that it is gone.
    fn apply(&self, draft: &mut Draft) {
        let ino = self.ino;
        draft.log(Operation::Gone { ino });
        draft.delete_inode(ino, self.rows);
        match &self.leftovers {
            Some(leftovers) => draft.delete_leftovers(ino, leftovers),
            None => {
                let resident_bytes = self.rows.sums.resident_bytes;
                draft.counters.gain_dying(resident_bytes);
                draft.put_dying(ino, Dying { next: ChunkNo::new(0), resident_bytes });
            }
        }
    }

    /// Whether the reaper has something to do for it.
    fn is_unfinished(&self) -> bool {
        self.leftovers.is_none()
    }
}

/// What becomes of an inode that loses a name.
pub(super) enum AfterUnlink {
    /// It has others.
    Named,
    /// It was the last one, and a handle holds the inode: it is listed as an orphan.
    Orphaned,
    /// It was the last one: the inode is deleted.
    Deleted(InodeDeletion),
}

impl AfterUnlink {
    /// Operations that are logged for it, besides the one that takes the name.
    pub(super) fn n_operations(&self) -> u64 {
        match self {
            Self::Named | Self::Orphaned => 0,
            Self::Deleted(_) => 1,
        }
    }

    /// Whether the reaper has something to do when it is committed.
    pub(super) fn leaves_rows(&self) -> bool {
        match self {
            Self::Named | Self::Orphaned => false,
            Self::Deleted(deletion) => deletion.is_unfinished(),
        }
    }

    /// Writes the inode, whose count of names is already right.
    pub(super) fn apply(&self, attr: &mut FileAttr, draft: &mut Draft) {
        match self {
            Self::Named => draft.put_changed(attr),
            Self::Orphaned => {
                assert_eq!(attr.nlink, 0, "an orphan has no name");
                draft.put_changed(attr);
                draft.list(ListKind::Orphans, attr.ino);
            }
            Self::Deleted(deletion) => {
                assert_eq!(attr.nlink, 0, "an inode that is deleted has no name");
                deletion.apply(draft);
            }
        }
    }
}

impl Core {
    /// Holds an inode open.
    pub fn open_handle(self: &Arc<Self>, ino: Ino) -> Result<OpenHandle, FsError> {
        let _guard = self.locks.lock(&[ino]);
        // Under the lock: an unlink before this may have deleted the inode, which is found here,
        // and one after it sees the count and leaves an orphan.
        self.reader().attr(ino)?;
        self.open_files.add(ino);
        Ok(OpenHandle::of_counted(Arc::clone(self), ino))
    }

    fn close(&self, ino: Ino) -> Result<(), FsError> {
        // The handle is gone whether there is room or not.
        let permit = self.admit(Purpose::Reclaim, ROWS_BYTES);
        let _guard = self.locks.lock(&[ino]);
        // Whether it is an orphan is looked up, and not remembered: it may have got a name since.
        if self.open_files.remove(ino) && self.db.reader().is_listed_orphan(ino)? {
            self.delete_orphan(permit?, ino)?;
        }
        Ok(())
    }

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

    /// Takes one name off an inode's count, whose lock is held, and says what becomes of it.
    pub(super) fn after_unlink(&self, attr: &mut FileAttr) -> Result<AfterUnlink, FsError> {
        // A count that was too small can only come from damage, which the check finds.
        attr.nlink = if is_directory(attr) { 0 } else { attr.nlink.saturating_sub(1) };
        if attr.nlink > 0 {
            return Ok(AfterUnlink::Named);
        }
        if self.open_files.is_open(attr.ino) {
            return Ok(AfterUnlink::Orphaned);
        }
        Ok(AfterUnlink::Deleted(InodeDeletion::load(self.reader(), attr.ino)?))
    }

    /// Deletes an orphan that a crash left, or a restore, unless a handle holds it by now.
    pub(crate) fn delete_closed_orphan(&self, ino: Ino) -> Result<(), FsError> {
        let permit = self.admit(Purpose::Reclaim, ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino]);
        if self.open_files.is_open(ino) || !self.db.reader().is_listed_orphan(ino)? {
            return Ok(());
        }
        match self.delete_orphan(permit, ino) {
            // The check finds it; the others go.
            Err(error) if error.is_damage() => Ok(()),
            deleted => deleted,
        }
    }

    /// Deletes an inode that is listed as an orphan, if it is one: what has a name, or is counted
    /// as having one, is none, and the check finds it.
    fn delete_orphan(&self, permit: Permit<'_>, ino: Ino) -> Result<(), FsError> {
        let reader = self.db.reader();
        let Some(attr) = reader.find_attr(ino)? else { return Ok(()) };
        let is_orphan = ino != Ino::ROOT && attr.nlink == 0;
        if is_orphan && reader.first_link(ino)?.is_none() {
            let deletion = InodeDeletion::load(reader, ino)?;
            let leaves_rows = deletion.is_unfinished();
            self.committer.commit(permit, 1, move |draft| deletion.apply(draft))?;
            if leaves_rows {
                self.reaping.wake();
            }
        }
        Ok(())
    }
}
