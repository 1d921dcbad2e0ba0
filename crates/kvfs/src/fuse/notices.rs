//! What the kernel is told without having asked.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use fuser::Notifier;
use tier_types::{ByteRange, FileName, Ino};

use super::convert;
use crate::{FsError, Kvfs};

/// Tells the kernel what it must not believe any longer. Before the mount is there it knows
/// nothing, and an answer is not needed: what it does not know it asks.
#[derive(Debug, Default)]
pub(super) struct Notices(OnceLock<Notifier>);

impl Notices {
    pub(super) fn connect(&self, notifier: Notifier) {
        let _ = self.0.set(notifier);
    }

    /// Attributes changed: what is local did, or more.
    pub(super) fn forget_attributes(&self, ino: Ino) {
        if let Some(notifier) = self.0.get() {
            // A negative offset leaves the pages alone.
            let _ = notifier.inval_inode(convert::number(ino), -1, 0);
        }
    }

    /// Takes the privileges of a file away whose content changes, and tells the kernel, which does
    /// not ask for the mode again because of that.
    pub(super) fn strip_privileges(&self, fs: &Kvfs, ino: Ino) -> Result<(), FsError> {
        if fs.strip_privileges(ino)? {
            self.forget_attributes(ino);
        }
        Ok(())
    }

    /// What the kernel holds of a file's content is written out if need be, and forgotten. Not to
    /// be called on a thread that answers the kernel, because it answers with writes first.
    pub(super) fn drop_pages(&self, ino: Ino) {
        self.drop_range(ino, ByteRange { offset: 0, len: 0 });
    }

    /// The same for a part of the file; a length of 0 reaches to its end.
    pub(super) fn drop_range(&self, ino: Ino, range: ByteRange) {
        if let Some(notifier) = self.0.get() {
            // Files end before that.
            let [offset, len] = [range.offset, range.len].map(|it| i64::try_from(it).unwrap_or(0));
            let _ = notifier.inval_inode(convert::number(ino), offset, len);
        }
    }

    /// A name appeared or disappeared that the kernel had no part in.
    pub(super) fn forget_entry(&self, dir: Ino, name: &FileName) {
        if let Some(notifier) = self.0.get() {
            let name = OsStr::from_bytes(name.as_bytes());
            let _ = notifier.inval_entry(convert::number(dir), name);
            let _ = notifier.inval_inode(convert::number(dir), -1, 0);
        }
    }
}
