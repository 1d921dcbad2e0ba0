//! The walk of an import: makes the directories, hands on what is in them, and finishes each
//! directory when the last thing in it is done.
//!
//! A directory is held by the walk while its names are listed, by each batch of files in it, and by
//! each directory below it. The last of these to let go of it finishes it, on whatever thread that
//! is, and lets go of the directory above in turn: so directories are finished from the bottom up,
//! without a second walk, and only those on the way from the root to what is under way are held.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use kvfs::FsError;
use kvfs::ops::NewNode;
use tier_types::{FileKind, FileName, Ino};

use super::attributes::{look_at, owned};
use super::file::Source;
use super::{Import, N_FILES};
use crate::transfer::worker_pool::Submitter;

/// A directory that is being copied.
struct Directory {
    path: PathBuf,
    ino: Ino,
    above: Option<Arc<Directory>>,
}

impl Directory {
    fn path(&self, name: &FileName) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.as_bytes()))
    }
}

/// Names in a directory that are not of directories.
pub(super) struct Batch {
    directory: Arc<Directory>,
    names: Vec<FileName>,
}

impl Import<'_> {
    /// Makes directories, and submits what is in them.
    pub(super) fn walk(
        &self,
        start: &Path,
        into: Ino,
        batches: &mut Submitter<'_, Batch>,
    ) -> Result<()> {
        // A list and no recursion: how deep a tree is, is the host's to say, and a thread's stack
        // has an end.
        let mut todo = vec![self.open(start.to_path_buf(), into, None)];
        while let Some(directory) = todo.pop() {
            let mut below = Vec::new();
            let mut names = Vec::new();
            for HostEntry { name, is_dir } in entries(&directory.path)? {
                if !(self.options.is_wanted)(&directory.path(&name)) {
                    continue;
                }
                if is_dir {
                    // Made at once, and walked later: its entry must be there before files go into
                    // it.
                    below.push(self.directory(&directory, &name)?);
                } else {
                    names.push(name);
                }
                if names.len() >= N_FILES {
                    let (directory, names) = (Arc::clone(&directory), std::mem::take(&mut names));
                    batches.submit(Batch { directory, names })?;
                }
            }
            batches.submit(Batch { directory: Arc::clone(&directory), names })?;
            // The list is taken from its end, so that this order walks first what was listed first.
            todo.extend(below.into_iter().rev());
            // The walk was one of the holders, and is done with the names.
            self.leave(directory)?;
        }
        Ok(())
    }

    /// Copies a batch of files.
    pub(super) fn copy(&self, batch: Batch, buffer: &mut [u8]) -> Result<()> {
        let Batch { directory, names } = batch;
        for name in &names {
            let path = directory.path(name);
            let source = Source { path: &path, dir: directory.ino, name };
            let copied = self.file(&source, buffer);
            copied.with_context(|| format!("cannot import {}", path.display()))?;
        }
        self.leave(directory)
    }

    /// Lets go of a directory. The last holder finishes it, and those above that it was the last to
    /// hold.
    fn leave(&self, directory: Arc<Directory>) -> Result<()> {
        let mut leaving = Some(directory);
        // Of the holders exactly one gets the directory itself: the last one.
        while let Some(Directory { path, ino, above }) = leaving.take().and_then(Arc::into_inner) {
            let finished =
                look_at(&path).and_then(|metadata| self.attributes(&path, ino, &metadata));
            finished.with_context(|| format!("cannot import {}", path.display()))?;
            // The kernel may remember attributes from before, such as the times of an empty
            // directory.
            (self.options.attributes_changed)(ino);
            self.n_open.fetch_sub(1, Ordering::Relaxed);
            leaving = above;
        }
        Ok(())
    }

    /// Makes a directory, or takes the one that is there.
    fn directory(&self, above: &Arc<Directory>, name: &FileName) -> Result<Arc<Directory>> {
        let path = above.path(name);
        let failed = || format!("cannot import {}", path.display());
        let node = NewNode { kind: FileKind::Directory, ..owned(&look_at(&path)?) };
        let made_or_found = || match self.fs.create_node(above.ino, name, &node) {
            // One that is there is used: an import that goes on, or two trees in one place.
            Err(FsError::Exists) => self.fs.lookup(above.ino, name),
            made => made,
        };
        let attr = self.in_room(made_or_found).with_context(failed)?;
        // A file in its place is not replaced: the user must decide which of them counts.
        if !matches!(attr.kind, FileKind::Directory) {
            return Err(FsError::Exists).with_context(failed);
        }
        self.done(above.ino, name, 0)?;
        Ok(self.open(path, attr.ino, Some(Arc::clone(above))))
    }

    fn open(&self, path: PathBuf, ino: Ino, above: Option<Arc<Directory>>) -> Arc<Directory> {
        self.n_open.fetch_add(1, Ordering::Relaxed);
        Arc::new(Directory { path, ino, above })
    }
}

/// A name in a directory of the host.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct HostEntry {
    name: FileName,
    is_dir: bool,
}

/// The entries of a directory, sorted: the order on disk is not the same twice.
fn entries(dir: &Path) -> Result<Vec<HostEntry>> {
    let failed = || format!("cannot list {}", dir.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        // The type is that of the entry: a link to a directory is imported as a link.
        let is_dir = entry.file_type().with_context(failed)?.is_dir();
        let name = FileName::new(entry.file_name().as_bytes())
            .with_context(|| format!("{} has a name that cannot be", entry.path().display()))?;
        entries.push(HostEntry { name, is_dir });
    }
    entries.sort();
    Ok(entries)
}
