//! The vocabulary of tiering, and the ports between its parts.
//!
//! Every other crate speaks in these words: an [`Ino`] names an inode, an [`Xid`] a logged
//! operation, a [`ChunkRange`] a run of chunks, a [`FileUpdate`] what changed of one inode.
//!
//! A filesystem takes part by implementing two ports, [`LogService`] and [`MountedInstance`]
//! (with its [`MountedSnapshot`]), and by being given a [`Recall`]. Stores of immutable objects
//! implement [`ObjectStore`] (the local one [`StagingStore`] as well); what is safely archived is
//! asked through [`Persisted`].
//!
//! This crate does no I/O and knows no format: no tarball, no index, no key-value store.

mod attr;
mod clock;
mod control;
mod error;
mod ids;
mod instance;
mod instance_layer;
mod log;
mod num;
mod ranges;
mod recall;
mod store;
mod update;

pub use attr::{DeviceNumber, FileAttr, FileKind, FileName, InodeState, Link, Timestamp, Xattr};
pub use clock::{Clock, SystemClock};
pub use control::{Control, ControlCommand, ControlSession};
pub use error::{ErrorKind, HasKind, PortError, with_causes};
pub use ids::{ChunkNo, Epoch, Ino, SnapshotId, Xid};
pub use instance::{
    Backlog, ChunkPlace, ChunkRun, ChunkState, EvictOutcome, EvictionFacts, InstanceView,
    MountedInstance, MountedSnapshot, Reclaimed, ResidentExtent, SnapshotInode, SnapshotReader,
    SpaceUsage, Usage,
};
pub use instance_layer::InstanceLayer;
pub use log::{LogReader, LogService, Publication, PublicationListener, SegmentInfo};
pub use num::{to_u64, to_usize};
pub use ranges::{ByteRange, ChunkRange, XidRange};
pub use recall::{
    Persisted, PersistedPart, Recall, RecallHint, RecallRequest, RecalledExtent, persisted_parts,
};
pub use store::{
    CacheStore, Call, CallClass, Cancel, CloudId, CloudPlace, Created, Dropped, Flush, ListPage,
    ListedObject, ObjectChecksum, ObjectContent, ObjectMetadata, ObjectName, ObjectStore,
    ObjectVersion, RangeRead, StagedObject, StagingStore, StorageClass, StoreLayer, StoredContent,
};
pub use update::{Change, FileUpdate};
