//! `tier demo`: the whole life cycle on a throw-away store, with every step compared.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tier_agent::Task;
use tier_evict::PassGoal;
use tier_persist::{ScanMode, Watch};
use tier_types::MountedInstance;

use super::keys::NewStore;
use super::{files, keys, restore};
use crate::exit::DamageFound;
use crate::fill_index::{Filled, How, fill};
use crate::index_files::indexes_path;
use crate::session::Session;
use crate::store::open_index;
use crate::{host, output};

const COMPARE_BYTES: usize = 1 << 16;

pub(crate) fn demo(
    session: &Session,
    dir: Option<&Path>,
    work_dir: Option<&Path>,
    keep: bool,
) -> Result<()> {
    let dir = dir.unwrap_or(Path::new("."));
    let dir = dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))?;
    let mut work = match work_dir {
        Some(parent) => {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
            tempfile::tempdir_in(parent)
        }
        None => tempfile::tempdir(),
    }
    .context("cannot make a temporary folder")?;
    work.disable_cleanup(keep);
    if work.path().starts_with(&dir) {
        bail!("the work folder lies in the tree to import; say --work-dir elsewhere");
    }
    let demo = Demo { session, source: dir, work: work.path().to_path_buf() };
    demo.run()?;
    if keep {
        say(session, &format!("Everything is kept in {}.", work.path().display()))?;
    }
    say(session, "Every comparison held.")
}

struct Demo<'a> {
    session: &'a Session,
    source: PathBuf,
    work: PathBuf,
}

impl Demo<'_> {
    fn run(&self) -> Result<()> {
        let store = self.work.join("store");
        let cloud = self.work.join("cloud");
        let cloud_url = format!("file://{}", cloud.display());
        keys::init(self.session, &store, &demo_store(&cloud_url))?;
        self.out(&store)?;
        self.back(&store, "evicted")?;
        self.regenerate(&store)?;
        let restored = self.work.join("restored");
        let source = restore::Source {
            cloud: cloud_url,
            identity: store.join(keys::IDENTITY),
            snapshot: None,
            filesystem: None,
            recipients: Vec::new(),
            trust_signer: false,
        };
        self.timed("restore from the cloud alone", || {
            restore::restore(self.session, &restored, &source)?;
            Ok(String::new())
        })?;
        self.back(&restored, "restored")
    }

    fn timed(&self, what: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
        let start = Instant::now();
        let result = work().with_context(|| format!("the demo failed at: {what}"))?;
        say(self.session, &format!("{:>8.2} s  {what:<38} {result}", start.elapsed().as_secs_f64()))
    }

    /// Import, snapshot, push, verify, evict.
    fn out(&self, store: &Path) -> Result<()> {
        let store = self.session.open(store)?;
        self.timed("import", || {
            let copied =
                files::import_tree(self.session, &store, (&self.source, OsStr::new("/")), None)?;
            Ok(format!("{} inodes, {}", copied.n_inodes, output::bytes(copied.bytes)))
        })?;
        self.timed("snapshot, push, read back", || {
            let report = self.session.perform(&store, Task::Snapshot, "taking a snapshot")?;
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
            let evicted =
                self.session.perform(&store, task, "evicting")?.evicted.unwrap_or_default();
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
        let store = self.session.open(store)?;
        let dir = self.work.join(format!("out-{name}"));
        self.timed(&format!("read everything back ({name})"), || {
            let copied =
                files::export_tree(self.session, &store.fs, (OsStr::new("/"), &dir), None)?;
            Ok(format!("{} inodes, {}", copied.n_inodes, output::bytes(copied.bytes)))
        })?;
        self.timed("compare content and metadata", || {
            let n_files = compare_trees(&self.source, &dir)?;
            Ok(format!("{n_files} files and folders are the same"))
        })
    }

    /// Regenerate the index in both ways, and compare dumps.
    fn regenerate(&self, path: &Path) -> Result<()> {
        let store = self.session.open(path)?;
        let mut live = Vec::new();
        store.index.dump(&mut live)?;
        for (what, mode) in [("tables", ScanMode::Tables), ("full-scan", ScanMode::Full)] {
            self.timed(&format!("regenerate the index ({what})"), || {
                let folder = self.work.join(format!("index-{what}"));
                let fresh = open_index(&folder, &store.base.config)?;
                let (base, how) = (&store.base, How { mode, from_cloud: false });
                let filled = fill(base, &fresh, how, &mut Watch::default())?;
                let Filled { n_tarballs, damages } = filled;
                if let Some(damage) = damages.first() {
                    bail!(DamageFound(damage.problem.clone()));
                }
                let mut dump = Vec::new();
                fresh.dump(&mut dump)?;
                if dump != live {
                    bail!(DamageFound("the regenerated index differs".into()));
                }
                Ok(format!(
                    "{n_tarballs} tarballs, {} of dump, identical",
                    output::bytes(tier_types::to_u64(dump.len()))
                ))
            })?;
        }
        drop(store);
        fs::remove_dir_all(indexes_path(path)).context("cannot remove the index")?;
        self.timed("open the store without an index", || {
            let store = self.session.open(path)?;
            let mut dump = Vec::new();
            store.index.dump(&mut dump)?;
            if dump != live {
                bail!(DamageFound("the regenerated index differs".into()));
            }
            Ok("identical".into())
        })
    }
}

fn demo_store(cloud: &str) -> NewStore {
    NewStore {
        cloud: Some(cloud.to_string()),
        identity: None,
        recipients: Vec::new(),
        encryption: true,
        level: 3,
        chunk_bytes: crate::config::chunk_bytes(),
    }
}

fn say(session: &Session, text: &str) -> Result<()> {
    session.report(&serde_json::Value::Null, &format!("{text}\n"))
}

/// Compares two trees of the host: names, kinds, modes, owners, times, links, extended attributes,
/// content. Returns the number of entries.
fn compare_trees(a: &Path, b: &Path) -> Result<u64> {
    let mut n_entries = 1;
    let mut links = Links::default();
    let mut todo = vec![(a.to_path_buf(), b.to_path_buf())];
    while let Some((a, b)) = todo.pop() {
        let names = |dir: &Path| -> Result<Vec<_>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(dir)? {
                names.push(entry?.file_name());
            }
            names.sort();
            Ok(names)
        };
        let (in_a, in_b) = (names(&a)?, names(&b)?);
        if in_a != in_b {
            bail!(DamageFound(format!("{} and {} hold other names", a.display(), b.display())));
        }
        for name in in_a {
            let (a, b) = (a.join(&name), b.join(&name));
            n_entries += 1;
            compare_entry(&a, &b).with_context(|| format!("at {}", a.display()))?;
            links.compare(&a, &b)?;
            if fs::symlink_metadata(&a)?.is_dir() {
                todo.push((a, b));
            }
        }
    }
    Ok(n_entries)
}

