//! A filesystem of its own, tiered: written, persisted, uploaded, evicted, recalled, and restored
//! from the cloud alone. It is as small as one can be: a flat directory in memory, every file one
//! chunk that is written once. `cargo run -p tier-store --example embed`
#![expect(clippy::wildcard_imports, clippy::print_stdout, reason = "an example in one page")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use tier_agent::{SpaceGoal, Task};
use tier_log::{MemoryLog, Operation};
use tier_store::*;
use tier_types::*;

const CHUNK: u32 = Config::CHUNK_BYTES;
const DATA: ChunkRange = ChunkRange::one(ChunkNo::new(0)).expect("it is not the last chunk");
const REST: ChunkRange = ChunkRange::from(ChunkNo::new(1)).expect("it is not the last chunk");
const HOLE: ChunkRun = ChunkRun { chunks: REST, state: ChunkState::Hole, data_xid: Xid::new(0) };

type Answer<T> = Result<T, PortError>;
type Runs<'a> = dyn Iterator<Item = Answer<ChunkRun>> + 'a;
type Files = BTreeMap<Ino, File>;
#[derive(Clone)]
struct File {
    inode: InodeState,
    run: ChunkRun,
    data: Vec<u8>,
}
struct Notes {
    log: Arc<MemoryLog>,
    files: Mutex<Files>,
    recall: OnceLock<Arc<dyn Recall>>,
}
/// What users do: make files, and read them.
impl Notes {
    fn new() -> Arc<Self> {
        let log = Arc::new(MemoryLog::new(CHUNK));
        Arc::new(Self { log, files: Mutex::default(), recall: OnceLock::new() })
    }

    /// The root directory has no name, every other inode is a file.
    fn make(&self, link: Option<Link>, data: &[u8]) -> Ino {
        let mut files = self.files.lock();
        let create = |ino| Operation::Create { ino, link: link.clone() };
        let ino = Ino::new(self.log.append(|xid| create(Ino::new(xid.get()))).get());
        let len = to_u64(data.len());
        let data_xid = self.log.append(|_| Operation::Write { ino, offset: 0, len });
        let kind = link.as_ref().map_or(FileKind::Directory, |_| FileKind::Regular);
        let attr = FileAttr { size_bytes: len, xid: data_xid, ..FileAttr::new(ino, kind) };
        let hot = ChunkRun { chunks: DATA, state: ChunkState::Hot, data_xid };
        let run = if data.is_empty() { HOLE } else { hot };
        let inode = InodeState { attr, links: link.into_iter().collect(), xattrs: Vec::new() };
        files.insert(ino, File { inode, run, data: data.to_vec() });
        ino
    }

    fn read(&self, ino: Ino) -> Result<Vec<u8>> {
        let file = self.files.lock().get(&ino).cloned().context("no such file")?;
        if !matches!(file.run.state, ChunkState::Cold | ChunkState::Lost) {
            return Ok(file.data);
        }
        let request = RecallRequest { ino, chunks: DATA, data_xid: file.run.data_xid };
        let recall = self.recall.get().context("the store is not open")?;
        let data = recall.recall(&request)?.bytes().to_vec();
        // Stored only where the detour still stands for exactly this version.
        if let Some(now) = self.files.lock().get_mut(&ino).filter(|now| now.run == file.run) {
            (now.run.state, now.data) = (ChunkState::Warm, data.clone());
        }
        Ok(data)
    }
}
/// What the agent asks.
impl InstanceView for Notes {
    fn resident_extents(&self, from: &[ChunkPlace], _: usize) -> Vec<Answer<Vec<ResidentExtent>>> {
        let files = self.files.lock();
        let of_place = |&ChunkPlace { ino, chunk }: &ChunkPlace| {
            let file = files.get(&ino).filter(|file| !file.data.is_empty() && DATA.contains(chunk));
            let data_xid = file.map(|file| file.run.data_xid);
            let extent = data_xid.map(|data_xid| ResidentExtent { ino, chunks: DATA, data_xid });
            Ok(extent.into_iter().collect())
        };
        from.iter().map(of_place).collect()
    }
    fn warm_inodes(&self, after: Ino, n_max: usize) -> Answer<Vec<Ino>> {
        let files = self.files.lock();
        let warm = files.range(after.next()..).filter(|(_, f)| f.run.state == ChunkState::Warm);
        Ok(warm.map(|(ino, _)| *ino).take(n_max).collect())
    }
    fn inodes_after(&self, after: Ino, n_max: usize) -> Answer<Vec<Ino>> {
        let files = self.files.lock();
        Ok(files.range(after.next()..).map(|(ino, _)| *ino).take(n_max).collect())
    }
    fn eviction_facts(&self, inodes: &[Ino]) -> Vec<Answer<Option<EvictionFacts>>> {
        let files = self.files.lock();
        let facts = |file: &File| EvictionFacts {
            ino: file.inode.attr.ino,
            size_bytes: file.inode.attr.size_bytes,
            resident_bytes: to_u64(file.data.len()),
            last_used: file.inode.attr.modified,
            pinned: false,
        };
        inodes.iter().map(|ino| Ok(files.get(ino).map(facts))).collect()
    }
    fn usage(&self) -> Answer<Usage> {
        let resident_bytes = self.files.lock().values().map(|file| to_u64(file.data.len())).sum();
        Ok(Usage { resident_bytes, ..Usage::default() })
    }
}

