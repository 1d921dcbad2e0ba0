//! A filesystem in memory that implements both ports.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tier_log::Operation;
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, EvictOutcome, EvictionFacts, FileAttr,
    FileKind, FileName, Ino, InodeState, Link, LogService, MountedInstance, MountedSnapshot,
    PortError, Publication, ResidentExtent, SnapshotReader, Timestamp, Usage, Xid, to_u64,
    to_usize,
};

use crate::FakeLog;
use crate::fake_log::Snapshots;

/// A mounted instance in memory, built by chaining. Inode numbers are those of the transaction
/// that makes them; the root is there from the start.
#[derive(Clone)]
pub struct FakeKvs {
    shared: Arc<Shared>,
}

struct Shared {
    chunk_bytes: u32,
    inodes: Mutex<Inodes>,
    snapshots: Mutex<BTreeMap<Xid, Arc<Inodes>>>,
    log: FakeLog,
}

type Inodes = BTreeMap<Ino, FakeInode>;

/// Takes snapshots for the log, which the filesystem holds.
struct Keeper(Weak<Shared>);

impl Snapshots for Keeper {
    fn take(&self, last: Xid) {
        let shared = self.0.upgrade().expect("the log lives in the filesystem");
        let now = Arc::new(shared.inodes.lock().clone());
        shared.snapshots.lock().insert(last, now);
    }

    fn release(&self, last: Xid) {
        let shared = self.0.upgrade().expect("the log lives in the filesystem");
        shared.snapshots.lock().remove(&last);
    }
}

#[derive(Clone, Debug)]
struct FakeInode {
    state: InodeState,
    /// State, data xid and content of chunks; what is not there is a hole of xid `hole_xid`.
    chunks: BTreeMap<u64, (ChunkState, Xid, Vec<u8>)>,
    holes: BTreeMap<u64, Xid>,
}

impl std::fmt::Debug for FakeKvs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeKvs").field("inodes", &self.shared.inodes).finish_non_exhaustive()
    }
}

impl FakeKvs {
    /// A filesystem with a root directory.
    pub fn new(chunk_bytes: u32) -> Self {
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| {
            let log = FakeLog::with_snapshots(chunk_bytes, Box::new(Keeper(weak.clone())));
            Shared { chunk_bytes, inodes: Mutex::default(), snapshots: Mutex::default(), log }
        });
        let kvs = Self { shared };
        let xid = kvs.log().append(Operation::Mkdir { ino: Ino::ROOT, link: None });
        kvs.insert(Ino::ROOT, FileKind::Directory, Vec::new(), xid);
        kvs
    }

    /// Its log.
    pub fn log(&self) -> &FakeLog {
        &self.shared.log
    }

    /// Makes a file in the root directory, and writes its content.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let link = Link { parent: Ino::ROOT, name: FileName::new(name.as_bytes()).unwrap() };
        let ino = Ino::new(self.log().last_xid().get() + 1);
        let xid = self.log().append(Operation::Create { ino, link: Some(link.clone()) });
        self.insert(ino, FileKind::Regular, vec![link], xid);
        self.write(name, 0, content)
    }

    /// Makes a symbolic link in the root directory.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        let link = Link { parent: Ino::ROOT, name: FileName::new(name.as_bytes()).unwrap() };
        let ino = Ino::new(self.log().last_xid().get() + 1);
        let xid = self.log().append(Operation::Symlink { ino, link: link.clone() });
        self.insert(ino, FileKind::Symlink(target.into()), vec![link], xid);
        self
    }

    /// Writes into a file, at a multiple of the chunk size.
    #[must_use]
    pub fn write(self, name: &str, offset: u64, content: &[u8]) -> Self {
        let ino = self.ino(name);
        let len = to_u64(content.len());
        let chunk_bytes = u64::from(self.shared.chunk_bytes);
        assert_eq!(offset % chunk_bytes, 0, "the fake writes whole chunks");
        if content.is_empty() {
            return self;
        }
        let xid = self.log().append(Operation::Write { ino, offset, len });
        self.change(ino, xid, |inode| {
            for (chunk, bytes) in
                (offset / chunk_bytes..).zip(content.chunks(to_usize(chunk_bytes)))
            {
                inode.holes.remove(&chunk);
                inode.chunks.insert(chunk, (ChunkState::Hot, xid, bytes.to_vec()));
            }
            let size = &mut inode.state.attr.size_bytes;
            *size = (*size).max(offset + len);
        });
        self
    }

    /// Unmaps whole chunks of a file.
    #[must_use]
    pub fn punch(self, name: &str, chunks: std::ops::Range<u64>) -> Self {
        let ino = self.ino(name);
        let chunk_bytes = u64::from(self.shared.chunk_bytes);
        let (offset, len) = (chunks.start * chunk_bytes, (chunks.end - chunks.start) * chunk_bytes);
        let xid = self.log().append(Operation::PunchHole { ino, offset, len });
        self.change(ino, xid, |inode| {
            for chunk in chunks {
                inode.chunks.remove(&chunk);
                inode.holes.insert(chunk, xid);
            }
        });
        self
    }

    /// Removes a file for good.
    #[must_use]
    pub fn remove(self, name: &str) -> Self {
        let ino = self.ino(name);
        let link = Link { parent: Ino::ROOT, name: FileName::new(name.as_bytes()).unwrap() };
        self.log().append(Operation::Unlink { ino, link });
        self.log().append(Operation::Gone { ino });
        self.shared.inodes.lock().remove(&ino);
        self
    }

    /// Takes the data of a chunk away but leaves its map: damage.
    #[must_use]
    pub fn damage(self, name: &str, chunk: u64) -> Self {
        let ino = self.ino(name);
        let mut inodes = self.shared.inodes.lock();
        inodes.get_mut(&ino).unwrap().chunks.get_mut(&chunk).unwrap().2 = Vec::new();
        drop(inodes);
        self
    }

    /// The inode of a file in the root directory.
    pub fn ino(&self, name: &str) -> Ino {
        let inodes = self.shared.inodes.lock();
        let has = |inode: &FakeInode| {
            inode.state.links.iter().any(|link| link.name.as_bytes() == name.as_bytes())
        };
        *inodes.iter().find(|(_, inode)| has(inode)).expect("a file of this name").0
    }

    fn insert(&self, ino: Ino, kind: FileKind, links: Vec<Link>, xid: Xid) {
        let time = time_of(xid);
        let attr = FileAttr {
            ino,
            mode: if matches!(kind, FileKind::Directory) { 0o755 } else { 0o644 },
            kind,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes: 0,
            accessed: time,
            modified: time,
            changed: time,
            created: time,
            xid,
        };
        let state = InodeState { attr, links, xattrs: Vec::new() };
        let (chunks, holes) = (BTreeMap::new(), BTreeMap::new());
        self.shared.inodes.lock().insert(ino, FakeInode { state, chunks, holes });
    }

    fn change(&self, ino: Ino, xid: Xid, change: impl FnOnce(&mut FakeInode)) {
        let mut inodes = self.shared.inodes.lock();
        let inode = inodes.get_mut(&ino).expect("the inode to be changed is there");
        change(inode);
        inode.state.attr.xid = xid;
        inode.state.attr.modified = time_of(xid);
    }
}

