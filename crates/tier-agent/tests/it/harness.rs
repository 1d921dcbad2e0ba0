//! A store of real parts, with small chunks, frames and tarballs, a cloud in memory, and ways to
//! crash it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use kvfs::ops::{EntryRef, NewNode, RenameMode, SetAttr, XattrMode};
use kvfs::{Core, Kvfs, KvfsOptions};
use tier_agent::decide::SpaceMarks;
use tier_agent::{
    AgentError, AgentReport, Arrival, CloudPort, DeletionQueue, Floor, Recaller, RecallerOptions,
    Stages, StatusBook, StorePorts, StoreStages, Task, TieringOutAgent,
};
use tier_cloud::{DirStore, ObjectCache};
use tier_evict::{AgeAndSize, Evicter};
use tier_index::{Index, IndexOptions};
use tier_persist::{
    Archive, Fetcher, FetcherOptions, FilesystemId, History, Keys, PersistOptions, Persister,
    ScanMode, Watch, WriterToken,
};
use tier_status::{Event, StatusError, StatusSink};
use tier_testkit::{
    Fault, FaultyStore, FsOp, LyingStore, MemoryStore, Name, TreeEntry, VirtualClock,
};
use tier_types::{
    Call, Clock, CloudId, Epoch, FileKind, FileName, Ino, ObjectStore, SnapshotId, Xid,
};

pub(crate) const CHUNK: u32 = 512;
const XATTR: &[u8] = b"user.test";

/// Fails at a chosen event, as if the process had ended there.
pub(crate) struct CrashingSink(AtomicI64);

impl StatusSink for CrashingSink {
    fn report(&self, _: Event) -> Result<(), StatusError> {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
            let source = std::io::Error::other("injected crash");
            return Err(StatusError::Io { operation: "report to", path: "sink".into(), source });
        }
        Ok(())
    }
}

/// After how much there is a part, and a checkpoint.
#[derive(Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "they are sizes")]
pub(crate) struct Sizes {
    pub(crate) part_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
    /// What a recaller keeps.
    pub(crate) cache_bytes: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        let part_bytes = PersistOptions::default().part_bytes;
        Self { part_bytes, checkpoint_bytes: 16 << 20, cache_bytes: 20_000 }
    }
}

impl Sizes {
    /// Two or three files in a part, and two or three snapshots between checkpoints.
    pub(crate) fn small() -> Self {
        Self { part_bytes: 3000, checkpoint_bytes: 1 << 20, ..Self::default() }
    }
}

pub(crate) struct Harness {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) keys: Arc<Keys>,
    pub(crate) filesystem: FilesystemId,
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) cloud: Arc<FaultyStore>,
    /// Below it.
    pub(crate) lies: Arc<LyingStore>,
    sizes: Sizes,
    /// What every part goes by, and what a test lets pass.
    clock: Arc<dyn Clock>,
    pub(crate) time: Arc<VirtualClock>,
    live: Option<Live>,
}

