//! The operation log of a filesystem: what was done, in order, and what it comes to.
//!
//! A filesystem writes one [`LogRecord`] for each operation into its key-value store, in the same
//! atomic batch as the operation itself. On publication it copies the records of an [`XidRange`]
//! with a [`SegmentWriter`] into an immutable segment file (`docs/formats/log-segment.md`).
//!
//! [`NetChanges`] reads the segments of a range back and folds them into one
//! [`FileUpdate`](tier_types::FileUpdate) for each inode: moot operations vanish there, and only
//! there. The segments stay whole, because the history of what was deleted matters.
//!
//! This crate knows no key-value store, no tarball and no index.
//!
//! [`XidRange`]: tier_types::XidRange

mod error;
mod fold;
mod format;
mod memory;
mod merge;
mod net_changes;
mod reader;
mod record;
mod spill;
mod wire;
mod writer;

pub use error::LogError;
pub use memory::MemoryLog;
pub use net_changes::{NetChanges, NetChangesOptions};
pub use reader::{OpenedSegment, SegmentHeader, SegmentReader, check_segment, read_range};
pub use record::{LogRecord, NodeKind, Operation};
pub use writer::SegmentWriter;
