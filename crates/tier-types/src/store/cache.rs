//! What a local store can do besides that is bounded: objects that another store has as well are
//! dropped when their room is wanted.

use crate::PortError;

use super::name::ObjectName;
use super::staging::StagingStore;

/// What was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// Objects.
    pub n_objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A local store in front of another one, where copies are dropped that the other one has. It drops
/// nothing but what it was told is *spare*: whole in the other store, as far as is known now. Which
/// objects those are is not remembered by the store, and told again after each opening.
pub trait CacheStore: StagingStore {
    /// An object is being copied to the other store: its room may come back soon.
    fn copy_begins(&self);

    /// It ended, whatever came of it.
    fn copy_ends(&self);

    /// An object of so many bytes is spare.
    fn spare(&self, name: &ObjectName, len_bytes: u64);

    /// An object is not spare any more.
    fn keep(&self, name: &ObjectName);

    /// Nothing is spare any more until it is said again: the other store may not have it.
    fn keep_all(&self);

    /// Drops spare objects of so many bytes at least, in the order of their names, or all there
    /// are. A reader of one that is dropped meanwhile reads on, or is told that it is `Missing`.
    fn drop_spare(&self, bytes_min: u64) -> Result<Dropped, PortError>;

    /// What [`drop_spare`](Self::drop_spare) would drop.
    fn would_drop(&self, bytes_min: u64) -> Dropped;

    /// Drops spare objects beyond what the store was made to keep.
    fn drop_excess(&self) -> Result<Dropped, PortError>;

    /// Waits until something is spare; false if nothing is, and no copying is under way.
    fn wait_for_spare(&self) -> bool;
}
