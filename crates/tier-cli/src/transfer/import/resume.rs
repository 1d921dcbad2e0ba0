//! What an earlier import brought, and the staged name under which a file is completed.

use std::fs::Metadata;

use anyhow::Result;
use kvfs::ops::{EntryRef, NewNode, RenameMode};
use kvfs::{FsError, Kvfs};
use tier_types::{FileAttr, FileKind, FileName, Ino};

use super::attributes::times;

/// Whether an earlier import brought this, as far as kind, size and time of change tell. It is true
/// of no file that was begun and not completed, because the time comes last.
pub(super) fn is_imported(before: &FileAttr, node: &NewNode, metadata: &Metadata) -> bool {
    // What is no file has no size that both sides would agree on.
    let same_size = before.size_bytes == metadata.len() || !metadata.is_file();
    // A time that cannot be represented matches none, and the import of this file then says so.
    let same_time = times(metadata).is_ok_and(|times| times.modified == before.modified);
    before.kind == node.kind && same_size && same_time
}

/// The name under which a file is made: its own; or, if another file has that, a temporary one,
/// until it is complete. Dropped before that, the temporary name goes.
pub(super) struct StagedName<'a> {
    fs: &'a Kvfs,
    dir: Ino,
    name: FileName,
    /// The name that it gets in the end, if it has another one now.
    wanted: Option<&'a FileName>,
}

impl<'a> StagedName<'a> {
    /// `before` is what has the name now.
    pub(super) fn new(
        fs: &'a Kvfs,
        dir: Ino,
        name: &'a FileName,
        before: Option<FileAttr>,
    ) -> Result<Self, FsError> {
        // The name is free, and the file grows under it: its time tells that it is not complete.
        let Some(before) = before else {
            return Ok(Self { fs, dir, name: name.clone(), wanted: None });
        };
        // A directory is never replaced by a file, because everything in it would be lost.
        if matches!(before.kind, FileKind::Directory) {
            return Err(FsError::IsDirectory);
        }
        // From the number of the file that is replaced, so that the next import finds what this one
        // left.
        let temporary = temporary_name(before.ino);
        match fs.unlink(dir, &temporary) {
            // What an import left that was killed.
            Ok(()) | Err(FsError::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { fs, dir, name: temporary, wanted: Some(name) })
    }

    pub(super) fn name(&self) -> &FileName {
        &self.name
    }

    /// Gives the file, which is complete, its name.
    pub(super) fn publish(&mut self) -> Result<(), FsError> {
        let Some(wanted) = self.wanted else { return Ok(()) };
        let (from, to) = (EntryRef::new(self.dir, &self.name), EntryRef::new(self.dir, wanted));
        // One transaction: readers find the old file or the new one, and never neither.
        self.fs.rename(from, to, RenameMode::Replace)?;
        // The name was taken over, and the drop must leave it alone.
        self.wanted = None;
        Ok(())
    }
}

/// A name that no file of the host is likely to have, and no two files to be replaced share.
#[expect(clippy::expect_used, reason = "a short name without slashes is a file's name")]
fn temporary_name(replaced: Ino) -> FileName {
    FileName::new(format!(".tier-import-{replaced}").as_bytes()).expect("a valid name")
}

impl Drop for StagedName<'_> {
    fn drop(&mut self) {
        if self.wanted.is_some() {
            // If it stays all the same, the next import removes it.
            let _ = self.fs.unlink(self.dir, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tier_types::{Timestamp, Xid};

    use super::super::attributes::{look_at, node};
    use super::*;

    #[test]
    fn a_file_is_imported_if_kind_size_and_time_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "content").unwrap();
        let metadata = look_at(&path).unwrap();
        let new = node(&path, &metadata).unwrap();
        let zero = Timestamp { seconds: 0, nanos: 0 };
        let before = FileAttr {
            ino: Ino::new(5),
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes: 7,
            accessed: zero,
            modified: times(&metadata).unwrap().modified,
            changed: zero,
            created: zero,
            xid: Xid::new(5),
        };
        assert!(is_imported(&before, &new, &metadata));
        let begun = FileAttr { size_bytes: 3, ..before.clone() };
        assert!(!is_imported(&begun, &new, &metadata));
        let mut not_timed = before.clone();
        not_timed.modified.nanos ^= 1;
        assert!(!is_imported(&not_timed, &new, &metadata));
        assert!(!is_imported(&FileAttr { kind: FileKind::Fifo, ..before }, &new, &metadata));
    }
}
