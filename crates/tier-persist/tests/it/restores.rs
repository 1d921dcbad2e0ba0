//! Restores of restores: what is lost stays lost through all of them until newer content takes its
//! place, and everything else comes back. Never zeros.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tier_index::{Index, IndexError, IndexOptions};
use tier_log::{NetChanges, NetChangesOptions};
use tier_persist::{
    Archive, Fetcher, FetcherOptions, Keys, PersistOptions, PersistReport, PersistRequest,
    Persister, RestoredInodes, ScanMode, Watch,
};
use tier_status::NullSink;
use tier_testkit::{FakeKvs, MemoryStore, VirtualClock};
use tier_types::{
    ChunkNo, ChunkRange, Epoch, ErrorKind, LogService, MountedInstance, ObjectStore, Persisted,
    PortError, Recall, RecallRequest, RecalledExtent, ResidentExtent, SnapshotId, to_u64,
};

use crate::common::{CHUNK, FILESYSTEM, dump, noise};

/// A restore, as a store does it: an index from the archive, and inodes into an empty filesystem.
struct Store {
    dir: tempfile::TempDir,
    objects: Arc<MemoryStore>,
    keys: Arc<Keys>,
    index: Arc<Index>,
    kvs: FakeKvs,
    epoch: Epoch,
    n_snapshots: u64,
}

/// The way back for evicted data.
struct Way(Fetcher);

impl Recall for Way {
    fn recall(&self, request: &RecallRequest) -> Result<RecalledExtent, PortError> {
        Ok(self.0.fetch(request)?)
    }
}

fn open_index(dir: &tempfile::TempDir) -> Arc<Index> {
    Arc::new(Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap())
}

fn way(index: &Arc<Index>, keys: &Arc<Keys>, objects: &Arc<MemoryStore>) -> Arc<Way> {
    let stores: Vec<Arc<dyn ObjectStore>> = vec![objects.clone()];
    let (index, keys) = (Arc::clone(index), Arc::clone(keys));
    Arc::new(Way(Fetcher::new(FILESYSTEM, index, keys, stores, FetcherOptions::default())))
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (objects, index) = (Arc::new(MemoryStore::default()), open_index(&dir));
        let keys = Arc::new(Keys::generate().unwrap().without_encryption());
        let kvs = FakeKvs::with_recall(CHUNK, way(&index, &keys, &objects));
        Self { dir, objects, keys, index, kvs, epoch: Epoch::new(1), n_snapshots: 0 }
    }

    /// What the agent does for a snapshot.
    fn persist(&mut self) -> Option<PersistReport> {
        let publication = self.kvs.log().publish().unwrap()?;
        self.n_snapshots += 1;
        let mounted = self.kvs.open_snapshot(&publication).unwrap();
        let options = NetChangesOptions::new(self.dir.path());
        let changes = NetChanges::of_range(self.kvs.log(), publication.range, &options).unwrap();
        let (keys, index) = (Arc::clone(&self.keys), Arc::clone(&self.index));
        let clock = Arc::new(VirtualClock::at(1_480_000_000));
        let options = PersistOptions {
            n_workers: 1,
            frame_bytes: 2048,
            member_bytes_max: 4096,
            rewrite_bytes_max: 1500,
            ..PersistOptions::default()
        };
        let persister =
            Persister::new(FILESYSTEM, self.objects.clone(), keys, index, clock, options);
        let report = persister
            .persist(&mut PersistRequest {
                epoch: self.epoch,
                snapshot: SnapshotId::new(self.n_snapshots),
                range: publication.range,
                mounted: mounted.as_ref(),
                updates: &mut changes.map(|update| update.map_err(PortError::from)),
                status: &NullSink,
                stop: &AtomicBool::new(false),
            })
            .unwrap();
        assert_eq!(report.failed, [], "what cannot be read of a file costs nothing else of it");
        Some(report)
    }

    /// Everything but the objects is gone, and comes back from them.
    fn restore(self) -> (Self, RestoredInodes) {
        let last = self.kvs.log().last_xid();
        let archive = Archive::open(self.objects.as_ref(), &self.keys, FILESYSTEM).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let index = open_index(&dir);
        archive.rebuild_index(&index, ScanMode::Tables, &mut Watch::default()).unwrap();
        assert_eq!(dump(&index), dump(&self.index), "live and regenerated are the same");
        let kvs = FakeKvs::empty(CHUNK, way(&index, &self.keys, &self.objects), last);
        let restored = archive.restore_into(&index, &kvs, &mut |_| {}).unwrap();
        drop(archive);
        let epoch = self.epoch.next();
        (Self { dir, index, kvs, epoch, ..self }, restored)
    }

    /// Compares the index with one that a scan of all members makes.
    fn check_scan(&self) {
        let archive = Archive::open(self.objects.as_ref(), &self.keys, FILESYSTEM).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let scanned = open_index(&dir);
        archive.rebuild_index(&scanned, ScanMode::Full, &mut Watch::default()).unwrap();
        assert_eq!(dump(&scanned), dump(&self.index), "by members it is the same");
    }

    /// Evicts every chunk of which the archive has exactly this version.
    fn evict(&self, name: &str) {
        let ino = self.kvs.ino(name);
        for extent in self.kvs.resident_extents(ino, ChunkNo::new(0), usize::MAX).unwrap() {
            for number in extent.chunks.start().get()..extent.chunks.end().get() {
                let chunks = ChunkRange::one(ChunkNo::new(number)).unwrap();
                let data_xid = extent.data_xid;
                if self.index.is_persisted(ino, chunks, data_xid).unwrap() {
                    self.kvs.evict_extent(&ResidentExtent { chunks, ..extent }).unwrap();
                }
            }
        }
    }

    fn is_resident(&self, name: &str, number: u64) -> bool {
        let ino = self.kvs.ino(name);
        let extents = self.kvs.resident_extents(ino, ChunkNo::new(0), usize::MAX).unwrap();
        extents.iter().any(|extent| extent.chunks.contains(ChunkNo::new(number)))
    }
}

