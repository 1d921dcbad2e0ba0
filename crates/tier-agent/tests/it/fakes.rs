//! Stages over a filesystem and stores in memory, each behind a wrapper that breaks or counts.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tier_agent::decide::SpaceMarks;
use tier_agent::{Arrival, CloudPort, DeletionQueue, Floor, StatusBook, StorePorts, StoreStages};
use tier_cloud::ObjectCache;
use tier_evict::{AgeAndSize, Evicter};
use tier_index::{Index, IndexOptions};
use tier_persist::{FilesystemId, History, Keys, PersistOptions, Persister, WriterToken};
use tier_status::Place;
use tier_testkit::{FakeKvs, FaultyStore, MemoryStore, RecordingSink, VirtualClock};
use tier_types::{
    Clock, CloudId, CloudPlace, Epoch, ErrorKind, LogReader, LogService, ObjectName, ObjectStore,
    PortError, Publication, PublicationListener, SegmentInfo, StagedObject, StagingStore,
    StoreLayer, Xid, XidRange,
};

pub(crate) const CHUNK: u32 = 512;
const CLOUD_ID: CloudId = CloudId::from_bytes([5; 16]);

/// A log that counts the KVS snapshots that its publications hold.
pub(crate) struct CountingLog {
    kvs: FakeKvs,
    n_held: AtomicI64,
    pub(crate) release_fails: AtomicBool,
}

impl CountingLog {
    pub(crate) fn n_held(&self) -> i64 {
        self.n_held.load(Ordering::Relaxed)
    }
}

impl LogReader for CountingLog {
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        self.kvs.log().segments(range)
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        self.kvs.log().open_segment(segment)
    }

    fn last_xid(&self) -> Xid {
        self.kvs.log().last_xid()
    }
}

impl LogService for CountingLog {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        let publication = self.kvs.log().publish()?;
        self.n_held.fetch_add(i64::from(publication.is_some()), Ordering::Relaxed);
        Ok(publication)
    }

    fn on_publication(&self, listener: PublicationListener) {
        self.kvs.log().on_publication(listener);
    }

    fn release(&self, publication: &Publication) -> Result<(), PortError> {
        if self.release_fails.load(Ordering::Relaxed) {
            return Err(PortError::new(ErrorKind::Failed, "cannot release"));
        }
        self.n_held.fetch_sub(1, Ordering::Relaxed);
        self.kvs.log().release(publication)
    }

    fn retire_segments(&self, xid: Xid) -> Result<(), PortError> {
        self.kvs.log().retire_segments(xid)
    }
}

/// A local store in which, while it is full, no object can be begun.
pub(crate) struct LocalStore {
    memory: Arc<MemoryStore>,
    /// The same, and counts what is asked of it.
    pub(crate) counted: FaultyStore,
    pub(crate) is_full: AtomicBool,
}

impl StagingStore for LocalStore {
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(PortError::new(ErrorKind::Failed, "no space left on the device"));
        }
        self.memory.stage(name)
    }

    fn discard_staged(&self) -> Result<(), PortError> {
        self.memory.discard_staged()
    }
}

impl StoreLayer for LocalStore {
    fn inner(&self) -> &dyn ObjectStore {
        &self.counted
    }
}

/// Stages, and everything that a test looks at behind them.
pub(crate) struct Fakes {
    pub(crate) stages: StoreStages,
    pub(crate) kvs: FakeKvs,
    pub(crate) log: Arc<CountingLog>,
    pub(crate) local: Arc<LocalStore>,
    pub(crate) cloud: Arc<FaultyStore>,
    pub(crate) book: Arc<StatusBook>,
    pub(crate) progress: Arc<RecordingSink>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) filesystem: FilesystemId,
    pub(crate) history: Arc<History>,
    _dir: tempfile::TempDir,
}

impl Fakes {
    pub(crate) fn cloud_place(&self) -> Place {
        Place::Cloud(CloudPlace { id: CLOUD_ID, url: self.cloud.url() })
    }

    pub(crate) fn with_cloud() -> Self {
        Self::new(true, 16 << 20)
    }

    /// With a checkpoint behind each snapshot.
    pub(crate) fn with_checkpoints() -> Self {
        Self::new(true, 1)
    }

    pub(crate) fn without_cloud() -> Self {
        Self::new(false, 16 << 20)
    }

    fn new(has_cloud: bool, checkpoint_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::at(1_480_000_000));
        let kvs = FakeKvs::new(CHUNK);
        let (n_held, release_fails) = (AtomicI64::new(0), AtomicBool::new(false));
        let log = Arc::new(CountingLog { kvs: kvs.clone(), n_held, release_fails });
        let (memory, is_full) = (Arc::new(MemoryStore::default()), AtomicBool::new(false));
        let counted = FaultyStore::new(memory.clone());
        let local = Arc::new(LocalStore { memory, counted, is_full });
        let cloud = Arc::new(FaultyStore::new(Arc::new(MemoryStore::default())));
        let keys = Arc::new(Keys::generate().unwrap());
        let index = Index::open(&dir.path().join("index"), CHUNK, &IndexOptions::default());
        let index = Arc::new(index.unwrap());
        let filesystem = FilesystemId::from_bytes([7; 16]);
        let options = PersistOptions { n_workers: 1, ..PersistOptions::default() };
        let persister = Persister::new(
            filesystem,
            local.clone(),
            Arc::clone(&keys),
            Arc::clone(&index),
            Arc::clone(&clock),
            options,
        );
        let policy = Box::new(AgeAndSize::default());
        let evicter = Evicter::new(dir.path(), policy, Arc::clone(&clock));
        let book = StatusBook::open(&dir.path().join("status"), Arc::clone(&clock)).unwrap();
        let book = Arc::new(book);
        let history = Arc::new(History::new(index));
        let ports = StorePorts {
            filesystem,
            epoch: Epoch::new(1),
            writer: Some(WriterToken::from_bytes([1; 16])),
            floor: Floor::default(),
            log: log.clone(),
            instance: Arc::new(kvs.clone()),
            local: Arc::new(ObjectCache::new(local.clone(), u64::MAX)),
            cloud: has_cloud.then(|| CloudPort {
                store: cloud.clone(),
                id: Some(CLOUD_ID),
                arrival: Arrival::Read,
            }),
            former_clouds: Vec::new(),
            keys: Arc::clone(&keys),
            history: Arc::clone(&history),
            book: Arc::clone(&book),
            deletions: DeletionQueue::open(&dir.path().join("deletions"), clock),
            spill_dir: dir.path().to_path_buf(),
            checkpoint_bytes,
            marks: SpaceMarks { high_percent: 85, low_percent: 70 },
        };
        let progress = Arc::new(RecordingSink::default());
        let stages = StoreStages::new(ports, persister, evicter, progress.clone());
        Self {
            stages,
            kvs,
            log,
            local,
            cloud,
            book,
            progress,
            keys,
            filesystem,
            history,
            _dir: dir,
        }
    }
}
