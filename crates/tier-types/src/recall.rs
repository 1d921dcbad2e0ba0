//! The way back: who answers for data that is not in the key-value store.

use crate::{ChunkRange, Ino, PortError, SnapshotId, Xid};

/// Evicted data that a reader wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecallRequest {
    /// Which inode.
    pub ino: Ino,
    /// Which of its chunks.
    pub chunks: ChunkRange,
    /// Exactly which version of them.
    pub data_xid: Xid,
}

/// Data that came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecalledExtent {
    /// The chunks that came: they include the first chunk asked for, and may be more or fewer than
    /// were asked for.
    pub chunks: ChunkRange,
    /// Their bytes. The last chunk ends where the file ended when it was archived; what is missing
    /// to a whole chunk is zeros.
    pub bytes: Vec<u8>,
}

/// Brings evicted data back. One answer may serve many waiting readers.
pub trait Recall: Send + Sync {
    /// The data of exactly the version asked for. An error of kind `Missing` says that the archive
    /// has no such version; other data is never returned in its place.
    fn recall(&self, request: &RecallRequest) -> Result<RecalledExtent, PortError>;
}

/// Knows what is safely archived.
pub trait Persisted: Send + Sync {
    /// Whether exactly this version of all these chunks can be read back from the archive.
    fn is_persisted(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<bool, PortError>;

    /// The snapshot that holds the inode's metadata as this transaction left it; `None` if none
    /// does.
    fn snapshot_of(&self, ino: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError>;
}
