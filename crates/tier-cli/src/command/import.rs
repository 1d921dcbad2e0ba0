//! `tier import`: a tree of the host, copied into the store.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, bail};
use kvfs::ops::NewNode;
use kvfs::{FsError, Kvfs};
use tier_agent::Scheduler;
use tier_agent::decide::Schedule;
use tier_types::{FileAttr, FileKind, FileName, Ino, MountedInstance};

use crate::args::{ImportArgs, Jobs};
use crate::console::output;
use crate::context::Context;
use crate::open_store::OpenStore;
use crate::transfer::{self, Copied, ImportOptions, InRoom, walk};

pub(super) fn run(context: &Context, args: &ImportArgs) -> Result<()> {
    let store = context.open_to_archive(&args.store)?;
    let dir = context.console.host_path(&args.dir);
    let source = Source { dir: &dir, into: &args.into, is_wanted: &|_| true };
    let copied = import_tree(context, &store, &source, args.jobs)?;
    let (n, bytes) = (copied.n_inodes, output::bytes(copied.bytes));
    let text = format!("Imported {n} files and directories, {bytes}.\n");
    context.console.report(&copied.json(), &text)
}

/// What to import, and where to.
pub(super) struct Source<'a> {
    /// The host's directory.
    pub(super) dir: &'a Path,
    /// The store's directory.
    pub(super) into: &'a OsStr,
    /// Asked for each path below `dir`.
    pub(super) is_wanted: &'a (dyn Fn(&Path) -> bool + Sync),
}

/// Copies a tree in, shown and stopped by the console.
pub(super) fn import_tree(
    context: &Context,
    store: &OpenStore,
    source: &Source<'_>,
    jobs: Jobs,
) -> Result<Copied> {
    // What is made here, the kernel does not see: the mount is told what it must not remember.
    let entry_changed = |dir: Ino, name: &FileName| {
        if let Some(mount) = context.mount() {
            mount.forget_entry(dir, name);
        }
    };
    let attributes_changed = |ino: Ino| {
        if let Some(mount) = context.mount() {
            mount.forget_attributes(ino);
        }
    };
    let stop = context.console.stop()?;
    let maker = RoomMaker { context, store, scheduler: OnceLock::new() };
    let on_full = || maker.start();
    let room = InRoom::new(&store.fs, &on_full);
    // The target is made before the walk, so that a name that is no directory fails before any
    // copy.
    let make = |dir: Ino, name: &FileName| {
        let made =
            room.run(&|| stop.check(), || store.fs.create_node(dir, name, &new_directory()))?;
        // Only a directory that was made here is told: the kernel may remember that the name is
        // missing.
        entry_changed(dir, name);
        Ok(made)
    };
    let into = make_path(&store.fs, source.into, &make)?;
    let bar = context.console.progress("importing");
    let progress = |copied: &Copied| {
        bar.files_and_bytes(copied.n_inodes, copied.bytes);
        stop.check()
    };
    let options = ImportOptions {
        room: &room,
        n_threads: jobs.n_threads(),
        is_wanted: source.is_wanted,
        progress: &progress,
        entry_changed: &entry_changed,
        attributes_changed: &attributes_changed,
    };
    let copied = transfer::import(&store.fs, source.dir, into, &options)?;
    // Without this sync the last transactions of a finished import could be lost with the power.
    store.fs.fsync()?;
    Ok(copied)
}

/// Makes room for an import that finds none: its store has a cloud, and no agent works on it yet.
struct RoomMaker<'a> {
    context: &'a Context,
    store: &'a OpenStore,
    scheduler: OnceLock<Scheduler>,
}

impl RoomMaker<'_> {
    fn start(&self) {
        let has_cloud = self.store.config().cloud.is_some();
        // A mount has an agent of its own, or none because that is not wanted.
        if self.context.mount().is_some() || !has_cloud {
            return;
        }
        // Nothing is due by time: what is persisted is persisted for its room.
        let schedule = Schedule {
            snapshot_interval: Duration::MAX,
            snapshot_operations: u64::MAX,
            ..self.store.schedule()
        };
        match self.store.start_schedule(schedule) {
            Ok(scheduler) => {
                self.context.console.note("the store is full: what came so far goes to the cloud");
                // Until the schedule has looked for the first time.
                self.store.fs.core().expect_room(true);
                // It is the first one: an import starts it once.
                drop(self.scheduler.set(scheduler));
            }
            Err(error) => tracing::warn!("nothing can make room: {error:#}"),
        }
    }
}

/// The directory at a path, made with those above it where they are missing.
fn make_path(
    fs: &Kvfs,
    path: &OsStr,
    make: &dyn Fn(Ino, &FileName) -> Result<FileAttr>,
) -> Result<Ino> {
    let mut dir = Ino::ROOT;
    for name in walk::parts(path.as_bytes())? {
        let attr = match fs.lookup(dir, &name) {
            Err(FsError::NotFound) => make(dir, &name)?,
            other => other?,
        };
        if !matches!(attr.kind, FileKind::Directory) {
            bail!("{}: {name} is not a directory", path.display());
        }
        dir = attr.ino;
    }
    Ok(dir)
}

fn new_directory() -> NewNode {
    // Owned by root like the root directory, because no directory of the host says otherwise.
    NewNode { kind: FileKind::Directory, mode: 0o755, uid: 0, gid: 0, inherit: None }
}