pub(crate) struct Live {
    pub(crate) fs: Arc<Kvfs>,
    pub(crate) index: Arc<Index>,
    pub(crate) agent: TieringOutAgent,
    sink: Arc<CrashingSink>,
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with_sizes(Sizes::default())
    }

    /// With snapshots that come in parts, and checkpoints.
    pub(crate) fn with_sizes(sizes: Sizes) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let time = Arc::new(VirtualClock::at(1_480_000_000));
        let clock: Arc<dyn Clock> = time.clone();
        drop(Core::create(dir.path(), &kvfs_options(), Arc::clone(&clock)).unwrap());
        let memory = Arc::new(MemoryStore::default());
        let lies = Arc::new(LyingStore::new(memory.clone()));
        let cloud = Arc::new(FaultyStore::new(lies.clone()));
        let mut harness = Self {
            dir,
            keys: Arc::new(Keys::generate().unwrap()),
            filesystem: FilesystemId::from_bytes([7; 16]),
            memory,
            cloud,
            lies,
            clock,
            time,
            sizes,
            live: None,
        };
        harness.reopen();
        harness
    }

    pub(crate) fn live(&self) -> &Live {
        self.live.as_ref().unwrap()
    }

    pub(crate) fn fs(&self) -> &Arc<Kvfs> {
        &self.live().fs
    }

    /// Drops everything that is open and opens it again: a new process.
    pub(crate) fn reopen(&mut self) {
        drop(self.live.take());
        // The process that crashed took the fault with it.
        self.cloud.break_at(u64::MAX / 2, Fault::Error);
        let path = self.dir.path();
        let core = Core::open(path, &kvfs_options(), Arc::clone(&self.clock)).unwrap();
        let index = Arc::new(open_index(&path.join("index")));
        let local = DirStore::create(&path.join("tarballs")).unwrap();
        let recaller = self.recaller(&index, vec![Arc::new(local.clone()), self.cloud.clone()]);
        let fs = Arc::new(Kvfs::new(Arc::new(core), Arc::new(recaller)));
        let sink = Arc::new(CrashingSink(AtomicI64::new(i64::MAX)));
        let agent = self.agent(&fs, &index, local, sink.clone());
        self.live = Some(Live { fs, index, agent, sink });
    }

    fn agent(
        &self,
        fs: &Arc<Kvfs>,
        index: &Arc<Index>,
        local: DirStore,
        sink: Arc<CrashingSink>,
    ) -> TieringOutAgent {
        let path = self.dir.path();
        let options = PersistOptions {
            part_bytes: self.sizes.part_bytes,
            object_bytes: 600,
            n_workers: 2,
            frame_bytes: 4096,
            tarball_bytes: 8192,
            member_bytes_max: 2048,
            rewrite_bytes_max: 1024,
            ..PersistOptions::default()
        };
        let persister = Persister::new(
            self.filesystem,
            Arc::new(local.clone()),
            Arc::clone(&self.keys),
            Arc::clone(index),
            Arc::clone(&self.clock),
            options,
        );
        let policy = Box::new(AgeAndSize::default());
        let evicter = Evicter::new(path, policy, Arc::clone(&self.clock));
        let book = StatusBook::open(&path.join("status"), Arc::clone(&self.clock)).unwrap();
        let ports = StorePorts {
            filesystem: self.filesystem,
            epoch: Epoch::new(1),
            writer: Some(WriterToken::from_bytes([1; 16])),
            floor: Floor::default(),
            log: fs.core().clone(),
            instance: fs.core().clone(),
            local: Arc::new(ObjectCache::new(Arc::new(local), u64::MAX)),
            cloud: Some(CloudPort {
                store: self.cloud.clone(),
                id: Some(CloudId::from_bytes([5; 16])),
                arrival: Arrival::Read,
            }),
            former_clouds: Vec::new(),
            keys: Arc::clone(&self.keys),
            history: Arc::new(History::new(Arc::clone(index))),
            book: Arc::new(book),
            deletions: DeletionQueue::open(&path.join("deletions"), Arc::clone(&self.clock)),
            spill_dir: path.to_path_buf(),
            checkpoint_bytes: self.sizes.checkpoint_bytes,
            marks: SpaceMarks { high_percent: 100, low_percent: 100 },
        };
        let stages: Arc<dyn Stages> = Arc::new(StoreStages::new(ports, persister, evicter, sink));
        TieringOutAgent::start(&stages).unwrap()
    }

    fn recaller(&self, index: &Arc<Index>, stores: Vec<Arc<dyn ObjectStore>>) -> Recaller {
        let options = FetcherOptions { cache_bytes: self.sizes.cache_bytes, n_tarballs: 2 };
        let (index, keys) = (Arc::clone(index), Arc::clone(&self.keys));
        let fetcher = Fetcher::new(self.filesystem, index, keys, stores, options);
        Recaller::start(fetcher, RecallerOptions { n_threads: 2, ..Default::default() }).unwrap()
    }

    pub(crate) fn perform(&self, task: Task) -> Result<AgentReport, AgentError> {
        self.live().agent.perform(task, &Arc::default())
    }

    pub(crate) fn snapshot(&self) -> Option<SnapshotId> {
        let report = self.perform(Task::Snapshot).unwrap();
        report.persisted.map(|persisted| persisted.snapshot)
    }

    pub(crate) fn evict(&self) {
        self.perform(Task::Evict(tier_agent::SpaceGoal::Everything)).unwrap();
    }

    /// Takes a snapshot that ends at its n-th event, or at the n-th access to the cloud.
    pub(crate) fn crash_in_snapshot(&mut self, n: u64) {
        if n % 3 == 2 {
            self.cloud.break_at(n / 3, Fault::Crash);
        } else {
            self.live().sink.0.store(i64::try_from(n).unwrap(), Ordering::Relaxed);
        }
        // Whether it got through depends on how much there was to do.
        drop(self.perform(Task::Snapshot));
        self.reopen();
    }

    /// The sink fails after so many events, as if the process had crashed there.
    pub(crate) fn break_sink_after(&self, n: i64) {
        self.live().sink.0.store(n, Ordering::Relaxed);
    }

    /// The tree of a filesystem that is restored from the cloud by its newest checkpoint.
    pub(crate) fn by_checkpoint(&self) -> BTreeMap<String, TreeEntry> {
        let (_dir, fs) = self.restored_with(None, false);
        tree(&fs)
    }

    /// Tries to evict while the cloud is away: what is persisted is to be uploaded first.
    pub(crate) fn evict_without_cloud(&self) {
        self.cloud.break_at(0, Fault::Crash);
        self.perform(Task::Evict(tier_agent::SpaceGoal::Everything)).unwrap_err();
        self.cloud.break_at(u64::MAX / 2, Fault::Error);
    }

    /// Opens the store again although something of the old process still holds on to it.
    pub(crate) fn leak_and_reopen(&mut self) {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(self.dir.path(), copy.path());
        std::mem::forget(self.live.take());
        std::mem::forget(std::mem::replace(&mut self.dir, copy));
        self.reopen();
    }

    pub(crate) fn local_tarballs(&self) -> Vec<PathBuf> {
        let mut tarballs = self.local_objects();
        tarballs.retain(|path| path.to_string_lossy().contains(".tar.zst"));
        tarballs
    }

    pub(crate) fn local_objects(&self) -> Vec<PathBuf> {
        let root = self.dir.path().join("tarballs");
        let names = DirStore::create(&root).unwrap().names(&Call::bulk(), "").unwrap();
        names.iter().map(|name| root.join(name.as_str())).collect()
    }

    /// Whether the cloud has an object that lies here.
    pub(crate) fn is_in_cloud(&self, path: &Path) -> bool {
        let names = self.memory.names(&Call::bulk(), "").unwrap();
        names.iter().any(|name| path.ends_with(name.as_str()))
    }

    /// Flips a bit in every tarball of the cloud, or flips it back.
    pub(crate) fn damage_cloud(&self) {
        for name in self.memory.names(&Call::bulk(), "").unwrap() {
            if name.as_str().contains(".tar.zst") {
                self.memory.tamper(&name, |bytes| {
                    let at = bytes.len() / 4;
                    bytes[at] ^= 1;
                });
            }
        }
    }

    /// The filesystem contradicts neither itself nor the index.
    pub(crate) fn check_filesystem(&self) {
        let Live { fs, index, .. } = self.live();
        let mut problems = Vec::new();
        let stop = std::sync::atomic::AtomicBool::new(false);
        fs.fsck(index.as_ref(), &mut |finding| problems.push(finding), &stop).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
    }

    /// The index as it must be, from the tarballs: by the newest checkpoint, by their tables, and
    /// by scanning them.
    pub(crate) fn check_index(&self) {
        self.check_filesystem();
        let local = DirStore::create(&self.dir.path().join("tarballs")).unwrap();
        // What the cloud has, an eviction has dropped here.
        let stores: Vec<&dyn ObjectStore> = vec![&local, self.memory.as_ref()];
        let history = History::new(Arc::clone(&self.live().index));
        let archive = history.archive(stores, &self.keys, self.filesystem).unwrap();
        let live = dump(&self.live().index);
        for mode in [ScanMode::Checkpoint, ScanMode::Tables, ScanMode::Full] {
            let dir = tempfile::tempdir().unwrap();
            let fresh = open_index(dir.path());
            archive.rebuild_index(&fresh, mode, &mut Watch::default()).unwrap();
            assert_eq!(dump(&fresh), live, "{mode:?}");
        }
    }

    /// The tree of a filesystem that is restored from the cloud alone.
    pub(crate) fn restored_tree(&self, until: Option<SnapshotId>) -> BTreeMap<String, TreeEntry> {
        let (_dir, fs) = self.restored(until);
        tree(&fs)
    }

    /// Looks at a filesystem that is restored from the cloud alone.
    pub(crate) fn with_restored(&self, look: impl FnOnce(&Arc<Kvfs>)) {
        let (_dir, fs) = self.restored(None);
        look(&Arc::new(fs));
    }

    fn restored(&self, until: Option<SnapshotId>) -> (tempfile::TempDir, Kvfs) {
        self.restored_with(until, true)
    }

    fn restored_with(
        &self,
        until: Option<SnapshotId>,
        has_all_tables: bool,
    ) -> (tempfile::TempDir, Kvfs) {
        let dir = tempfile::tempdir().unwrap();
        let cloud: &dyn ObjectStore = self.memory.as_ref();
        let archive = Archive::open(cloud, &self.keys, self.filesystem).unwrap();
        let archive = match until {
            Some(snapshot) => archive.until(snapshot),
            None => archive,
        };
        let index = Arc::new(open_index(&dir.path().join("index")));
        let salvaged = archive
            .salvage_index(
                &index,
                &|_, _, _| unreachable!("nothing is damaged"),
                &mut Watch::default(),
            )
            .unwrap();
        assert_eq!(salvaged.damages, []);
        if has_all_tables {
            let by_tables = tempfile::tempdir().unwrap();
            let by_tables = open_index(by_tables.path());
            archive.rebuild_index(&by_tables, ScanMode::Tables, &mut Watch::default()).unwrap();
            assert_eq!(dump(&index), dump(&by_tables));
        }
        Core::create_empty(dir.path(), &kvfs_options(), Xid::new(0)).unwrap();
        let core = Core::open(dir.path(), &kvfs_options(), Arc::clone(&self.clock)).unwrap();
        archive.restore_into(&index, &core, &salvaged, &mut |_| {}).unwrap();
        let recaller = self.recaller(&index, vec![self.memory.clone()]);
        (dir, Kvfs::new(Arc::new(core), Arc::new(recaller)))
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn kvfs_options() -> KvfsOptions {
    KvfsOptions { chunk_bytes: CHUNK, ..KvfsOptions::default() }
}

fn open_index(path: &Path) -> Index {
    Index::open(path, CHUNK, &IndexOptions::default()).unwrap()
}

pub(crate) fn dump(index: &Index) -> String {
    let mut out = Vec::new();
    index.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

pub(crate) fn file_name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).unwrap()
}

