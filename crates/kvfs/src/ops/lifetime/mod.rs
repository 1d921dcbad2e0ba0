//! How long an inode lives: as long as it has a name, a handle of it is held, or the kernel knows
//! it.
//!
//! The name that goes last finds no reference, and deletes the inode in its own transaction; or it
//! finds one, and lists the inode as an orphan, which is deleted when the last reference goes. Both
//! look at the other under the inode's lock. A handle that goes last deletes it at once. The
//! kernel, which forgets inodes by the thousand, leaves them to the reaper, many of which end in
//! one transaction. After a crash there is no reference, and the reaper deletes the orphans that it
//! finds then. An inode is never deleted because a list says so: it must have no name, and a count
//! of none.
//!
//! The deletion is one small batch, whatever the inode has: its attributes go, and with them all
//! that readers see of it; its data leaves the sums; its end is logged. The rows of its map, its
//! chunks and its extended attributes go in the same batch if they are few. If not, the inode is
//! put into the table of the dying, and the reaper deletes them (`reaper`). What cannot be decoded
//! is no obstacle: it is left to the reaper as well.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use tier_log::Operation;
use tier_types::{ChunkNo, FileAttr, Ino, to_u64, to_usize};

use super::change::N_ROWS_AT_ONCE;
use super::lookup::is_directory;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;
use crate::store::{Dying, Leftovers, StoreReader};
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
        let is_last = self.core.references.remove_handle(self.ino);
        if is_last && self.core.delete_orphans(&[self.ino]).is_err() {
            // The reaper tries again.
            self.core.reaping.add_orphans([self.ino]);
        }
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
    /// It was the last one, and something refers to the inode: it is listed as an orphan.
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
        self.references.add_handle(ino);
        Ok(OpenHandle::of_counted(Arc::clone(self), ino))
    }

    /// The attributes of an inode that the kernel is told of. From now on the kernel knows it once
    /// more, until that is forgotten.
    pub(crate) fn know(&self, ino: Ino) -> Result<FileAttr, FsError> {
        self.find_known(ino)?.ok_or(FsError::NotFound)
    }

    /// The same, and `None` if there is no such inode.
    pub(crate) fn find_known(&self, ino: Ino) -> Result<Option<FileAttr>, FsError> {
        if self.references.add_lookup_if_held(ino) {
            let found = self.reader().find_attr(ino);
            if !matches!(found, Ok(Some(_))) {
                self.forget(ino, 1);
            }
            return found;
        }
        let _guard = self.locks.lock(&[ino]);
        let found = self.reader().find_attr(ino)?;
        if found.is_some() {
            self.references.add_lookup(ino);
        }
        Ok(found)
    }

    /// The kernel forgets so many times that it was told of an inode.
    pub(crate) fn forget(&self, ino: Ino, n_lookups: u64) {
        if self.references.forget(ino, n_lookups) {
            self.reaping.add_orphans([ino]);
        }
    }

    /// The kernel forgets everything: it unmounts.
    pub(crate) fn forget_all(&self) {
        self.reaping.add_orphans(self.references.forget_all());
    }

    /// Takes one name off an inode's count, whose lock is held, and says what becomes of it.
    pub(super) fn after_unlink(&self, attr: &mut FileAttr) -> Result<AfterUnlink, FsError> {
        // A count that was too small can only come from damage, which the check finds.
        attr.nlink = if is_directory(attr) { 0 } else { attr.nlink.saturating_sub(1) };
        if attr.nlink > 0 {
            return Ok(AfterUnlink::Named);
        }
        if self.references.is_orphaned(attr.ino) {
            return Ok(AfterUnlink::Orphaned);
        }
        Ok(AfterUnlink::Deleted(InodeDeletion::load(self.reader(), attr.ino)?))
    }

    /// Deletes those of these inodes that are orphans to which nothing refers, in one transaction.
    pub(crate) fn delete_orphans(&self, inodes: &[Ino]) -> Result<(), FsError> {
        // Each once: one may have been told of twice.
        let inodes: BTreeSet<Ino> = inodes.iter().copied().collect();
        let inodes: Vec<Ino> = inodes.into_iter().collect();
        if inodes.is_empty() {
            return Ok(());
        }
        let permit = self.admit(Purpose::Reclaim, ROWS_BYTES * to_u64(inodes.len()))?;
        let _guard = self.locks.lock_all(&inodes);
        let mut deletions = Vec::new();
        for ino in inodes {
            match self.load_orphan(ino) {
                Ok(deletion) => deletions.extend(deletion),
                // The check finds it; the others go.
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        if deletions.is_empty() {
            return Ok(());
        }
        let leaves_rows = deletions.iter().any(InodeDeletion::is_unfinished);
        let n_operations = to_u64(deletions.len());
        self.committer.commit(permit, n_operations, move |draft| {
            for deletion in &deletions {
                deletion.apply(draft);
            }
        })?;
        if leaves_rows {
            self.reaping.wake();
        }
        Ok(())
    }

    /// What deletes an inode whose lock is held, if it is listed as an orphan and is one: what has
    /// a name, or is counted as having one, is none, and the check finds it.
    fn load_orphan(&self, ino: Ino) -> Result<Option<InodeDeletion>, FsError> {
        let reader = self.db.reader();
        // A reference that came since tells of it when it goes.
        if self.references.is_orphaned(ino) || !reader.is_listed_orphan(ino)? {
            return Ok(None);
        }
        let Some(attr) = reader.find_attr(ino)? else { return Ok(None) };
        if ino == Ino::ROOT || attr.nlink > 0 || reader.first_link(ino)?.is_some() {
            return Ok(None);
        }
        InodeDeletion::load(reader, ino).map(Some)
    }
}
