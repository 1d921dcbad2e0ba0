//! What a local store can do besides: objects that are written piece by piece.

use crate::PortError;

use super::name::ObjectName;
use super::object_store::ObjectStore;

/// Sends what was written to an object so far to the disk, from another thread than the writer's.
pub type Flush = Box<dyn Fn() -> Result<(), PortError> + Send>;

/// A local [`ObjectStore`] in which an object can be written piece by piece, under a temporary name
/// until it is whole.
pub trait StagingStore: ObjectStore {
    /// Starts an object. Its name, which must not be taken, becomes visible when it is committed;
    /// until then no listing and no read shows it.
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError>;

    /// Removes what a crash left half written. No object may be staged meanwhile.
    fn discard_staged(&self) -> Result<(), PortError>;
}

/// An object that is being written. Dropped before it is committed, it leaves nothing; a crash
/// leaves at most what [`StagingStore::discard_staged`] removes.
pub trait StagedObject: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), PortError>;

    /// A way to send what is written to the disk while more is written, so that little is left for
    /// the commit. An error of it is an error of the object: it may not come again at the commit.
    fn flush_handle(&self) -> Result<Flush, PortError>;

    /// Makes the object durable under its name.
    fn commit(self: Box<Self>) -> Result<(), PortError>;
}
