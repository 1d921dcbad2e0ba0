//! The port through which a filesystem gives out its operation log.

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
    /// Its size.
    pub len_bytes: u64,
    /// What to call it in a message: a path, where it has one.
    pub name: PathBuf,
}

/// Called with each publication, on the thread that published. Must not block.
pub type PublicationListener = Box<dyn Fn(&Publication) + Send + Sync>;

/// The log of one filesystem. Published segments are immutable and without gaps.
pub trait LogService: Send + Sync {
    /// Takes a KVS snapshot and cuts the log into a segment, atomically. `None` if nothing was
    /// logged since the last publication.
    fn publish(&self) -> Result<Option<Publication>, PortError>;

    /// Registers a listener for publications to come.
    fn on_publication(&self, listener: PublicationListener);

    /// The published segments that hold any of `range`, in order.
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError>;

    /// The bytes of a segment.
    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError>;

    /// The last transaction of any kind, published or not.
    fn last_xid(&self) -> Xid;

    /// Lets go of the KVS snapshot of one publication: it was persisted, or persisting it failed
    /// and the next publication covers it. One that is not held is no error.
    fn release(&self, publication: &Publication) -> Result<(), PortError>;

    /// Says that segments wholly at or below `xid` are needed no more.
    fn retire_segments(&self, xid: Xid) -> Result<(), PortError>;
}
