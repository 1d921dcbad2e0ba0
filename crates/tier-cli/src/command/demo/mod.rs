//! `tier demo`: the whole life cycle on a throw-away store, with every step compared.
//!
//! A tree of the host goes in, is persisted and uploaded to a directory that stands for a cloud,
//! and is evicted. Then it is read back through its detours and compared with the original; the
//! index is regenerated in three ways and compared with the one that grew with the store; and a
//! second store is made from the cloud's copy alone, read, and compared with the original in turn.
//! The demo succeeds only if every comparison holds: the same steps, on a large tree, are an
//! acceptance test.

mod compare;
mod numbers;
mod source;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use kvfs::Kvfs;
use serde_json::Value;
use tempfile::TempDir;
use tier_agent::{SpaceGoal, Task};
use tier_index::Index;
use tier_persist::{PersistReport, ScanMode, Watch};
use tier_store::{Config, FreshIndex, Layout, RebuildOptions, RestoreReport};
use tier_types::{FileAttr, FileKind, InstanceView, Usage, to_u64};

use self::compare::{Compared, Comparison};
use self::numbers::{FirstByte, Numbers};
use self::source::SourceTree;
use super::{evict, export, import, init, restore};
use crate::args::{DemoArgs, InitArgs, Jobs, RestoreArgs};
use crate::console::{DamageFound, output};
use crate::context::Context;
use crate::open_store::OpenStore;
use crate::transfer::{Copied, is_root, walk};

pub(super) fn run(context: &Context, args: &DemoArgs) -> Result<()> {
    let work = work_dir(args)?;
    // The work directory is there first, because its disk decides how much of a tree there is room
    // for.
    let source = SourceTree::choose(args.dir.as_deref(), work.path())?;
    // The import would copy the store into itself, and find ever more to copy.
    if work.path().starts_with(&source.dir) {
        bail!("the work directory lies in the tree to import; say --work-dir elsewhere");
    }
    say(context, &source.text())?;
    let (work_path, keep) = (work.path(), args.keep);
    let demo = Demo { context, source, work: work_path, keep, as_root: is_root() };
    let numbers = demo.run()?;
    let mut text = format!("\n{}", numbers.text());
    if keep {
        text.push_str(&format!("\nEverything is kept in {}.", work_path.display()));
    }
    context.console.report(&numbers.json(), &(text + "\nEvery comparison held.\n"))
}

/// A directory that goes with all that is in it when it is dropped, unless it is to be kept.
fn work_dir(args: &DemoArgs) -> Result<TempDir> {
    let made = match &args.work_dir {
        Some(parent) => {
            // A directory that the user named is made with all above it, and stays when the demo is
            // done.
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
            tempfile::tempdir_in(parent)
        }
        None => tempfile::tempdir(),
    };
    let mut work = made.context("cannot make a temporary directory")?;
    // Set before anything can fail, so that a demo that is to be kept is also kept for a failure.
    work.disable_cleanup(args.keep);
    Ok(work)
}

/// A line for the user; a program is told all at the end.
fn say(context: &Context, text: &str) -> Result<()> {
    // A JSON report is one value, to which these lines would not belong.
    if context.console.json() {
        return Ok(());
    }
    context.console.report(&Value::Null, &format!("{text}\n"))
}

struct Demo<'a> {
    context: &'a Context,
    source: SourceTree,
    work: &'a Path,
    keep: bool,
    as_root: bool,
}

