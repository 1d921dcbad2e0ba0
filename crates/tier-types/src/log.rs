//! The log port: a filesystem gives out its operation log, and takes snapshots with it.
//!
//! Every operation that changes the filesystem has a transaction id (xid) and a log record, which
//! is written in the same atomic batch as the change: after a crash there are both or neither. Xids
//! have no gaps and follow the order in which the key-value store commits.
//!
//! **Publication** cuts what was logged since the last one into an immutable *segment* and takes a
//! *KVS snapshot*, both of one moment: the segment ends with the last transaction that the snapshot
//! shows. That is the whole synchronisation between a filesystem and the engine. What changed is
//! read from segments; what it changed to is read from the snapshot, at leisure, while the
//! filesystem goes on.
//!
//! Segments and snapshots live differently. A segment is durable before the publication is
//! announced, and stays until [`retire_segments`](LogService::retire_segments) says that it is
//! archived: it is the history, and nothing else holds it. A snapshot lives in memory and is lost
//! with the process. That is no harm, because a snapshot can be replaced by a newer one as long as
//! the newer publication *covers* the older: the engine then persists the union of both ranges.
//! What a crash leaves is therefore one of two things. Before the segment is durable the
//! publication never was, and the records are still in the store, to be cut the next time. After
//! it the segment is found again at start, its records are not cut twice, and if nothing was
//! logged since even its snapshot can be taken again: the present is the same.
//!
//! A snapshot pins storage in the key-value store. It is therefore released by name when its
//! publication was persisted, and also when persisting it failed: otherwise each failed attempt
//! would pin one more.
//!
//! The rules of this page are asserted by `tier_testkit::contract::check_log_service`, and those
//! about snapshots by `check_mounted_instance`.

use std::io::Read;
use std::path::PathBuf;

use crate::{PortError, Xid, XidRange};

/// One publication: a log segment and the KVS snapshot that it describes, made together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Publication {
    /// The transactions of the new segment. The snapshot shows the state after the last of them.
    pub range: XidRange,
}

/// A published segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentInfo {
    /// The transactions in it.
    pub range: XidRange,
    /// Its size in bytes.
    pub len_bytes: u64,
    /// What to call it in a message: a path, where it has one.
    pub name: PathBuf,
}

/// Called with each publication, on the thread that published. Must not block.
pub type PublicationListener = Box<dyn Fn(&Publication) + Send + Sync>;

/// The log of one filesystem, as far as it can be read: nothing is changed by it. Published
/// segments are immutable and without gaps.
pub trait LogReader: Send + Sync {
    /// The published segments that hold any of `range`, in order.
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError>;

    /// The bytes of a segment.
    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError>;

    /// The last transaction of any kind, published or not.
    fn last_xid(&self) -> Xid;
}

/// The log of one filesystem.
pub trait LogService: LogReader {
    /// Takes a KVS snapshot and cuts the log into a segment, atomically. `None` if nothing was
    /// logged since the last publication. Publishing is itself no operation.
    fn publish(&self) -> Result<Option<Publication>, PortError>;

    /// Registers a listener for publications to come.
    fn on_publication(&self, listener: PublicationListener);

    /// Lets go of the KVS snapshot of one publication: it was persisted, or persisting it failed
    /// and the next publication covers it. One that is not held is no error. Snapshots of other
    /// publications stay.
    fn release(&self, publication: &Publication) -> Result<(), PortError>;

    /// Says that segments wholly at or below `xid` are needed no more: they go. The newest segment
    /// stays whatever is said, because it tells where the log goes on.
    fn retire_segments(&self, xid: Xid) -> Result<(), PortError>;
}
