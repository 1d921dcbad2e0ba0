//! The walk of an export: makes the directories, and hands on the files in them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tier_types::{FileAttr, FileKind, Ino};

use super::Export;
use crate::transfer::walk;
use crate::transfer::worker_pool::Submitter;

/// Files that a worker copies together, and about their bytes at most: small ones cost more to hand
/// on than to copy.
const N_FILES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;

/// Files to copy.
#[derive(Default)]
pub(super) struct Batch {
    files: Vec<(PathBuf, FileAttr)>,
    bytes: u64,
}

impl Batch {
    fn add(&mut self, path: PathBuf, attr: FileAttr) {
        self.bytes += attr.size_bytes;
        self.files.push((path, attr));
    }

    fn is_full(&self) -> bool {
        self.files.len() >= N_FILES || self.bytes >= BATCH_BYTES
    }
}

/// What is left to be done when all files are there.
#[derive(Default)]
pub(super) struct Tree {
    /// Those above before those below.
    pub(super) directories: Vec<(PathBuf, FileAttr)>,
    /// Of files with several names.
    pub(super) first_names: HashMap<Ino, PathBuf>,
    /// Whether there are other names.
    pub(super) has_other_names: bool,
}

impl Export<'_> {
    /// Makes the directories and hands on what is in them.
    pub(super) fn walk(
        &self,
        start: &FileAttr,
        dir: &Path,
        batches: &mut Submitter<'_, Batch>,
    ) -> Result<Tree> {
        let mut tree = Tree::default();
        let mut batch = Batch::default();
        let visit = |relative: &[u8], attr: &FileAttr| {
            // A worker's failure ends the walk here, and not only when the next batch is full.
            batches.check()?;
            let path = host_path(dir, relative);
            if matches!(attr.kind, FileKind::Directory) {
                self.directory(&path)?;
                tree.directories.push((path, attr.clone()));
                return Ok(());
            }
            // Only files with several names are remembered: their number is small in most trees.
            if attr.nlink > 1 {
                if tree.first_names.contains_key(&attr.ino) {
                    tree.has_other_names = true;
                    return Ok(());
                }
                tree.first_names.insert(attr.ino, path.clone());
            }
            batch.add(path, attr.clone());
            if batch.is_full() {
                batches.submit(std::mem::take(&mut batch))?;
            }
            Ok(())
        };
        let failed = |error| self.go_on_if_damaged(Err(error));
        walk::tree_past_failures(self.fs, start.clone(), visit, failed)?;
        // The last batch is not full, and may be empty.
        batches.submit(batch)?;
        Ok(tree)
    }

    /// Copies a batch of files.
    pub(super) fn copy(&self, batch: &Batch) -> Result<()> {
        for (path, attr) in &batch.files {
            self.file(path, attr)?;
            self.count(1, 0)?;
        }
        Ok(())
    }

    fn directory(&self, path: &Path) -> Result<()> {
        self.count(1, 0)?;
        // Closed to others until its attributes are set, and open to the workers whatever its mode
        // will be.
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot export to {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Where on the host an entry of the tree goes.
pub(super) fn host_path(dir: &Path, relative: &[u8]) -> PathBuf {
    match relative {
        // Joined to nothing, the path would end with a slash.
        b"" => dir.to_path_buf(),
        relative => dir.join(OsStr::from_bytes(relative)),
    }
}
