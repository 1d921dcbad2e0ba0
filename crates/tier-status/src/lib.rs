//! The life of one snapshot, as a log file.
//!
//! Whoever works on a snapshot reports [`Event`]s to a [`StatusSink`], without knowing that there
//! is a file. [`StatusWriter`] is the sink that appends them to the snapshot's status log, durable
//! before it returns; it is the only code that writes one. [`StatusLog::parse`] is the only code that
//! reads one: a torn last line did not happen, and any other damage is an error, because each line
//! carries a digest chained to the one before (`docs/formats/status-log.md`).
//!
//! [`SnapshotStatus`] folds the events into where the snapshot stands.

mod error;
mod event;
mod line;
mod parser;
mod sink;
mod status;
mod writer;

pub use error::StatusError;
pub use event::{Event, EventRecord, StatusHeader, Tier};
pub use parser::StatusLog;
pub use sink::{NullSink, Progress, StatusSink};
pub use status::{SnapshotStatus, Stage};
pub use writer::StatusWriter;