pub(crate) fn node(kind: FileKind, mode: u16) -> NewNode {
    NewNode { kind, mode, uid: 0, gid: 0, inherit: None }
}

/// Everything in a filesystem, by path.
pub(crate) fn tree(fs: &Kvfs) -> BTreeMap<String, TreeEntry> {
    let mut tree = BTreeMap::new();
    walk(fs, Ino::ROOT, "", &mut tree);
    tree
}

fn walk(fs: &Kvfs, ino: Ino, path: &str, tree: &mut BTreeMap<String, TreeEntry>) {
    let attr = fs.getattr(ino).unwrap();
    let directory = matches!(attr.kind, FileKind::Directory);
    let content = match &attr.kind {
        FileKind::Symlink(target) => Some(target.clone()),
        FileKind::Regular => Some(fs.read(ino, 0, 1 << 20).unwrap()),
        _ => None,
    };
    if let Some(content) = &content {
        assert_eq!(content.len() as u64, attr.size_bytes, "{path}");
    }
    let nlink = if directory { usize::from(ino != Ino::ROOT) } else { attr.nlink as usize };
    let xattr = fs.getxattr(ino, XATTR).ok();
    tree.insert(path.to_string(), TreeEntry { content, mode: attr.mode, xattr, nlink });
    if directory {
        let n_dirs = fs
            .readdir(ino, 0, 1000)
            .unwrap()
            .into_iter()
            .skip(2)
            .filter(|entry| {
                let name = String::from_utf8(entry.name.clone()).unwrap();
                walk(fs, entry.ino, &format!("{path}/{name}"), tree);
                matches!(entry.attr.as_ref().unwrap().kind, FileKind::Directory)
            })
            .count();
        assert_eq!(attr.nlink as usize, 2 + n_dirs, "links of directory {path}");
    }
}

