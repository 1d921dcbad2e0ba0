//! Paths in a store, and walks over the tree below them.
//!
//! A store that is walked may be in use: names come and go meanwhile. What a directory listing
//! named and is gone when it is looked at, is left out, as if the walk had come later. A walk holds
//! the directories that it has still to list, and one page of names, never a whole tree or
//! directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, anyhow};
use kvfs::ops::DirEntry;
use kvfs::{FsError, Kvfs};
use tier_types::{FileAttr, FileKind, FileName, Ino};

/// Entries that are asked for at a time.
const N_ENTRIES: usize = 1024;

/// The parts of a path; `.` and empty parts do not count.
pub(crate) fn parts(path: &[u8]) -> Result<Vec<FileName>> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| {
            FileName::new(part)
                .ok_or_else(|| anyhow!("{} cannot be a path in a store", path.escape_ascii()))
        })
        .collect()
}

/// The inode at a path.
pub(crate) fn resolve(fs: &Kvfs, path: &OsStr) -> Result<FileAttr> {
    let mut attr = fs.getattr(Ino::ROOT).context("the store has no root directory")?;
    let shown = path.display();
    for name in parts(path.as_bytes())? {
        // Symbolic links are not followed: their targets count on the host that mounts, not in the
        // store.
        attr = fs.lookup(attr.ino, &name).with_context(|| format!("{shown}, at {name}"))?;
    }
    Ok(attr)
}

/// The entries of a directory but `.` and `..`, in order of their making.
pub(crate) fn entries(
    fs: &Kvfs,
    dir: Ino,
    mut visit: impl FnMut(FileName, DirEntry) -> Result<()>,
) -> Result<()> {
    let mut after = 0;
    loop {
        let page = fs.readdir(dir, after, N_ENTRIES)?;
        let Some(last) = page.last() else { return Ok(()) };
        assert!(last.cookie > after, "a listing goes on after its last page");
        after = last.cookie;
        for entry in page {
            // This leaves out the directory itself and its parent, which are no names of files.
            if let Some(name) = FileName::new(&entry.name) {
                visit(name, entry)?;
            }
        }
    }
}

/// Everything at and below a path, directories before what is in them. `visit` gets the path
/// relative to the start.
pub(crate) fn tree(
    fs: &Kvfs,
    start: FileAttr,
    mut visit: impl FnMut(&[u8], &FileAttr) -> Result<()>,
) -> Result<()> {
    // A list and not recursion, because a stack would bound the depth of a tree.
    let mut todo = vec![(Vec::new(), start)];
    while let Some((path, attr)) = todo.pop() {
        visit(&path, &attr)?;
        if !matches!(attr.kind, FileKind::Directory) {
            continue;
        }
        // Directories wait until their siblings were listed, so that one page of names is held at a
        // time.
        let mut below = Vec::new();
        let listed = entries(fs, attr.ino, |name, entry| {
            let mut path = path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            match fs.getattr(entry.attr.ino) {
                Ok(attr) if matches!(attr.kind, FileKind::Directory) => below.push((path, attr)),
                Ok(attr) => gone_is_fine(visit(&path, &attr))?,
                // Removed since it was listed.
                Err(FsError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(())
        });
        // The directory itself may go during its listing, like any entry of it.
        gone_is_fine(listed)?;
        // The list is taken from its end, so that this order walks first what was listed first.
        todo.extend(below.into_iter().rev());
    }
    Ok(())
}

/// What was removed while a tree was walked is not missed.
pub(crate) fn gone_is_fine(done: Result<()>) -> Result<()> {
    match done {
        // Only the store's own answer counts: a file that is missing on the host is another error.
        Err(error) if matches!(error.downcast_ref(), Some(FsError::NotFound)) => Ok(()),
        other => other,
    }
}
