//! Export: a tree of a store, copied out to the host.
//!
//! One thread walks the store and makes directories; workers copy the files in them. What is in a
//! directory changes its times, and may need its permissions, so that directories get their
//! attributes last, from the bottom up. A file gets its name when all of it is there: no part of a
//! file can be taken for the whole. Files with several names are copied under the first of them;
//! the other names are made in a second walk, because there may be more of them than fit into
//! memory.
//!
//! One file that cannot be read, or not all of it, does not keep the others from coming out: it is
//! said, counted, and makes the export fail in the end. What only root may do is left undone by
//! others, and said.

mod attributes;
mod file;
mod links;
mod walk;

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};
use kvfs::Kvfs;
use parking_lot::Mutex;
use rustix::io::Errno;
use tier_types::{FileAttr, FileKind};

use super::copied::Copied;
use super::worker_pool::{self, Failure};
use crate::console::{self, DamageFound};

/// What an export is given besides the trees.
pub(crate) struct ExportOptions<'a> {
    /// Threads that copy files.
    pub(crate) n_threads: NonZeroUsize,
    /// Whether what only root may set is tried: owners, and attributes of the system.
    pub(crate) as_root: bool,
    /// Told how far it has got; its error ends the export.
    pub(crate) progress: &'a (dyn Fn(&Copied) -> Result<()> + Sync),
}

/// Copies a tree of the store to a directory that is empty or not there yet.
pub(crate) fn export(
    fs: &Kvfs,
    start: &FileAttr,
    dir: &Path,
    options: &ExportOptions<'_>,
) -> Result<Copied> {
    let is_dir = matches!(start.kind, FileKind::Directory);
    // Names that are there would be mixed with those of the store, or be in their way.
    if is_dir && dir.exists() && fs::read_dir(dir).is_ok_and(|mut dir| dir.next().is_some()) {
        bail!("{} is not empty", dir.display());
    }
    tracing::info!(ino = %start.ino, dir = %dir.display(), "exporting");
    let began = Instant::now();
    let export = Export {
        fs,
        options,
        is_root: is_root(),
        copied: Mutex::new(Copied::default()),
        n_parts: AtomicU64::new(0),
        n_damaged: AtomicU64::new(0),
        n_partial: AtomicU64::new(0),
    };
    let mut tree = worker_pool::run(
        options.n_threads,
        &Failure::default(),
        || (),
        |(), batch| export.copy(&batch),
        |batches| export.walk(start, dir, batches),
    )?;
    // Most trees have no second names, and are spared the second walk.
    if tree.has_other_names {
        export.link(start, dir, &mut tree.first_names)?;
    }
    for (path, attr) in tree.directories.iter().rev() {
        export.attributes(path, attr)?;
    }
    let copied = export.copied.into_inner();
    let (n_damaged, n_partial) = (export.n_damaged.into_inner(), export.n_partial.into_inner());
    let (n_inodes, bytes) = (copied.n_inodes, copied.bytes);
    tracing::info!(n_inodes, bytes, n_damaged, n_partial, elapsed = ?began.elapsed(), "exported");
    // Each was logged where it was met; the exit code must say it too.
    let in_part = format!("{n_partial} files have holes where they could not be read");
    let left_out = format!("{n_damaged} files could not be read");
    let problem = match (n_damaged, n_partial) {
        (0, 0) => return Ok(copied),
        (0, _) => in_part,
        (_, 0) => left_out,
        (_, _) => format!("{left_out}, {in_part}"),
    };
    bail!(DamageFound(format!("{problem}; all others are exported")))
}

/// Whether this process may set what only root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

struct Export<'a> {
    fs: &'a Kvfs,
    options: &'a ExportOptions<'a>,
    is_root: bool,
    copied: Mutex<Copied>,
    /// Files that were begun.
    n_parts: AtomicU64,
    /// Files of which nothing could be read.
    n_damaged: AtomicU64,
    /// Files of which something could not be read.
    n_partial: AtomicU64,
}

impl Export<'_> {
    /// Counts what was copied, shows it, and stops where a stop was asked for.
    fn count(&self, n_inodes: u64, bytes: u64) -> Result<()> {
        // The lock is let go before the progress is shown, which may wait for a slow terminal.
        let copied = {
            let mut total = self.copied.lock();
            total.n_inodes += n_inodes;
            total.bytes += bytes;
            *total
        };
        (self.options.progress)(&copied)
    }

    fn go_on_if_damaged(&self, made: Result<()>) -> Result<()> {
        match made {
            Err(error) if console::code(&error) == console::DAMAGED => {
                tracing::error!("{}", console::message(&error));
                self.n_damaged.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    fn tolerate(&self, done: Result<()>) -> Result<()> {
        match done {
            // To root nothing is denied but by the filesystem itself, which is a failure then.
            Err(error) if !self.is_root && is_denied(&error) => {
                tracing::warn!("{}", console::message(&error));
                Ok(())
            }
            other => other,
        }
    }
}

/// Whether the system does not let this user, or this filesystem, do it.
fn is_denied(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        let errno = cause.downcast_ref::<Errno>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied)
            || matches!(errno, Some(&(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)))
    })
}