/// Does to a filesystem what a model does; whether it was allowed.
pub(crate) fn apply(fs: &Kvfs, op: &FsOp) -> Result<(), kvfs::FsError> {
    let place = |name: &Name| {
        let dir = match name.dir() {
            None => Ino::ROOT,
            Some(dir) => fs.lookup(Ino::ROOT, &file_name(dir))?.ino,
        };
        Ok::<_, kvfs::FsError>((dir, file_name(name.base())))
    };
    let ino = |name: &Name| {
        let (dir, base) = place(name)?;
        Ok::<_, kvfs::FsError>(fs.lookup(dir, &base)?.ino)
    };
    let make = |name: &Name, kind, mode| {
        let (dir, base) = place(name)?;
        fs.create_node(dir, &base, &node(kind, mode)).map(drop)
    };
    match op {
        FsOp::Create(name) => make(name, FileKind::Regular, 0o644),
        FsOp::Mkdir(name) => make(name, FileKind::Directory, 0o755),
        FsOp::Symlink(name, byte) => make(name, FileKind::Symlink(vec![*byte; 5]), 0o777),
        FsOp::Link(from, to) => {
            let (dir, base) = place(to)?;
            fs.link(ino(from)?, dir, &base).map(drop)
        }
        FsOp::Unlink(name) => {
            let (dir, base) = place(name)?;
            fs.unlink(dir, &base)
        }
        FsOp::Rmdir(name) => {
            let (dir, base) = place(name)?;
            fs.rmdir(dir, &base)
        }
        FsOp::Rename(from, to) | FsOp::Exchange(from, to) => {
            let ((a, from), (b, to)) = (place(from)?, place(to)?);
            let exchange = matches!(op, FsOp::Exchange(..));
            let mode = if exchange { RenameMode::Exchange } else { RenameMode::Replace };
            fs.rename(EntryRef::new(a, &from), EntryRef::new(b, &to), mode)
        }
        FsOp::Write { name, offset, len, byte } => {
            fs.write(ino(name)?, *offset as u64, &vec![*byte; *len])
        }
        FsOp::Truncate { name, size } => fs.truncate(ino(name)?, *size as u64),
        FsOp::Punch { name, offset, len } => fs.punch_hole(ino(name)?, *offset as u64, *len as u64),
        FsOp::Chmod(name, mode) => {
            let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
            fs.setattr(ino(name)?, &set).map(drop)
        }
        FsOp::SetXattr(name, byte) => fs.setxattr(ino(name)?, XATTR, &[*byte; 10], XattrMode::Set),
    }
}