fn time_of(xid: Xid) -> Timestamp {
    Timestamp { seconds: i64::try_from(xid.get()).unwrap(), nanos: 0 }
}

impl FakeInode {
    fn at(&self, chunk: u64) -> (ChunkState, Xid) {
        match self.chunks.get(&chunk) {
            Some((state, xid, _)) => (*state, *xid),
            None => (ChunkState::Hole, self.holes.get(&chunk).copied().unwrap_or_default()),
        }
    }

    /// Chunk by chunk up to the last one that is known, then the endless rest.
    fn runs(&self, from: u64) -> Vec<ChunkRun> {
        let known = self.chunks.keys().chain(self.holes.keys()).max().map_or(0, |last| last + 1);
        let mut runs: Vec<ChunkRun> = Vec::new();
        let known_chunks = (from..known.max(from)).map(|chunk| (chunk, chunk + 1, self.at(chunk)));
        let rest = (known.max(from), u64::MAX, (ChunkState::Hole, Xid::new(0)));
        for (start, end, (state, data_xid)) in known_chunks.chain([rest]) {
            let start = ChunkNo::new(start);
            let start = match runs.last() {
                Some(last) if (last.state, last.data_xid) == (state, data_xid) => {
                    runs.pop().unwrap().chunks.start()
                }
                _ => start,
            };
            let chunks = ChunkRange::new(start, ChunkNo::new(end)).unwrap();
            runs.push(ChunkRun { chunks, state, data_xid });
        }
        runs
    }
}

struct FakeSnapshot {
    inodes: Arc<Inodes>,
    xid: Xid,
    chunk_bytes: u32,
}

impl MountedSnapshot for FakeSnapshot {
    fn xid(&self) -> Xid {
        self.xid
    }

    fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        Box::new(self)
    }
}

impl SnapshotReader for &FakeSnapshot {
    fn inode(&mut self, ino: Ino) -> Result<Option<InodeState>, PortError> {
        Ok(self.inodes.get(&ino).map(|inode| inode.state.clone()))
    }

