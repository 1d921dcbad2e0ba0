//! The parts of a store that the stages work with.

use std::path::PathBuf;
use std::sync::Arc;

use tier_index::Index;
use tier_persist::{FilesystemId, Keys, WriterToken};
use tier_types::{Epoch, LogService, MountedInstance, ObjectStore, SnapshotId, StagingStore, Xid};

use crate::StatusBook;

/// Where a restored filesystem begins: no transaction and no snapshot up to these is its own. Zero
/// for a filesystem that was not restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floor {
    /// The last transaction of the snapshot that it was restored from.
    pub xid: Xid,
    /// That snapshot.
    pub snapshot: SnapshotId,
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
    /// Where tarballs are written.
    pub local: Arc<dyn StagingStore>,
    /// Where they are uploaded to; `None` if local tarballs are all there is.
    pub cloud: Option<Arc<dyn ObjectStore>>,
    /// Its keys.
    pub keys: Arc<Keys>,
    /// Its index.
    pub index: Arc<Index>,
    /// Its status logs.
    pub book: Arc<StatusBook>,
    /// Where temporary files go.
    pub spill_dir: PathBuf,
}

impl std::fmt::Debug for StorePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorePorts").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}
