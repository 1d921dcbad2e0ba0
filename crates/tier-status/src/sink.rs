//! The status sink: how work reports its events, wherever they go.

use crate::{Event, StatusError};

/// How far a running step has got. Not recorded, only shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Inodes done.
    pub n_inodes: u64,
    /// Bytes of file data done.
    pub bytes: u64,
}

/// Takes reports of work on one snapshot.
pub trait StatusSink: Send + Sync {
    /// Something happened. When this returns the event is recorded, as durably as the sink can.
    fn report(&self, event: Event) -> Result<(), StatusError>;

    /// Work goes on. Called often; must be cheap.
    fn progress(&self, progress: Progress) {
        // Nothing depends on it, and a sink that only records has nothing to do.
        let _ = progress;
    }
}

/// A sink that drops every event, for work that is not recorded.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl StatusSink for NullSink {
    fn report(&self, _: Event) -> Result<(), StatusError> {
        Ok(())
    }
}