    fn path(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, PortError> {
        if ino == Ino::ROOT {
            return Ok(Some(Vec::new()));
        }
        let link = self.inodes.get(&ino).and_then(|inode| inode.state.links.first());
        Ok(link.map(|link| link.name.as_bytes().to_vec()))
    }

    fn chunk_runs(
        &mut self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, PortError> {
        let mut runs = self.inodes[&ino].runs(from.get());
        runs.truncate(n_max);
        Ok(runs)
    }

    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        let mut end = out.len();
        for chunk in chunks.start().get()..chunks.end().get() {
            let found =
                self.inodes[&ino].chunks.get(&chunk).filter(|(_, _, data)| !data.is_empty());
            let (_, _, data) = found.ok_or_else(|| {
                PortError::new(ErrorKind::Damaged, format!("inode {ino} has no chunk {chunk}"))
            })?;
            out.resize(end, 0);
            out.extend(data);
            end += to_usize(u64::from(self.chunk_bytes));
        }
        Ok(())
    }
}

impl MountedInstance for FakeKvs {
    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        let xid = publication.range.last();
        let mut snapshots = self.shared.snapshots.lock();
        if self.log().last_xid() == xid {
            // Nothing happened since: the present is the same.
            let now = || Arc::new(self.shared.inodes.lock().clone());
            snapshots.entry(xid).or_insert_with(now);
        }
        let inodes = snapshots.get(&xid).cloned();
        let inodes = inodes.ok_or_else(|| {
            PortError::new(ErrorKind::Missing, format!("no snapshot at xid {xid}"))
        })?;
        Ok(Arc::new(FakeSnapshot { inodes, xid, chunk_bytes: self.shared.chunk_bytes }))
    }

    fn evict_extent(&self, extent: &ResidentExtent) -> Result<EvictOutcome, PortError> {
        let mut inodes = self.shared.inodes.lock();
        let Some(inode) = inodes.get_mut(&extent.ino) else { return Ok(EvictOutcome::Skipped) };
        let mut bytes = 0;
        for (chunk, (state, xid, data)) in &mut inode.chunks {
            let goes = extent.chunks.contains(ChunkNo::new(*chunk))
                && *xid == extent.data_xid
                && *state != ChunkState::Cold;
            if goes {
                bytes += to_u64(data.len());
                *state = ChunkState::Cold;
                data.clear();
            }
        }
        Ok(if bytes > 0 { EvictOutcome::Evicted { bytes } } else { EvictOutcome::Skipped })
    }

    fn reclaim(&self) -> Result<u64, PortError> {
        Ok(0)
    }

    fn resident_extents(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ResidentExtent>, PortError> {
        let inodes = self.shared.inodes.lock();
        let runs = inodes.get(&ino).map(|inode| inode.runs(from.get())).unwrap_or_default();
        let resident = |run: &ChunkRun| matches!(run.state, ChunkState::Hot | ChunkState::Warm);
        let extent =
            |run: ChunkRun| ResidentExtent { ino, chunks: run.chunks, data_xid: run.data_xid };
        Ok(runs.into_iter().filter(resident).take(n_max).map(extent).collect())
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        let inodes = self.shared.inodes.lock();
        let warm = |inode: &FakeInode| {
            inode.chunks.values().any(|(state, _, _)| *state == ChunkState::Warm)
        };
        let found = inodes.range(after.next()..).filter(|(_, inode)| warm(inode));
        Ok(found.map(|(ino, _)| *ino).take(n_max).collect())
    }

    fn eviction_facts(&self, ino: Ino) -> Result<Option<EvictionFacts>, PortError> {
        let inodes = self.shared.inodes.lock();
        Ok(inodes.get(&ino).map(|inode| EvictionFacts {
            ino,
            size_bytes: inode.state.attr.size_bytes,
            resident_bytes: inode.chunks.values().map(|(_, _, data)| to_u64(data.len())).sum(),
            last_used: inode.state.attr.modified,
            pinned: false,
        }))
    }

    fn restore_inode(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        let (mut chunks, mut holes) = (BTreeMap::new(), BTreeMap::new());
        for run in runs {
            let ChunkRun { chunks: range, state, data_xid } = run?;
            match state {
                ChunkState::Hole if range.end() == ChunkNo::END => {}
                ChunkState::Hole => {
                    holes.extend((range.start().get()..range.end().get()).map(|c| (c, data_xid)));
                }
                ChunkState::Hot | ChunkState::Warm | ChunkState::Cold => {
                    let cold = |chunk| (chunk, (ChunkState::Cold, data_xid, Vec::new()));
                    chunks.extend((range.start().get()..range.end().get()).map(cold));
                }
            }
        }
        let fake = FakeInode { state: inode.clone(), chunks, holes };
        self.shared.inodes.lock().insert(inode.attr.ino, fake);
        Ok(())
    }

    fn usage(&self) -> Result<Usage, PortError> {
        let inodes = self.shared.inodes.lock();
        let mut usage = Usage { n_inodes: to_u64(inodes.len()), ..Usage::default() };
        for (state, _, data) in inodes.values().flat_map(|inode| inode.chunks.values()) {
            match state {
                ChunkState::Cold => usage.cold_bytes += u64::from(self.shared.chunk_bytes),
                ChunkState::Hole | ChunkState::Hot | ChunkState::Warm => {
                    usage.resident_bytes += to_u64(data.len());
                }
            }
        }
        usage.physical_bytes = usage.resident_bytes;
        Ok(usage)
    }
}
