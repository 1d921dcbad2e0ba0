//! A persister over a fake filesystem.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tier_cloud::DirStore;
use tier_index::{Index, IndexOptions};
use tier_log::{NetChanges, NetChangesOptions, OpenedSegment};
use tier_persist::{
    Archive, ArchivedSegment, CheckpointReport, CheckpointRequest, Fetcher, FetcherOptions,
    FilesystemId, History, Keys, OpenSegment, PartBounds, PartsSoFar, PersistError, PersistOptions,
    PersistReport, PersistRequest, Persister, ScanMode, Watch, WriterToken,
};
pub(crate) use tier_testkit::noise;
use tier_testkit::{FakeKvs, RecordingSink, VirtualClock};
use tier_types::{
    Call, Change, ChunkRange, Epoch, ErrorKind, FileUpdate, Ino, LogReader, LogService,
    MountedInstance, ObjectName, ObjectStore, PortError, Publication, Recall, RecallHint,
    RecallRequest, RecalledExtent, SnapshotId, Xid, XidRange,
};

use crate::faulty::{Faults, FaultySnapshot};

pub(crate) const CHUNK: u32 = 512;

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) kvs: FakeKvs,
    pub(crate) keys: Arc<Keys>,
    pub(crate) index: Arc<Index>,
    pub(crate) sink: RecordingSink,
    pub(crate) options: PersistOptions,
    n_snapshots: u64,
    /// The first transaction that is in no snapshot.
    first: Xid,
    /// Inodes that the last snapshot could not read in full.
    pub(crate) failed: Vec<Ino>,
}

/// The way back for evicted data.
pub(crate) struct Way(pub(crate) Fetcher);

impl Recall for Way {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        Ok(self.0.fetch(request)?)
    }
}

/// What a snapshot goes through, as an agent puts it together: the net changes, and altogether what
/// failed before.
pub(crate) fn updates(changes: NetChanges, failed: &[Ino]) -> Vec<FileUpdate> {
    let mut updates = BTreeMap::new();
    for ino in failed {
        let change = Change::Touched(vec![ChunkRange::ALL]);
        updates.insert(*ino, FileUpdate { ino: *ino, change });
    }
    for update in changes.map(Result::unwrap) {
        let is_covered = updates.contains_key(&update.ino);
        if !is_covered || matches!(update.change, Change::Gone(_)) {
            updates.insert(update.ino, update);
        }
    }
    updates.into_values().collect()
}

/// The log segments of some transactions.
pub(crate) fn segments(
    log: &dyn LogService,
    range: XidRange,
) -> impl Iterator<Item = Result<OpenSegment, PortError>> + '_ {
    log.segments(range).unwrap().into_iter().map(|segment| {
        let bytes = log.open_segment(&segment)?;
        Ok(OpenSegment { range: segment.range, name: segment.name, bytes })
    })
}

/// Shows what archived segments say.
pub(crate) fn read_log(
    segments: &mut dyn Iterator<Item = Result<ArchivedSegment, PortError>>,
    range: XidRange,
    show: &mut dyn FnMut(FileUpdate),
) -> Result<(), PortError> {
    let opened = segments.map(|segment| {
        let ArchivedSegment { range, name, content } = segment?;
        Ok(OpenedSegment { range, name, source: Box::new(Cursor::new(content)) })
    });
    let options = NetChangesOptions::new(std::env::temp_dir());
    for update in NetChanges::of_segments(opened, range, &options)? {
        show(update?);
    }
    Ok(())
}

pub(crate) const FILESYSTEM: FilesystemId = FilesystemId::from_bytes([0x5a; 16]);

