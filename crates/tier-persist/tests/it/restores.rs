//! Restores of restores: what is lost stays lost through all of them until newer content takes its
//! place, and everything else comes back. Never zeros.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tier_index::{Index, IndexOptions};
use tier_log::{NetChanges, NetChangesOptions};
use tier_persist::{
    Archive, CheckpointRequest, Fetcher, FetcherOptions, History, Keys, PartBounds, PersistOptions,
    PersistRequest, Persister, RestoredInodes, ScanMode, Watch, WriterToken,
};
use tier_status::NullSink;
use tier_testkit::{FakeKvs, MemoryStore, OneByOne, VirtualClock};
use tier_types::{
    ChunkNo, Epoch, ErrorKind, Ino, LogReader, LogService, MountedInstance, ObjectStore,
    PersistedPart, ResidentExtent, SnapshotId, persisted_parts, to_u64,
};

use crate::common::{CHUNK, FILESYSTEM, Way, dump, noise, read_log, segments, updates};
use crate::faulty::{Faults, FaultySnapshot};
use crate::oracle::{CHUNK_LEN, N_CHUNKS, Oracle, OracleFile, State, Unread};

/// A restore, as a store does it: an index from the archive, and inodes into an empty filesystem.
struct Store {
    dir: tempfile::TempDir,
    objects: Arc<MemoryStore>,
    keys: Arc<Keys>,
    index: Arc<Index>,
    kvs: FakeKvs,
    epoch: Epoch,
    n_snapshots: u64,
    /// Inodes that the last snapshot could not read in full.
    failed: Vec<Ino>,
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
        let (epoch, n_snapshots, failed) = (Epoch::new(1), 0, Vec::new());
        Self { dir, objects, keys, index, kvs, epoch, n_snapshots, failed }
    }

    /// What the agent does for a snapshot. Nothing fails but what is told to.
    fn persist(&mut self, faults: &Faults, checkpoint: bool) -> Option<()> {
        let publication = self.kvs.log().publish().unwrap()?;
        self.n_snapshots += 1;
        let inner = self.kvs.open_snapshot(&publication).unwrap();
        let mounted = FaultySnapshot { inner, faults };
        let options = NetChangesOptions::new(self.dir.path());
        let changes = NetChanges::of_range(self.kvs.log(), publication.range, &options).unwrap();
        let (keys, index) = (Arc::clone(&self.keys), Arc::clone(&self.index));
        let clock = Arc::new(VirtualClock::at(1_480_000_000));
        let options = PersistOptions {
            n_workers: 1,
            frame_bytes: 2048,
            member_bytes_max: 4096,
            rewrite_bytes_max: 1500,
            object_bytes: 100,
            ..PersistOptions::default()
        };
        let persister =
            Persister::new(FILESYSTEM, self.objects.clone(), keys, index, clock, options);
        let report = persister
            .persist(&mut PersistRequest {
                epoch: self.epoch,
                writer: WriterToken::from_bytes([1; 16]),
                snapshot: SnapshotId::new(self.n_snapshots),
                range: publication.range,
                part: None,
                failed_before: &[],
                n_looked_at: 0,
                mounted: &mounted,
                updates: &mut updates(changes, &self.failed).into_iter().map(Ok),
                segments: &mut segments(self.kvs.log(), publication.range),
                bounds: PartBounds::NONE,
                on_sealed: &|_| {},
                status: &NullSink,
                stop: &AtomicBool::new(false),
            })
            .unwrap();
        let met = [faults.met_chunks(), faults.met_maps()].concat();
        assert_eq!(report.failed, met, "damage is no failure, and what was read is none any more");
        self.failed = report.failed;
        if checkpoint {
            self.n_snapshots += 1;
            let history = History::new(Arc::clone(&self.index));
            let stores: Vec<&dyn ObjectStore> = vec![self.objects.as_ref()];
            let archive = history.archive(stores, &self.keys, FILESYSTEM).unwrap();
            persister
                .checkpoint(&CheckpointRequest {
                    epoch: self.epoch,
                    writer: WriterToken::from_bytes([1; 16]),
                    snapshot: SnapshotId::new(self.n_snapshots),
                    archive: &archive,
                    is_whole: &|_| true,
                    mounted: &mounted,
                    status: &NullSink,
                    stop: &AtomicBool::new(false),
                })
                .unwrap();
        }
        Some(())
    }

    /// Everything but the objects is gone, and comes back from them.
    fn restore(self) -> (Self, RestoredInodes) {
        let last = self.kvs.log().last_xid();
        let archive = Archive::open(self.objects.as_ref(), &self.keys, FILESYSTEM).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let index = open_index(&dir);
        let salvaged = archive.salvage_index(&index, &read_log, &mut Watch::default()).unwrap();
        assert_eq!(dump(&index), dump(&self.index), "live and by a checkpoint are the same");
        self.check_regenerated(&archive, ScanMode::Tables);
        let kvs = FakeKvs::empty(CHUNK, way(&index, &self.keys, &self.objects), last);
        let restored = archive.restore_into(&index, &kvs, &salvaged, &mut |_| {}).unwrap();
        assert_eq!(restored.damages, []);
        drop(archive);
        let epoch = self.epoch.next();
        (Self { dir, index, kvs, epoch, ..self }, restored)
    }

    /// Compares the index with one that a scan of all members makes.
    fn check_scan(&self) {
        let archive = Archive::open(self.objects.as_ref(), &self.keys, FILESYSTEM).unwrap();
        self.check_regenerated(&archive, ScanMode::Full);
    }

    fn check_regenerated(&self, archive: &Archive<'_>, mode: ScanMode) {
        let dir = tempfile::tempdir().unwrap();
        let index = open_index(&dir);
        archive.rebuild_index(&index, mode, &mut Watch::default()).unwrap();
        assert_eq!(dump(&index), dump(&self.index), "live and regenerated are the same: {mode:?}");
    }

    /// Evicts every chunk of which the archive has exactly this version.
    fn evict(&self, name: &str) {
        let ino = self.kvs.ino(name);
        for extent in self.kvs.resident_of(ino, ChunkNo::new(0), usize::MAX).unwrap() {
            let ResidentExtent { chunks, data_xid, .. } = extent;
            for part in persisted_parts(self.index.as_ref(), ino, chunks, data_xid) {
                let PersistedPart { chunks, is_persisted } = part.unwrap();
                if is_persisted {
                    self.kvs.evict_extent(&ResidentExtent { chunks, ..extent }).unwrap();
                }
            }
        }
    }

    fn is_resident(&self, name: &str, number: u64) -> bool {
        let ino = self.kvs.ino(name);
        let extents = self.kvs.resident_of(ino, ChunkNo::new(0), usize::MAX).unwrap();
        extents.iter().any(|extent| extent.chunks.contains(ChunkNo::new(number)))
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Write { file: usize, offset: usize, len: usize },
    Truncate { file: usize, len: usize },
    Punch { file: usize, start: usize, len: usize },
    Remove { file: usize },
    Damage { file: usize, chunk: usize },
    Evict { file: usize },
    Snapshot { fault: Option<Fault>, checkpoint: bool },
    Restore,
}