impl Demo<'_> {
    fn run(&self) -> Result<Numbers> {
        let [path, cloud, restored] = ["store", "cloud", "restored"].map(|name| self.at(name));
        let cloud = format!("file://{}", cloud.display());
        let created = init::create(&init_args(&path, &cloud))?;
        let mut numbers = Numbers { as_root: self.as_root, ..Numbers::default() };
        // The store is closed at the end of this block, because one opening at a time is possible.
        {
            let store = self.context.open(&path)?;
            self.import(&store)?;
            let persisted = self.snapshot(&store)?;
            numbers.data_bytes = persisted.data_bytes;
            numbers.tarball_bytes = persisted.tarball_bytes;
            let freed = self.evict(&store)?;
            numbers.kvs_before_bytes = freed.before.physical_bytes;
            numbers.kvs_after_bytes = freed.after.physical_bytes;
        }
        {
            // Opened again, so that nothing is remembered of what was written.
            let store = self.context.open(&path)?;
            // Before everything is read back, because afterwards no data would be evicted any more.
            numbers.first_byte = first_byte(&store.fs)?;
            numbers.compared = self.read_back(&store, "evicted")?;
        }
        self.regenerate(&path)?;
        self.restore(&restored, &created.identity, cloud)?;
        // The local store of this one has no tarballs: every read comes from the cloud's copy.
        let again = self.read_back(&*self.context.open(&restored)?, "restored")?;
        assert_eq!(numbers.compared, again, "the same original was compared twice");
        Ok(numbers)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Takes a step, and says how long it took and what came of it.
    fn timed<T>(
        &self,
        what: &str,
        step: impl FnOnce() -> Result<T>,
        text: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let start = Instant::now();
        let done = step().with_context(|| format!("the demo failed at: {what}"))?;
        let seconds = start.elapsed().as_secs_f64();
        say(self.context, &format!("{seconds:>8.2} s  {what:<38} {}", text(&done)))?;
        Ok(done)
    }

    fn import(&self, store: &OpenStore) -> Result<()> {
        let is_wanted = |path: &Path| self.source.is_wanted(path);
        let source =
            import::Source { dir: &self.source.dir, into: OsStr::new("/"), is_wanted: &is_wanted };
        let step = || import::import_tree(self.context, store, &source, Jobs::default());
        self.timed("import", step, copied_text).map(drop)
    }

    /// Persists, uploads, and reads back what was uploaded.
    fn snapshot(&self, store: &OpenStore) -> Result<PersistReport> {
        let step = || {
            let report = self.context.perform(store, Task::Snapshot, "taking a snapshot")?;
            // Everything was new, so that a snapshot of nothing is a failure here.
            let persisted = report.persisted.context("there was nothing to persist")?.report;
            if !persisted.failed.is_empty() {
                // An inode that is not in the tarballs would only be found when it is read back.
                bail!("{} inodes could not be persisted", persisted.failed.len());
            }
            Ok(persisted)
        };
        self.timed("snapshot, upload, read back", step, |persisted| {
            let bytes = [persisted.data_bytes, persisted.tarball_bytes];
            let [data, tarballs] = bytes.map(output::bytes);
            format!("{data} of data in {} tarballs of {tarballs}", persisted.n_tarballs)
        })
    }

    fn evict(&self, store: &OpenStore) -> Result<Freed> {
        let step = || {
            let before = store.fs.usage()?;
            let task = Task::Evict(SpaceGoal::Everything);
            let (evicted, uploaded) = evict::perform(self.context, store, task)?;
            uploaded?;
            let evicted_bytes = evicted.bytes;
            let after = store.fs.usage()?;
            // Data that stays would be read without a recall, and the comparison would prove
            // nothing.
            if after.resident_bytes > 0 {
                bail!("{} stayed", output::bytes(after.resident_bytes));
            }
            Ok(Freed { evicted_bytes, before, after })
        };
        self.timed("evict everything", step, |freed| {
            let Freed { evicted_bytes, before, after } = freed;
            let bytes = [*evicted_bytes, before.physical_bytes, after.physical_bytes];
            let [evicted, before, after] = bytes.map(output::bytes);
            format!("{evicted}; the store went from {before} to {after} on disk")
        })
    }

    /// Reads everything, and compares it with the source.
    fn read_back(&self, store: &OpenStore, name: &str) -> Result<Compared> {
        let dir = self.at(&format!("out-{name}"));
        let target = export::Target { path: OsStr::new("/"), dir: &dir, as_root: self.as_root };
        self.timed(
            &format!("read everything back ({name})"),
            || export::export_tree(self.context, &store.fs, &target, Jobs::default()),
            copied_text,
        )?;
        let is_wanted = |path: &Path| self.source.is_wanted(path);
        let comparison = Comparison { is_wanted: &is_wanted, as_root: self.as_root };
        let compared = self.timed(
            "compare content and metadata",
            || comparison.run(&self.source.dir, &dir),
            |compared| format!("{} files and directories are the same", compared.n_entries),
        )?;
        // A copy that was compared takes the room that the next step needs.
        if !self.keep {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        Ok(compared)
    }

    /// Regenerates the index in all ways, and compares dumps.
    fn regenerate(&self, path: &Path) -> Result<()> {
        let live = {
            let store = self.context.open(path)?;
            // The dump is the index's canonical form: equal dumps are equal indexes, byte for byte.
            let live = dump(store.index())?;
            for (what, mode) in [("tables", ScanMode::Tables), ("full-scan", ScanMode::Full)] {
                self.timed(
                    &format!("regenerate the index ({what})"),
                    || Self::fill(&store, mode, &live),
                    |n| format!("{n} tarballs, {} of dump, identical", dump_bytes(&live)),
                )?;
            }
            live
        };
        // With the store closed, the next opening makes an index and brings it up to the manifests.
        fs::remove_dir_all(Layout::new(path).indexes()).context("cannot remove the index")?;
        let step = || same_dump(&live, &dump(self.context.open(path)?.index())?);
        self.timed("open the store without an index", step, |()| "identical".into())
    }

    /// Fills an index from the tarballs, and returns their number.
    fn fill(store: &OpenStore, mode: ScanMode, live: &[u8]) -> Result<u64> {
        let options = RebuildOptions { mode, from_cloud: false };
        let look = |fresh: &FreshIndex<'_>| {
            // By tables damage is an error before this; a full scan goes on and reports it.
            if let Some(damage) = fresh.filled.damages.first() {
                bail!(DamageFound(damage.problem.clone()));
            }
            same_dump(live, &dump(fresh.index)?)?;
            Ok(fresh.filled.n_tarballs)
        };
        store.store.with_fresh_index(options, &mut Watch::default(), look)?
    }

    fn restore(&self, store: &Path, identity: &Path, cloud: String) -> Result<()> {
        let args = RestoreArgs {
            store: store.to_path_buf(),
            cloud,
            identity: identity.to_path_buf(),
            snapshot: None,
            filesystem: None,
            recipients: Vec::new(),
            signer: None,
            epoch: None,
            incomplete: false,
        };
        let step = || restore::restore(self.context, &args);
        let text = |(report, _): &(RestoreReport, Arc<Kvfs>)| {
            format!("{} inodes, without their data", report.n_inodes)
        };
        self.timed("restore from the cloud alone", step, text).map(drop)
    }
}

