//! `tier demo`: the whole life cycle on a throw-away store, with every step compared.

mod compare;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tier_agent::Task;
use tier_evict::PassGoal;
use tier_index::Index;
use tier_persist::{ScanMode, Watch};
use tier_store::{Config, Layout, RebuildOptions};
use tier_types::MountedInstance;

use self::compare::compare_trees;
use super::export::Target;
use super::import::Source;
use super::{evict, export, import, init, restore};
use crate::args::{DemoArgs, InitArgs, Jobs, RestoreArgs};
use crate::console::{DamageFound, output};
use crate::context::Context;

pub(super) fn run(context: &Context, args: &DemoArgs) -> Result<()> {
    let dir = args.dir.as_deref().unwrap_or(Path::new("."));
    let dir = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    let mut work = match &args.work_dir {
        Some(parent) => {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
            tempfile::tempdir_in(parent)
        }
        None => tempfile::tempdir(),
    }
    .context("cannot make a temporary directory")?;
    work.disable_cleanup(args.keep);
    if work.path().starts_with(&dir) {
        bail!("the work directory lies in the tree to import; say --work-dir elsewhere");
    }
    let demo = Demo { context, source: dir, work: work.path().to_path_buf() };
    demo.run()?;
    if args.keep {
        say(context, &format!("Everything is kept in {}.", work.path().display()))?;
    }
    say(context, "Every comparison held.")
}

struct Demo<'a> {
    context: &'a Context,
    source: PathBuf,
    work: PathBuf,
}

impl Demo<'_> {
    fn run(&self) -> Result<()> {
        let store = self.work.join("store");
        let cloud = self.work.join("cloud");
        let cloud_url = format!("file://{}", cloud.display());
        init::run(self.context, &init_args(&store, &cloud_url))?;
        self.out(&store)?;
        self.back(&store, "evicted")?;
        self.regenerate(&store)?;
        let restored = self.work.join("restored");
        let args = RestoreArgs {
            store: restored.clone(),
            cloud: cloud_url,
            identity: Layout::new(&store).identity(),
            snapshot: None,
            filesystem: None,
            recipients: Vec::new(),
            trust_signer: false,
        };
        self.timed("restore from the cloud alone", || {
            restore::run(self.context, &args)?;
            Ok(String::new())
        })?;
        self.back(&restored, "restored")
    }

    fn timed(&self, what: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
        let start = Instant::now();
        let result = work().with_context(|| format!("the demo failed at: {what}"))?;
        say(self.context, &format!("{:>8.2} s  {what:<38} {result}", start.elapsed().as_secs_f64()))
    }

    /// Import, snapshot, push, verify, evict.
    fn out(&self, store: &Path) -> Result<()> {
        let store = self.context.open(store)?;
        self.timed("import", || {
            let source = Source { dir: &self.source, into: OsStr::new("/") };
            let copied = import::import_tree(self.context, &store, &source, Jobs::default())?;
            Ok(format!("{} inodes, {}", copied.n_inodes, output::bytes(copied.bytes)))
        })?;
        self.timed("snapshot, push, read back", || {
            let report = self.context.perform(&store, Task::Snapshot, "taking a snapshot")?;
            let persisted = report.persisted.context("there was nothing to persist")?.report;
            if !persisted.failed.is_empty() {
                bail!("{} inodes could not be persisted", persisted.failed.len());
            }
            Ok(format!(
                "{} of data in {} tarballs of {}",
                output::bytes(persisted.data_bytes),
                persisted.n_tarballs,
                output::bytes(persisted.tarball_bytes)
            ))
        })?;
        self.timed("evict everything", || {
            let before = store.fs.usage()?;
            let task = Task::Evict(PassGoal::Everything);
            let evicted = evict::perform(self.context, &store, task)?;
            let after = store.fs.usage()?;
            if after.resident_bytes > 0 {
                bail!("{} stayed", output::bytes(after.resident_bytes));
            }
            Ok(format!(
                "{}; the store went from {} to {} on disk",
                output::bytes(evicted.bytes),
                output::bytes(before.physical_bytes),
                output::bytes(after.physical_bytes)
            ))
        })
    }

    /// Read everything, and compare it with the source.
    fn back(&self, store: &Path, name: &str) -> Result<()> {
        let store = self.context.open(store)?;
        let dir = self.work.join(format!("out-{name}"));
        self.timed(&format!("read everything back ({name})"), || {
            let target = Target { path: OsStr::new("/"), dir: &dir };
            let copied = export::export_tree(self.context, &store.fs, &target, Jobs::default())?;
            Ok(format!("{} inodes, {}", copied.n_inodes, output::bytes(copied.bytes)))
        })?;
        self.timed("compare content and metadata", || {
            let n_files = compare_trees(&self.source, &dir)?;
            Ok(format!("{n_files} files and directories are the same"))
        })
    }

    /// Regenerate the index in both ways, and compare dumps.
    fn regenerate(&self, path: &Path) -> Result<()> {
        let store = self.context.open(path)?;
        let mut live = Vec::new();
        store.index().dump(&mut live)?;
        for (what, mode) in [("tables", ScanMode::Tables), ("full-scan", ScanMode::Full)] {
            self.timed(&format!("regenerate the index ({what})"), || {
                let options = RebuildOptions { mode, from_cloud: false };
                let dumped = |fresh: &Index, _: &Path| {
                    let mut dump = Vec::new();
                    fresh.dump(&mut dump).map(|()| dump)
                };
                let mut watch = Watch::default();
                let dump = store.store.with_fresh_index(options, &mut watch, dumped)??;
                if dump != live {
                    bail!(DamageFound("the regenerated index differs".into()));
                }
                let bytes = output::bytes(tier_types::to_u64(dump.len()));
                Ok(format!("{bytes} of dump, identical"))
            })?;
        }
        drop(store);
        fs::remove_dir_all(Layout::new(path).indexes()).context("cannot remove the index")?;
        self.timed("open the store without an index", || {
            let store = self.context.open(path)?;
            let mut dump = Vec::new();
            store.index().dump(&mut dump)?;
            if dump != live {
                bail!(DamageFound("the regenerated index differs".into()));
            }
            Ok("identical".into())
        })
    }
}

fn init_args(store: &Path, cloud: &str) -> InitArgs {
    InitArgs {
        store: store.to_path_buf(),
        cloud: Some(cloud.to_string()),
        identity: None,
        recipients: Vec::new(),
        no_encryption: false,
        level: 3,
        chunk_bytes: Config::CHUNK_BYTES,
    }
}

fn say(context: &Context, text: &str) -> Result<()> {
    context.console.report(&serde_json::Value::Null, &format!("{text}\n"))
}