const N_CHUNKS: usize = 14;
const CHUNK_LEN: usize = 512;

/// What a chunk is, here or in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Hole,
    Data,
    /// Its content is gone: damaged here, or lost in the archive.
    Bad,
}

/// One chunk of the oracle.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cell {
    state: State,
    /// Every change of content has its own.
    version: u64,
    content: Vec<u8>,
}

#[derive(Clone, Debug)]
struct OracleFile {
    len: usize,
    cells: Vec<Cell>,
}

impl OracleFile {
    fn new() -> Self {
        let never_written = Cell { state: State::Hole, version: 0, content: vec![0; CHUNK_LEN] };
        Self { len: 0, cells: vec![never_written; N_CHUNKS] }
    }

    /// Bytes of a chunk that lie in the file.
    fn len_in(&self, number: usize) -> usize {
        self.len.saturating_sub(number * CHUNK_LEN).min(CHUNK_LEN)
    }

    /// Whether a write may be made: no part of a chunk without content would stay.
    fn write(&mut self, offset: usize, new: &[u8], version: u64) -> bool {
        let end = offset + new.len();
        let touched = offset / CHUNK_LEN..end.div_ceil(CHUNK_LEN);
        let keeps = |number: usize| {
            let start = number * CHUNK_LEN;
            let chunk_end = start + self.len_in(number);
            start < chunk_end && (start < offset || end < chunk_end)
        };
        let kept: Vec<_> = touched.clone().map(keeps).collect();
        let mut bad = touched.clone().zip(&kept);
        if bad.any(|(number, kept)| *kept && self.cells[number].state == State::Bad) {
            return false;
        }
        for (number, kept) in touched.zip(kept) {
            let cell = &mut self.cells[number];
            if !kept {
                cell.content.fill(0);
            }
            (cell.state, cell.version) = (State::Data, version);
            let start = number * CHUNK_LEN;
            for at in offset.max(start)..end.min(start + CHUNK_LEN) {
                cell.content[at - start] = new[at - offset];
            }
        }
        self.len = self.len.max(end);
        true
    }