/// What an eviction freed.
struct Freed {
    evicted_bytes: u64,
    before: Usage,
    after: Usage,
}

fn copied_text(copied: &Copied) -> String {
    format!("{} inodes, {}", copied.n_inodes, output::bytes(copied.bytes))
}

fn dump(index: &Index) -> Result<Vec<u8>> {
    let mut dump = Vec::new();
    index.dump(&mut dump)?;
    Ok(dump)
}

fn dump_bytes(dump: &[u8]) -> String {
    output::bytes(to_u64(dump.len()))
}

fn same_dump(live: &[u8], fresh: &[u8]) -> Result<()> {
    if live != fresh {
        bail!(DamageFound("the regenerated index differs".into()));
    }
    Ok(())
}

/// Reads the first byte of the largest file: where all is evicted, a recall that reads one range.
fn first_byte(fs: &Kvfs) -> Result<Option<FirstByte>> {
    let mut largest: Option<FileAttr> = None;
    walk::tree(fs, walk::resolve(fs, OsStr::new("/"))?, |_, attr| {
        let is_larger = |largest: &FileAttr| attr.size_bytes > largest.size_bytes;
        if matches!(attr.kind, FileKind::Regular) && largest.as_ref().is_none_or(is_larger) {
            largest = Some(attr.clone());
        }
        Ok(())
    })?;
    let Some(file) = largest.filter(|file| file.size_bytes > 0) else { return Ok(None) };
    let start = Instant::now();
    // A single byte asks for one chunk: what is measured is a frame and not the file.
    fs.read(file.ino, 0, 1).context("cannot read an evicted file")?;
    Ok(Some(FirstByte { file_bytes: file.size_bytes, elapsed: start.elapsed() }))
}

fn init_args(store: &Path, cloud: &str) -> InitArgs {
    InitArgs {
        store: store.to_path_buf(),
        adopt_cloud: false,
        cloud: Some(cloud.to_string()),
        identity: None,
        recipients: Vec::new(),
        no_encryption: false,
        level: 3,
        chunk_bytes: Config::CHUNK_BYTES,
    }
}
