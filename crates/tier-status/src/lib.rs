//! The status log: the life of one persisted snapshot as an append-only file.
//!
//! Work on a snapshot reports [`Event`]s to a [`StatusSink`], and does not know that there is a
//! file. [`StatusWriter`] is the sink that appends them to the snapshot's status log, durable
//! before it returns; it is the only code that writes one. [`StatusLog::parse`] is the only code
//! that reads one: a torn last line did not happen, and any other damage is an error, because each
//! line carries a digest chained to the one before (`docs/formats/status-log.md`; `line.rs` says
//! why that is enough).
//!
//! [`SnapshotStatus`] folds the events into how far the snapshot has got. The agent resumes from
//! it after a crash, and pages, commands and metrics show it: one model for all of them.
//!
//! This crate knows no tarball, no manifest and no schedule. It does not decide what an event leads
//! to.

mod error;
mod event;
mod line;
mod parser;
mod sink;
mod status;
mod writer;

pub use error::StatusError;
pub use event::{Event, EventRecord, Place, StatusHeader};
pub use parser::StatusLog;
pub use sink::{NullSink, Progress, StatusSink};
pub use status::{SnapshotStatus, Stage, UnreadRange};
pub use writer::StatusWriter;
