//! The parts of a store that the stages work with.

use std::path::PathBuf;
use std::sync::Arc;

use tier_persist::{FilesystemId, History, Keys, WriterToken};
use tier_types::{
    CacheStore, CloudId, CloudPlace, Epoch, LogService, MountedInstance, ObjectStore, SnapshotId,
    Xid,
};

use crate::decide::SpaceMarks;
use crate::{DeletionQueue, StatusBook};

/// Where a restored filesystem begins: no transaction and no snapshot up to these is its own. Zero
/// for a filesystem that was not restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    /// The last transaction of the snapshot that it was restored from.
    pub xid: Xid,
    /// That snapshot.
    pub snapshot: SnapshotId,
}

/// The cloud of a store.
#[derive(Clone)]
pub struct CloudPort {
    /// Its objects.
    pub store: Arc<dyn ObjectStore>,
    /// Which one it is; `None` if it has lost its identity. Nothing is verified there then.
    pub id: Option<CloudId>,
    /// How it is found out that an object arrived.
    pub arrival: Arrival,
}

/// How it is found out that an object arrived as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// All of it is read.
    Read,
    /// The store has refused what changed on its way: some of it is read.
    Refused,
}

impl CloudPort {
    /// The cloud under its URL, for which a snapshot counts as verified.
    pub fn place(&self) -> Option<CloudPlace> {
        self.id.map(|id| CloudPlace { id, url: self.store.url() })
    }
}

impl std::fmt::Debug for CloudPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CloudPort({}, {:?})", self.store.url(), self.id)
    }
}

/// The parts that the stages work with.
pub struct StorePorts {
    /// The filesystem's identity in its archive.
    pub filesystem: FilesystemId,
    /// The writer's term.
    pub epoch: Epoch,
    /// The store as a writer; `None` for a follower.
    pub writer: Option<WriterToken>,
    /// Where the filesystem begins.
    pub floor: Floor,
    /// Its operation log.
    pub log: Arc<dyn LogService>,
    /// The live filesystem.
    pub instance: Arc<dyn MountedInstance>,
    /// Where tarballs are written, and dropped when the cloud has them and their room is wanted.
    pub local: Arc<dyn CacheStore>,
    /// Where they are uploaded to; `None` if local tarballs are all there is.
    pub cloud: Option<CloudPort>,
    /// Where else objects are that are not in the local store: clouds that this store had before.
    pub former_clouds: Vec<Arc<dyn ObjectStore>>,
    /// Its keys.
    pub keys: Arc<Keys>,
    /// Its history, with the index that includes it.
    pub history: Arc<History>,
    /// Its status logs.
    pub book: Arc<StatusBook>,
    /// What is to be deleted in the cloud.
    pub deletions: DeletionQueue,
    /// Where temporary files go.
    pub spill_dir: PathBuf,
    /// Bytes that a restore must have to read since the last checkpoint before there is another
    /// one.
    pub checkpoint_bytes: u64,
    /// When space is freed.
    pub marks: SpaceMarks,
}

impl std::fmt::Debug for StorePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorePorts").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}
