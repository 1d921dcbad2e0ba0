//! The testkit's small filesystem in a store of its own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tier_agent::{AgentReport, Task};
use tier_status::NullSink;
use tier_store::{
    Config, Filesystem, Layout, NewStore, OpenMode, RestoreSource, RestoreTarget, Store, StoreDir,
    StoreError, restore,
};
use tier_testkit::FakeKvs;
use tier_types::{
    Call, ErrorKind, LogReader, LogService, MountedInstance, PortError, Publication,
    PublicationListener, Recall, RecallHint, RecallRequest, RecalledExtent, SegmentInfo, Xid,
    XidRange,
};

pub(crate) const CHUNK: u32 = 4096;

/// A recall that is there once the store is open.
#[derive(Default)]
pub(crate) struct LateRecall(Mutex<Option<Arc<dyn Recall>>>);

impl LateRecall {
    /// Takes the place of one of a store that was closed.
    pub(crate) fn set(&self, recall: Arc<dyn Recall>) {
        *self.0.lock() = Some(recall);
    }

    /// Lets go of the store, which is to be closed.
    pub(crate) fn clear(&self) {
        *self.0.lock() = None;
    }
}

impl Recall for LateRecall {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        let recall = self.0.lock().clone();
        recall.expect("nothing is evicted before the store is open").recall(request)
    }
}

/// The log of a filesystem, which lives in it.
struct LogOf(FakeKvs);

impl LogReader for LogOf {
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        self.0.log().segments(range)
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        self.0.log().open_segment(segment)
    }

    fn last_xid(&self) -> Xid {
        self.0.log().last_xid()
    }
}

impl LogService for LogOf {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        self.0.log().publish()
    }

    fn on_publication(&self, listener: PublicationListener) {
        self.0.log().on_publication(listener);
    }

    fn release(&self, publication: &Publication) -> Result<(), PortError> {
        self.0.log().release(publication)
    }

    fn retire_segments(&self, xid: Xid) -> Result<(), PortError> {
        self.0.log().retire_segments(xid)
    }
}

/// The ports of a filesystem.
pub(crate) fn ports_of(kvs: &FakeKvs) -> Filesystem {
    let log = Arc::new(LogOf(kvs.clone()));
    Filesystem { log, instance: Arc::new(kvs.clone()), chunk_bytes: CHUNK }
}

/// A directory with a cloud and stores in it.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

/// A store that is open, and its filesystem.
pub(crate) struct Opened {
    pub(crate) kvs: FakeKvs,
    pub(crate) store: Store,
}

impl World {
    /// A new store at `store`, not open.
    pub(crate) fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        let new =
            NewStore { chunk_bytes: CHUNK, cloud: Some(world.cloud()), ..NewStore::default() };
        new.prepare(&world.path("store")).unwrap().finish().unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn cloud(&self) -> String {
        format!("file://{}", self.path("cloud").display())
    }

    /// Opens a store with a filesystem that `make` makes of its recall.
    pub(crate) fn open(
        &self,
        name: &str,
        make: impl FnOnce(Arc<LateRecall>) -> FakeKvs,
    ) -> Result<Opened, StoreError> {
        let recall = Arc::new(LateRecall::default());
        self.open_with(name, make(Arc::clone(&recall)), &recall)
    }

    /// Opens a store with a filesystem that has this recall.
    pub(crate) fn open_with(
        &self,
        name: &str,
        kvs: FakeKvs,
        recall: &LateRecall,
    ) -> Result<Opened, StoreError> {
        let dir = StoreDir::open(&self.path(name))?;
        let store = Store::open(dir, ports_of(&kvs), Arc::new(NullSink), OpenMode::Current)?;
        recall.set(store.recall());
        Ok(Opened { kvs, store })
    }

    /// Opens the new store with these files.
    pub(crate) fn with_files(&self, files: &[(&str, &[u8])]) -> Opened {
        let make = |recall: Arc<LateRecall>| {
            let empty = FakeKvs::with_recall(CHUNK, recall);
            files.iter().fold(empty, |kvs, (name, content)| kvs.file(name, content))
        };
        self.open("store", make).unwrap()
    }

    /// Restores the cloud into a store of this name, and opens it.
    pub(crate) fn restored(&self, name: &str) -> Opened {
        let (kvs, recall) = self.restored_kvs(name);
        let ports = ports_of(&kvs);
        let dir = StoreDir::open(&self.path(name)).unwrap();
        let store = Store::open(dir, ports, Arc::new(NullSink), OpenMode::Current).unwrap();
        recall.set(store.recall());
        Opened { kvs, store }
    }

    /// The same, and closes it.
    pub(crate) fn restored_kvs(&self, name: &str) -> (FakeKvs, Arc<LateRecall>) {
        let source = RestoreSource::new(self.cloud(), Layout::new(&self.path("store")).identity());
        let mut target = Restored::default();
        let report = restore(&self.path(name), &source, &mut target, &mut |_| {}).unwrap();
        assert!(report.n_inodes > 0 && report.failed.is_empty(), "{report:?}");
        (target.kvs.unwrap(), target.recall)
    }
}

impl Opened {
    pub(crate) fn perform(&self, task: Task) -> AgentReport {
        self.store.agent().unwrap().perform(task, &Arc::default()).unwrap()
    }

    pub(crate) fn ports(&self) -> Filesystem {
        self.store.filesystem().clone()
    }
}

/// Makes the filesystem that a restore fills.
#[derive(Default)]
pub(crate) struct Restored {
    pub(crate) recall: Arc<LateRecall>,
    pub(crate) kvs: Option<FakeKvs>,
}

impl RestoreTarget for Restored {
    fn create(
        &mut self,
        path: &Path,
        config: &Config,
        floor: Xid,
    ) -> Result<Arc<dyn MountedInstance>, PortError> {
        if !path.is_dir() || config.chunk_bytes != CHUNK {
            return Err(PortError::new(ErrorKind::Failed, "another store was expected"));
        }
        let kvs = FakeKvs::empty(CHUNK, self.recall.clone(), floor);
        self.kvs = Some(kvs.clone());
        Ok(Arc::new(kvs))
    }

    fn last_xid(&mut self, _: &Path, _: &Config) -> Result<Xid, PortError> {
        Err(PortError::new(ErrorKind::Failed, "no store here keeps what it has"))
    }
}