    /// The same of a cut.
    fn truncate(&mut self, len: usize, version: u64) -> bool {
        if len < self.len {
            let (cut, kept) = (len / CHUNK_LEN, len % CHUNK_LEN);
            if kept > 0 && self.cells[cut].state == State::Bad {
                return false;
            }
            if kept > 0 && self.cells[cut].state == State::Data {
                self.cells[cut].version = version;
                self.cells[cut].content[kept..].fill(0);
            }
            let first_gone = cut + usize::from(kept > 0);
            self.punch(first_gone..N_CHUNKS, version);
        }
        self.len = len;
        true
    }

    fn punch(&mut self, chunks: Range<usize>, version: u64) {
        for cell in &mut self.cells[chunks] {
            *cell = Cell { state: State::Hole, version, content: vec![0; CHUNK_LEN] };
        }
    }
}

/// What must be read: of the filesystem, and of its archive. Neither ever makes zeros of data.
#[derive(Default, Debug)]
struct Oracle {
    live: BTreeMap<String, OracleFile>,
    archived: BTreeMap<String, OracleFile>,
    version: u64,
}

impl Oracle {
    fn persist(&mut self) {
        let before = std::mem::replace(&mut self.archived, self.live.clone());
        for (name, file) in &mut self.archived {
            let Some(before) = before.get(name) else { continue };
            for (cell, before) in file.cells.iter_mut().zip(&before.cells) {
                // What was archived of this version is what the archive has of it.
                if cell.version == before.version {
                    *cell = before.clone();
                }
            }
        }
    }

    /// Evicting a chunk whose version is archived heals it: it comes back from there.
    fn evict(&mut self, name: &str) {
        let (Some(file), Some(archived)) = (self.live.get_mut(name), self.archived.get(name))
        else {
            return;
        };
        for (cell, archived) in file.cells.iter_mut().zip(&archived.cells) {
            if cell.version == archived.version && archived.state == State::Data {
                *cell = archived.clone();
            }
        }
    }

    /// Compares every chunk, as it is read.
    fn check(&self, kvs: &FakeKvs) {
        for (name, file) in &self.live {
            for (number, cell) in file.cells.iter().enumerate() {
                let len = file.len_in(number);
                if len == 0 {
                    continue;
                }
                let read = kvs.read_chunk(name, to_u64(number));
                match cell.state {
                    State::Hole | State::Data => {
                        assert!(read.unwrap() == cell.content[..len], "{name}, chunk {number}");
                    }
                    State::Bad => {
                        let error = read.expect_err("what has no content is an error");
                        assert_eq!(error.kind(), ErrorKind::Damaged, "{name}, {number}: {error}");
                    }
                }
            }
        }
    }

    /// Compares what the index knows as lost, chunk by chunk.
    fn check_lost(&self, store: &Store) {
        let mut found = Vec::new();
        store
            .index
            .visit_lost(&mut |extent| {
                let numbers = extent.chunks.start().get()..extent.chunks.end().get();
                found.extend(numbers.map(|number| (extent.ino, number)));
                Ok::<_, IndexError>(())
            })
            .unwrap();
        let mut expected = Vec::new();
        for (name, file) in &self.archived {
            let bad = (0..).zip(&file.cells).filter(|(_, cell)| cell.state == State::Bad);
            expected.extend(bad.map(|(number, _)| (store.kvs.ino(name), number)));
        }
        expected.sort();
        assert_eq!(found, expected);
    }