/// What fails while a snapshot is taken, and passes.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Chunk { file: usize, chunk: usize },
    Map { file: usize },
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => (0..3_usize, 0..N_CHUNKS).prop_map(|(file, chunk)| Fault::Chunk { file, chunk }),
        1 => (0..3_usize).prop_map(|file| Fault::Map { file }),
    ]
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
        3 => any::<bool>().prop_map(|checkpoint| Op::Snapshot { fault: None, checkpoint }),
        3 => (fault(), any::<bool>())
            .prop_map(|(fault, checkpoint)| Op::Snapshot { fault: Some(fault), checkpoint }),
        2 => Just(Op::Restore),
    ]
}

fn name(file: usize) -> String {
    format!("f{file}")
}

/// Takes a snapshot, and tells the oracle what of it failed.
fn snapshot(fault: Option<Fault>, checkpoint: bool, store: &mut Store, oracle: &mut Oracle) {
    let mut faults = Faults::of(ErrorKind::Failed);
    let mut unread = Unread::default();
    let ino = |file| oracle.live.contains_key(&name(file)).then(|| store.kvs.ino(&name(file)));
    match fault {
        Some(Fault::Chunk { file, chunk }) => {
            if let Some(ino) = ino(file) {
                faults = faults.chunk(ino, to_u64(chunk));
                unread.chunk = Some((name(file), chunk));
            }
        }
        Some(Fault::Map { file }) => {
            if let Some(ino) = ino(file) {
                faults = faults.map(ino, 0, 0);
                unread.file = Some(name(file));
            }
        }
        None => {}
    }
    if store.persist(&faults, checkpoint).is_some() {
        // What was not asked for did not fail.
        unread.chunk.take_if(|_| faults.met_chunks().is_empty());
        unread.file.take_if(|_| faults.met_maps().is_empty());
        oracle.persist(&unread);
        // At once, because a later snapshot may have read it before a restore comes.
        oracle.check_lost(&store.index, &store.kvs);
    }
}

/// Carries one operation out on both.
fn apply(op: Op, mut store: Store, oracle: &mut Oracle) -> Store {
    oracle.version += 1;
    let version = oracle.version;
    match op {
        Op::Write { file, offset, len } => {
            let name = name(file);
            let len = len.min(N_CHUNKS * CHUNK_LEN - offset);
            // Never zero, so that zeros are never taken for data.
            let new: Vec<_> = noise(len, version).into_iter().map(|byte| byte | 1).collect();
            if !oracle.live.contains_key(&name) {
                store.kvs = store.kvs.file(&name, b"");
                oracle.live.insert(name.clone(), OracleFile::new(version));
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
        Op::Snapshot { fault, checkpoint } => snapshot(fault, checkpoint, &mut store, oracle),
        Op::Restore if store.n_snapshots > 0 => {
            let (restored, inodes) = store.restore();
            oracle.live = oracle.archived.clone();
            assert_eq!(inodes.lost.n_bytes(), oracle.lost_bytes());
            oracle.check_lost(&restored.index, &restored.kvs);
            return restored;
        }
        Op::Restore => {}
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Through any history of writes, damage, failures that pass, evictions, snapshots and restores
    /// of restores each chunk is bytes, zeros, or an error, as the oracle says: data never becomes
    /// zeros, nor older data, and a failure leaves nothing behind once it has passed.
    #[test]
    fn what_is_lost_stays_lost_and_nothing_else_does(ops in prop::collection::vec(op(), 1..50)) {
        let (mut store, mut oracle) = (Store::new(), Oracle::default());
        for op in ops {
            store = apply(op, store, &mut oracle);
            oracle.check(&store.kvs);
        }
        // Whatever came last: one more snapshot, and a restore of it, twice.
        for op in [Op::Snapshot { fault: None, checkpoint: true }, Op::Restore, Op::Restore] {
            store = apply(op, store, &mut oracle);
            oracle.check(&store.kvs);
        }
        store.check_scan();
    }
}