impl Fixture {
    pub(crate) fn new(kvs: FakeKvs, keys: Keys) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let index = Arc::new(Index::open(&path, CHUNK, &IndexOptions::default()).unwrap());
        let options = PersistOptions {
            n_workers: 2,
            frame_bytes: 4096,
            member_bytes_max: 8192,
            rewrite_bytes_max: 600,
            ..PersistOptions::default()
        };
        let (keys, sink) = (Arc::new(keys), RecordingSink::default());
        let (first, failed) = (Xid::new(1), Vec::new());
        Self { dir, kvs, keys, index, sink, options, n_snapshots: 0, first, failed }
    }

    /// How many steps there are.
    pub(crate) fn n_snapshots(&self) -> u64 {
        self.n_snapshots
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    pub(crate) fn store(&self) -> DirStore {
        DirStore::create(&self.root()).unwrap()
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(FakeKvs) -> FakeKvs) {
        self.kvs = change(self.kvs.clone());
    }

    pub(crate) fn persist(&mut self) -> PersistReport {
        self.persist_with(&Faults::of(ErrorKind::Failed)).unwrap()
    }

    /// Persists what was not persisted, through a snapshot of which some reads fail.
    pub(crate) fn persist_with(&mut self, faults: &Faults) -> Result<PersistReport, PersistError> {
        self.try_persist(faults, &AtomicBool::new(false))
    }

    pub(crate) fn try_persist(
        &mut self,
        faults: &Faults,
        stop: &AtomicBool,
    ) -> Result<PersistReport, PersistError> {
        let publication = self.kvs.log().publish().unwrap().unwrap();
        // An attempt that failed leaves its transactions to the next one.
        let range = XidRange::new(self.first, publication.range.end()).unwrap();
        self.persist_part(faults, stop, range, None)
    }

    /// Persists what was not persisted in parts; how many there were.
    pub(crate) fn persist_in_parts(&mut self) -> u64 {
        self.persist_in_parts_while(|kvs, _| kvs)
    }

    /// The same; the filesystem is changed behind each part, of which the number is given.
    pub(crate) fn persist_in_parts_while(
        &mut self,
        mut change: impl FnMut(FakeKvs, u64) -> FakeKvs,
    ) -> u64 {
        let start = self.first;
        let (faults, stop) = (Faults::of(ErrorKind::Failed), AtomicBool::new(false));
        let (mut part, mut n_parts, mut end) = (None, 0, start);
        loop {
            end = self.kvs.log().publish().unwrap().map_or(end, |new| new.range.end());
            let range = XidRange::new(start, end).unwrap();
            let report = self.persist_part(&faults, &stop, range, part).unwrap();
            n_parts += 1;
            let Some(covered) = report.covered else { return n_parts };
            part = Some(PartsSoFar { covered, last_xid: range.last() });
            self.change(|kvs| change(kvs, n_parts));
        }
    }

    fn persist_part(
        &mut self,
        faults: &Faults,
        stop: &AtomicBool,
        range: XidRange,
        part: Option<PartsSoFar>,
    ) -> Result<PersistReport, PersistError> {
        let inner = self.kvs.open_snapshot(&Publication { range }).unwrap();
        let mounted = FaultySnapshot { inner, faults };
        let options = NetChangesOptions::new(self.dir.path());
        let changes = NetChanges::of_range(self.kvs.log(), range, &options).unwrap();
        let mut updates = updates(changes, &self.failed);
        if let Some(PartsSoFar { covered, last_xid }) = part {
            updates.retain(|update| update.ino > covered);
            // Of what earlier parts reached, what changed since.
            if let Some(since) = XidRange::new(last_xid.next(), range.end()) {
                let since = NetChanges::of_range(self.kvs.log(), since, &options).unwrap();
                let since = since.map(Result::unwrap).filter(|update| update.ino <= covered);
                updates = since.chain(updates).collect();
            }
        }
        let report = self.persister().persist(&mut PersistRequest {
            epoch: Epoch::new(1),
            writer: WriterToken::from_bytes([1; 16]),
            snapshot: SnapshotId::new(self.n_snapshots + 1),
            range,
            part,
            failed_before: &self.failed,
            n_looked_at: 0,
            mounted: &mounted,
            updates: &mut updates.into_iter().map(Ok),
            segments: &mut segments(self.kvs.log(), range),
            bounds: PartBounds::NONE,
            on_sealed: &|_| {},
            status: &self.sink,
            stop,
        })?;
        self.n_snapshots += 1;
        self.first = range.end();
        self.failed.clone_from(&report.failed);
        Ok(report)
    }

    fn persister(&self) -> Persister {
        let clock = Arc::new(VirtualClock::at(1_480_000_000));
        let (keys, index) = (Arc::clone(&self.keys), Arc::clone(&self.index));
        Persister::new(FILESYSTEM, Arc::new(self.store()), keys, index, clock, self.options)
    }

    /// Commits a checkpoint; of the filesystem some reads fail.
    pub(crate) fn checkpoint_with(
        &mut self,
        faults: &Faults,
        reuse: bool,
    ) -> Result<CheckpointReport, PersistError> {
        let range = XidRange::new(Xid::new(1), self.first).unwrap();
        let inner = self.kvs.open_snapshot(&Publication { range }).unwrap();
        let store = self.store();
        let history = History::new(Arc::clone(&self.index));
        let archive = history.archive(vec![&store], &self.keys, FILESYSTEM)?;
        let report = self.persister().checkpoint(&CheckpointRequest {
            epoch: Epoch::new(1),
            writer: WriterToken::from_bytes([1; 16]),
            snapshot: SnapshotId::new(self.n_snapshots + 1),
            archive: &archive,
            is_whole: &|_| reuse,
            mounted: &FaultySnapshot { inner, faults },
            status: &self.sink,
            stop: &AtomicBool::new(false),
        })?;
        self.n_snapshots += 1;
        Ok(report)
    }

    pub(crate) fn checkpoint(&mut self) -> CheckpointReport {
        self.checkpoint_with(&Faults::of(ErrorKind::Failed), true).unwrap()
    }

    /// A filesystem that is made of the objects.
    pub(crate) fn restored(&self) -> FakeKvs {
        let store = self.store();
        let archive = Archive::open(&store, &self.keys, FILESYSTEM).unwrap();
        let way = Arc::new(Way(self.fetcher()));
        let kvs = FakeKvs::empty(CHUNK, way, self.kvs.log().last_xid());
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
        let salvaged = archive.salvage_index(&index, &read_log, &mut Watch::default()).unwrap();
        archive.restore_into(&index, &kvs, &salvaged, &mut |_| {}).unwrap();
        kvs
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        let (index, keys) = (Arc::clone(&self.index), Arc::clone(&self.keys));
        let stores: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(self.store())];
        Fetcher::new(FILESYSTEM, index, keys, stores, FetcherOptions::default())
    }

    pub(crate) fn tarballs(&self) -> Vec<ObjectName> {
        let names = self.store().names(&Call::bulk(), "").unwrap();
        names.into_iter().filter(|name| name.as_str().contains(".tar.zst")).collect()
    }

    pub(crate) fn dump(&self) -> String {
        dump(&self.index)
    }

    pub(crate) fn regenerated(&self, mode: ScanMode) -> Result<String, PersistError> {
        let store = self.store();
        let archive = Archive::open(&store, &self.keys, FILESYSTEM)?;
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
        let damages = archive.rebuild_index(&index, mode, &mut Watch::default())?;
        match damages.into_iter().next() {
            Some(damage) => Err(PersistError::Missing(damage.problem)),
            None => Ok(dump(&index)),
        }
    }

    /// What a full scan finds, and what it finds to be damaged.
    pub(crate) fn scanned(&self) -> (String, Vec<tier_persist::Damage>) {
        let store = self.store();
        let archive = Archive::open(&store, &self.keys, FILESYSTEM).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
        let damages = archive.rebuild_index(&index, ScanMode::Full, &mut Watch::default()).unwrap();
        (dump(&index), damages)
    }
}

pub(crate) fn dump(index: &Index) -> String {
    let mut out = Vec::new();
    index.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}
