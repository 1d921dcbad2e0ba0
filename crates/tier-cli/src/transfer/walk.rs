//! Paths in a store, and walks over the tree below them.
//!
//! A store that is walked may be in use: names come and go meanwhile. What a directory listing
//! named and is gone when it is looked at, is left out, as if the walk had come later. A walk holds
//! the directories that it has still to list, and one page of names, never a whole tree or
//! directory.
//!
//! In a damaged store an entry may lead back up, and a walk that followed it would never end. A
//! directory has one name, and knows its parent: a walk goes into one only from there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Error, Result, anyhow};
use kvfs::ops::DirEntry;
use kvfs::{Damage, FsError, Kvfs};
use tier_types::{FileAttr, FileKind, FileName, Ino, Link};

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
/// relative to the start. The walk ends at what cannot be read.
pub(crate) fn tree(
    fs: &Kvfs,
    start: FileAttr,
    visit: impl FnMut(&[u8], &FileAttr) -> Result<()>,
) -> Result<()> {
    tree_past_failures(fs, start, visit, Err)
}

/// The same, with a say in whether it goes on past what fails: `failed` gets the error of an inode,
/// or of a directory with what is in it, and returns it to end the walk.
pub(crate) fn tree_past_failures(
    fs: &Kvfs,
    start: FileAttr,
    mut visit: impl FnMut(&[u8], &FileAttr) -> Result<()>,
    mut failed: impl FnMut(Error) -> Result<()>,
) -> Result<()> {
    // A list and not recursion, because a stack would bound the depth of a tree.
    let mut todo = vec![Found { path: Vec::new(), attr: start, name: None }];
    while let Some(Found { path, attr, name }) = todo.pop() {
        assert_eq!(path.is_empty(), name.is_none(), "the start alone has no name");
        if let Some(link) = &name {
            match check_parent(fs, attr.ino, link) {
                Ok(true) => {}
                // Moved or removed since it was listed.
                Ok(false) => continue,
                Err(error) => {
                    failed(at(&path, error))?;
                    continue;
                }
            }
        }
        visit(&path, &attr)?;
        if !matches!(attr.kind, FileKind::Directory) {
            continue;
        }
        // Directories wait until their siblings were listed, so that one page of names is held at a
        // time.
        let mut below = Vec::new();
        // Whether what fails is the listing, and not what was made of an entry.
        let mut is_listing = true;
        let listed = entries(fs, attr.ino, |name, entry| {
            let mut path = path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let visited = match fs.getattr(entry.ino) {
                Ok(found) if matches!(found.kind, FileKind::Directory) => {
                    let name = Some(Link { parent: attr.ino, name });
                    below.push(Found { path, attr: found, name });
                    Ok(())
                }
                Ok(attr) => gone_is_fine(visit(&path, &attr)),
                // Removed since it was listed.
                Err(FsError::NotFound) => Ok(()),
                Err(error) => failed(at(&path, error.into())),
            };
            is_listing = visited.is_ok();
            visited
        });
        // The directory itself may go during its listing, like any entry of it.
        match gone_is_fine(listed) {
            Err(error) if is_listing => failed(at(&path, error))?,
            listed => listed?,
        }
        // The list is taken from its end, so that this order walks first what was listed first.
        todo.extend(below.into_iter().rev());
    }
    Ok(())
}

/// An error with the path at which it came.
fn at(path: &[u8], error: Error) -> Error {
    error.context(format!("cannot read {}", path.escape_ascii()))
}

/// What a walk has still to visit.
struct Found {
    path: Vec<u8>,
    attr: FileAttr,
    /// The name by which it was found; the start of a walk needs none.
    name: Option<Link>,
}

/// Whether a directory still lies where it was found. One that does, and has another parent, is
/// entered twice: the way through one of its names may lead back to itself.
fn check_parent(fs: &Kvfs, dir: Ino, link: &Link) -> Result<bool> {
    // The second entry of every listing is the parent.
    let parent = match fs.readdir(dir, 0, 2) {
        Ok(listing) => listing.last().map(|entry| entry.ino),
        Err(FsError::NotFound) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // The root alone is its own parent, and has no name.
    if parent == Some(link.parent) && dir != link.parent {
        return Ok(true);
    }
    match fs.lookup(link.parent, &link.name) {
        Ok(found) if found.ino == dir => {
            Err(FsError::Damaged { ino: Some(dir), damage: Damage::SecondEntry }.into())
        }
        Ok(_) | Err(FsError::NotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What was removed while a tree was walked is not missed.
pub(crate) fn gone_is_fine(done: Result<()>) -> Result<()> {
    match done {
        // Only the store's own answer counts: a file that is missing on the host is another error.
        Err(error) if matches!(error.downcast_ref(), Some(FsError::NotFound)) => Ok(()),
        other => other,
    }
}
