//! `tier export`: a tree of the store, copied out to the host, as it is or as it was in a snapshot.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use kvfs::Kvfs;
use tier_types::FileKind;

use super::restore;
use crate::args::{ExportArgs, Jobs};
use crate::console::output;
use crate::context::Context;
use crate::transfer::{self, Copied, ExportOptions, walk};

pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<()> {
    let dir = context.console.host_path(&args.dir);
    let target = Target { path: &args.path, dir: &dir };
    let store = context.open(&args.store)?;
    let copied = match args.snapshot {
        None => export_tree(context, &store.fs, &target, args.jobs)?,
        Some(snapshot) => {
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
}

/// Copies a tree out, shown and stopped by the console.
pub(super) fn export_tree(
    context: &Context,
    fs: &Kvfs,
    target: &Target<'_>,
    jobs: Jobs,
) -> Result<Copied> {
    let Target { path, dir } = target;
    let stop = context.console.stop()?;
    let start = walk::resolve(fs, path)?;
    let bar = context.console.progress("exporting");
    // A file goes into a directory that is there, as with cp.
    let into = walk::parts(path.as_bytes())?.pop().filter(|_| dir.is_dir());
    let into = into.filter(|_| !matches!(start.kind, FileKind::Directory));
    let target = into.map(|name| dir.join(OsStr::from_bytes(name.as_bytes())));
    let progress = |copied: &Copied| {
        bar.files_and_bytes(copied.n_inodes, copied.bytes);
        stop.check()
    };
    let options = ExportOptions { n_threads: jobs.n_threads(), progress: &progress };
    transfer::export(fs, &start, target.as_deref().unwrap_or(dir), &options)
}