/// What the agent does. Files never change here, so that a copy of the present is a snapshot.
impl MountedInstance for Notes {
    fn open_snapshot(&self, of: &Publication) -> Answer<Arc<dyn MountedSnapshot>> {
        Ok(Arc::new(Snapshot(self.files.lock().clone(), of.range.last())))
    }
    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Answer<EvictOutcome>> {
        let mut files = self.files.lock();
        let mut evict = |extent: &ResidentExtent| {
            let file = files.get_mut(&extent.ino).filter(|f| f.run.data_xid == extent.data_xid);
            let Some(file) = file else { return Ok(EvictOutcome::Skipped) };
            file.run.state = ChunkState::Cold;
            Ok(EvictOutcome::Evicted { bytes: to_u64(std::mem::take(&mut file.data).len()) })
        };
        extents.iter().map(&mut evict).collect()
    }
    fn reclaim(&self, _: &dyn Fn() -> bool) -> Answer<Reclaimed> {
        Ok(Reclaimed::default())
    }
    fn restore_inode(&self, inode: &InodeState, runs: &mut Runs<'_>) -> Answer<()> {
        let run = runs.next().transpose()?.unwrap_or(HOLE);
        let file = File { inode: inode.clone(), run, data: Vec::new() };
        self.files.lock().insert(inode.attr.ino, file);
        Ok(())
    }
}

struct Snapshot(Files, Xid);
impl MountedSnapshot for Snapshot {
    fn xid(&self) -> Xid {
        self.1
    }
    fn chunk_bytes(&self) -> u32 {
        CHUNK
    }
    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        Box::new(self)
    }
}

impl SnapshotReader for &Snapshot {
    fn inodes(&mut self, inodes: &[Ino], _: usize) -> Vec<Answer<Option<SnapshotInode>>> {
        let mut read = |ino: &Ino| {
            let Some(file) = self.0.get(ino) else { return Ok(None) };
            let (path, runs) = (self.path(*ino)?, self.chunk_runs(*ino, ChunkNo::new(0), 2)?);
            Ok(Some(SnapshotInode { state: file.inode.clone(), path, runs }))
        };
        inodes.iter().map(&mut read).collect()
    }
    fn inodes_after(&mut self, after: Ino, n_max: usize) -> Answer<Vec<Ino>> {
        Ok(self.0.range(after.next()..).map(|(ino, _)| *ino).take(n_max).collect())
    }
    fn path(&mut self, ino: Ino) -> Answer<Option<Vec<u8>>> {
        let link = self.0.get(&ino).and_then(|file| file.inode.links.first());
        Ok(Some(link.map_or(Vec::new(), |link| link.name.as_bytes().to_vec())))
    }
    fn chunk_runs(&mut self, ino: Ino, from: ChunkNo, _: usize) -> Answer<Vec<ChunkRun>> {
        let run = self.0.get(&ino).map(|file| file.run).filter(|run| run.chunks == DATA);
        // Both runs begin at a chunk that is asked for.
        Ok(run.into_iter().chain([HOLE]).filter(|run| run.chunks.start() >= from).collect())
    }
    fn read_chunks(&mut self, ino: Ino, _: ChunkRange, out: &mut Vec<u8>) -> Answer<()> {
        let missing = || PortError::new(ErrorKind::Damaged, "its data is missing");
        out.extend(&self.0.get(&ino).ok_or_else(missing)?.data);
        Ok(())
    }
}

/// Gives a restore the empty filesystem that it fills.
struct Restored(Arc<Notes>);
impl RestoreTarget for Restored {
    fn create(&mut self, _: &Path, _: &Config, floor: Xid) -> Answer<Arc<dyn MountedInstance>> {
        self.0.log.start_after(floor);
        Ok(self.0.clone())
    }

    fn last_xid(&mut self, _: &Path, _: &Config) -> Answer<Xid> {
        Ok(self.0.log.last_xid())
    }
}

fn open(path: &Path, notes: &Arc<Notes>) -> Result<Store> {
    let ports = Filesystem { log: notes.log.clone(), instance: notes.clone(), chunk_bytes: CHUNK };
    let progress = Arc::new(tier_status::NullSink);
    let store = Store::open(StoreDir::open(path)?, ports, progress, OpenMode::Current)?;
    notes.recall.get_or_init(|| store.recall());
    Ok(store)
}

fn main() -> Result<()> {
    let work = tempfile::tempdir()?;
    let [path, other, cloud] = ["store", "restored", "cloud"].map(|name| work.path().join(name));
    let cloud = format!("file://{}", cloud.display());
    NewStore { cloud: Some(cloud.clone()), ..NewStore::default() }.prepare(&path)?.finish()?;

    let notes = Notes::new();
    let root = notes.make(None, b"");
    let name = FileName::new(b"hello").context("not a name")?;
    let hello = notes.make(Some(Link { parent: root, name }), b"Hello, archive!");
    let store = open(&path, &notes)?;
    store.agent()?.perform(Task::Snapshot, &Arc::default())?;
    let evict = Task::Evict(SpaceGoal::Everything);
    let evicted = store.agent()?.perform(evict, &Arc::default())?.evicted;
    ensure!(notes.usage()?.resident_bytes == 0, "the data is still here");
    println!("evicted {} bytes", evicted.context("nothing was evicted")?.bytes);
    ensure!(notes.read(hello)? == b"Hello, archive!", "something else came back");
    println!("recalled them");

    let source = RestoreSource::new(cloud, Layout::new(&path).identity());
    let copy = Notes::new();
    restore(&other, &source, &mut Restored(copy.clone()), &mut |_| {})?;
    let _restored = open(&other, &copy)?;
    ensure!(copy.read(hello)? == b"Hello, archive!", "the restored file differs");
    println!("restored them from the cloud alone");
    Ok(())
}
