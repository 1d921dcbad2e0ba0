//! From names to inodes, and what an inode must be for an operation.

use tier_types::{FileAttr, FileKind, FileName, Ino};

use crate::FsError;
use crate::core::Core;
use crate::store::Entry;

/// An entry of a directory, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryRef<'a> {
    /// The directory.
    pub dir: Ino,
    /// The name in it.
    pub name: &'a FileName,
}

impl<'a> EntryRef<'a> {
    /// The entry of a directory by this name.
    pub fn new(dir: Ino, name: &'a FileName) -> Self {
        Self { dir, name }
    }
}

impl Core {
    /// The attributes of a directory's entry.
    pub fn lookup(&self, dir: Ino, name: &FileName) -> Result<FileAttr, FsError> {
        let Entry { ino, .. } = self.entry_in(dir, name)?;
        self.reader().attr(ino)
    }

    /// The same for the kernel, which knows the entry's inode from now on.
    pub(crate) fn look_up_known(&self, dir: Ino, name: &FileName) -> Result<FileAttr, FsError> {
        let Entry { ino, .. } = self.entry_in(dir, name)?;
        self.know(ino)
    }

    /// The attributes of an inode that the kernel asks for by its number alone, because a file
    /// handle names it. One without a name is only there for those that know it already.
    pub(crate) fn know_by_number(&self, ino: Ino) -> Result<FileAttr, FsError> {
        let attr = self.know(ino)?;
        if attr.nlink == 0 && !self.references.is_known_elsewhere(ino) {
            self.forget(ino, 1);
            return Err(FsError::NotFound);
        }
        Ok(attr)
    }

    /// The directory that has this one, for the kernel, which knows it from now on. The root is in
    /// none.
    pub(crate) fn know_parent(&self, dir: Ino) -> Result<FileAttr, FsError> {
        self.directory(dir)?;
        let link = self.reader().first_link(dir)?.ok_or(FsError::NotFound)?;
        self.know(link.parent)
    }

    /// An entry, which must exist, in what must be a directory.
    pub(super) fn entry_in(&self, dir: Ino, name: &FileName) -> Result<Entry, FsError> {
        if let Some(entry) = self.reader().entry(dir, name)? {
            return Ok(entry);
        }
        // Only now: a name that exists says that its directory is one.
        self.directory(dir)?;
        Err(FsError::NotFound)
    }

    /// A directory's attributes; an error if it is something else.
    pub(super) fn directory(&self, ino: Ino) -> Result<FileAttr, FsError> {
        let attr = self.reader().attr(ino)?;
        if is_directory(&attr) { Ok(attr) } else { Err(FsError::NotDirectory) }
    }

    /// The same for a directory that is to get an entry: one that was removed while a handle holds
    /// it gets none.
    pub(super) fn linked_directory(&self, ino: Ino) -> Result<FileAttr, FsError> {
        let attr = self.directory(ino)?;
        if attr.nlink == 0 { Err(FsError::NotFound) } else { Ok(attr) }
    }
}

pub(super) fn is_directory(attr: &FileAttr) -> bool {
    matches!(attr.kind, FileKind::Directory)
}

/// Counts directories that come into a directory or go: each has it as its parent. A count that
/// leaves the range of numbers can only come from damage, which the check finds.
pub(super) fn count_subdirectories(parent: &mut FileAttr, difference: i32) {
    parent.nlink = parent.nlink.saturating_add_signed(difference);
}