/// Which names are of one file, in each tree: by device and inode, the first name that was seen.
#[derive(Default)]
struct Links([HashMap<(u64, u64), usize>; 2]);

impl Links {
    fn compare(&mut self, a: &Path, b: &Path) -> Result<()> {
        let mut first = [0, 0];
        let trees = self.0.iter_mut().zip([a, b]).zip(&mut first);
        for ((seen, path), first) in trees {
            let metadata = fs::symlink_metadata(path)?;
            let number = seen.len();
            *first = match metadata.is_dir() {
                true => 0,
                false => *seen.entry((metadata.dev(), metadata.ino())).or_insert(number),
            };
        }
        let [of_a, of_b] = first;
        if of_a != of_b {
            bail!(DamageFound(format!("hard links differ at {}", a.display())));
        }
        Ok(())
    }
}

fn compare_entry(a: &Path, b: &Path) -> Result<()> {
    let (of_a, of_b) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
    let differs = |what: &str| DamageFound(format!("{what} differs at {}", a.display()));
    if of_a.mode() != of_b.mode() || (of_a.uid(), of_a.gid()) != (of_b.uid(), of_b.gid()) {
        bail!(differs("mode or owner"));
    }
    if (of_a.mtime(), of_a.mtime_nsec()) != (of_b.mtime(), of_b.mtime_nsec()) {
        bail!(differs("time of change"));
    }
    if sorted_xattrs(a)? != sorted_xattrs(b)? {
        bail!(differs("an extended attribute or ACL"));
    }
    let kind = of_a.file_type();
    if kind.is_symlink() && fs::read_link(a)? != fs::read_link(b)? {
        bail!(differs("target"));
    }
    if (kind.is_char_device() || kind.is_block_device()) && of_a.rdev() != of_b.rdev() {
        bail!(differs("device"));
    }
    if kind.is_file() {
        if of_a.len() != of_b.len() {
            bail!(differs("size"));
        }
        if !same_content(a, b)? {
            bail!(differs("content"));
        }
    }
    Ok(())
}

fn sorted_xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut xattrs = host::read_xattrs(path)?;
    xattrs.sort();
    Ok(xattrs)
}

fn same_content(a: &Path, b: &Path) -> Result<bool> {
    let open = |path| File::open(path).map(|file| BufReader::with_capacity(COMPARE_BYTES, file));
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut of_a, mut of_b) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        let n = a.read(&mut of_a)?;
        let piece = of_b.get_mut(..n).unwrap_or_default();
        b.read_exact(piece)?;
        if of_a.get(..n) != Some(piece) {
            return Ok(false);
        }
        if n == 0 {
            return Ok(b.read(&mut of_b)? == 0);
        }
    }
}