    fn lost_bytes(&self) -> u64 {
        let of = |file: &OracleFile| {
            let bad = file.cells.iter().enumerate().filter(|(_, cell)| cell.state == State::Bad);
            bad.map(|(number, _)| to_u64(file.len_in(number))).sum::<u64>()
        };
        self.archived.values().map(of).sum()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write { file: usize, offset: usize, len: usize },
    Truncate { file: usize, len: usize },
    Punch { file: usize, start: usize, len: usize },
    Remove { file: usize },
    Damage { file: usize, chunk: usize },
    Evict { file: usize },
    Snapshot,
    Restore,
}

fn op() -> impl Strategy<Value = Op> {
    let file = || 0..3_usize;
    let bytes = N_CHUNKS * CHUNK_LEN;
    let chunk_at = |at: usize| at / CHUNK_LEN * CHUNK_LEN;
    prop_oneof![
        3 => (file(), 0..bytes - 1, 1..3000_usize)
            .prop_map(|(file, offset, len)| Op::Write { file, offset, len }),
        3 => (file(), 0..bytes - 1, 1..6_usize).prop_map(move |(file, at, n)| {
            Op::Write { file, offset: chunk_at(at), len: n * CHUNK_LEN }
        }),
        1 => (file(), 0..bytes).prop_map(|(file, len)| Op::Truncate { file, len }),
        1 => (file(), 0..N_CHUNKS - 1, 1..5_usize)
            .prop_map(|(file, start, len)| Op::Punch { file, start, len }),
        1 => file().prop_map(|file| Op::Remove { file }),
        6 => (file(), 0..N_CHUNKS).prop_map(|(file, chunk)| Op::Damage { file, chunk }),
        2 => file().prop_map(|file| Op::Evict { file }),
        3 => Just(Op::Snapshot),
        2 => Just(Op::Restore),
    ]
}

/// Carries one operation out on both.
fn apply(op: Op, mut store: Store, oracle: &mut Oracle) -> Store {
    oracle.version += 1;
    let version = oracle.version;
    let name = |file: usize| format!("f{file}");
    match op {
        Op::Write { file, offset, len } => {
            let name = name(file);
            let len = len.min(N_CHUNKS * CHUNK_LEN - offset);
            // Never zero, so that zeros are never taken for data.
            let new: Vec<_> = noise(len, version).into_iter().map(|byte| byte | 1).collect();
            if !oracle.live.contains_key(&name) {
                store.kvs = store.kvs.file(&name, b"");
                oracle.live.insert(name.clone(), OracleFile::new());
            }
            let model = oracle.live.get_mut(&name).unwrap();
            let is_made = model.write(offset, &new, version);
            let written = store.kvs.try_write(&name, to_u64(offset), &new);
            assert_eq!(written.map_err(|error| error.kind()).is_ok(), is_made);
        }
        Op::Truncate { file, len } => {
            let Some(model) = oracle.live.get_mut(&name(file)) else { return store };
            let is_made = model.truncate(len, version);
            assert_eq!(store.kvs.try_truncate(&name(file), to_u64(len)).is_ok(), is_made);
        }
        Op::Punch { file, start, len } => {
            let Some(model) = oracle.live.get_mut(&name(file)) else { return store };
            let end = (start + len).min(N_CHUNKS);
            model.punch(start..end, version);
            store.kvs = store.kvs.punch(&name(file), to_u64(start)..to_u64(end));
        }
        Op::Remove { file } => {
            if oracle.live.remove(&name(file)).is_some() {
                store.kvs = store.kvs.remove(&name(file));
            }
        }
        Op::Damage { file, chunk } => {
            let Some(model) = oracle.live.get_mut(&name(file)) else { return store };
            let cell = &mut model.cells[chunk];
            if cell.state == State::Data && store.is_resident(&name(file), to_u64(chunk)) {
                cell.state = State::Bad;
                store.kvs = store.kvs.damage(&name(file), to_u64(chunk));
            }
        }
        Op::Evict { file } => {
            if oracle.live.contains_key(&name(file)) {
                store.evict(&name(file));
                oracle.evict(&name(file));
            }
        }
        Op::Snapshot => {
            if store.persist().is_some() {
                oracle.persist();
            }
        }
        Op::Restore if store.n_snapshots > 0 => {
            let (restored, inodes) = store.restore();
            oracle.live = oracle.archived.clone();
            assert_eq!(inodes.lost.n_bytes(), oracle.lost_bytes());
            oracle.check_lost(&restored);
            return restored;
        }
        Op::Restore => {}
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Through any history of writes, damage, evictions, snapshots and restores of restores each
    /// chunk is bytes, zeros, or an error, as the oracle says: data never becomes zeros.
    #[test]
    fn what_is_lost_stays_lost_and_nothing_else_does(ops in prop::collection::vec(op(), 1..50)) {
        let (mut store, mut oracle) = (Store::new(), Oracle::default());
        for op in ops {
            store = apply(op, store, &mut oracle);
            oracle.check(&store.kvs);
        }
        // Whatever came last: one more snapshot, and a restore of it, twice.
        for op in [Op::Snapshot, Op::Restore, Op::Restore] {
            store = apply(op, store, &mut oracle);
            oracle.check(&store.kvs);
        }
        store.check_scan();
    }
}
