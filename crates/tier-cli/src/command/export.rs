//! `tier export`: a tree of the store, copied out to the host, as it is or as it was in a snapshot.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kvfs::Kvfs;
use tier_types::{FileAttr, FileKind};

use super::restore;
use crate::args::{ExportArgs, Jobs};
use crate::console::output;
use crate::context::Context;
use crate::transfer::{self, Copied, ExportOptions, walk};

pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<()> {
    let dir = context.console.host_path(&args.dir);
    let target = Target { path: &args.path, dir: &dir, as_root: true };
    let store = context.open(&args.store)?;
    let copied = match args.snapshot {
        None => export_tree(context, &store.fs, &target, args.jobs)?,
        Some(snapshot) => {
            // The old state is a filesystem of its own, which goes with its directory when this arm
            // ends.
            let old = restore::at_snapshot(context, &store, snapshot)?;
            export_tree(context, &old.fs, &target, args.jobs)?
        }
    };
    let (n, bytes) = (copied.n_inodes, output::bytes(copied.bytes));
    let text = format!("Exported {n} files and directories, {bytes}.\n");
    context.console.report(&copied.json(), &text)
}

/// What to export, and where to.
pub(super) struct Target<'a> {
    /// A path in the store.
    pub(super) path: &'a OsStr,
    /// The host's directory.
    pub(super) dir: &'a Path,
    /// Whether what only root may set is tried.
    pub(super) as_root: bool,
}

/// Copies a tree out, shown and stopped by the console.
pub(super) fn export_tree(
    context: &Context,
    fs: &Kvfs,
    target: &Target<'_>,
    jobs: Jobs,
) -> Result<Copied> {
    let stop = context.console.stop()?;
    let start = walk::resolve(fs, target.path)?;
    let bar = context.console.progress("exporting");
    let progress = |copied: &Copied| {
        bar.files_and_bytes(copied.n_inodes, copied.bytes);
        stop.check()
    };
    let options =
        ExportOptions { n_threads: jobs.n_threads(), as_root: target.as_root, progress: &progress };
    transfer::export(fs, &start, &destination(target, &start)?, &options)
}

/// Where the start of the tree goes: a file goes into a directory that is there, as with cp.
fn destination(target: &Target<'_>, start: &FileAttr) -> Result<PathBuf> {
    let is_file = !matches!(start.kind, FileKind::Directory);
    // A directory has no name here: its content goes into the target itself.
    let name = walk::parts(target.path.as_bytes())?.pop().filter(|_| is_file);
    Ok(match name {
        Some(name) if target.dir.is_dir() => target.dir.join(OsStr::from_bytes(name.as_bytes())),
        Some(_) | None => target.dir.to_path_buf(),
    })
}
