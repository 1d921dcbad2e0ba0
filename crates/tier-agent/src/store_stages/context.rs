//! The stages' context: ports, progress and priority, with the questions that several stages ask.
//!
//! What is *safe* is answered here, once: the snapshots up to the last one before which every
//! snapshot was verified in the place that counts. That is the configured cloud under its URL, where
//! there is one; what was verified in another cloud counts for nothing. A snapshot that is verified behind one that is not is not safe: its manifest continues the other's, and a
//! restore would need both.

use std::sync::Arc;

use tier_persist::{Archive, SnapshotSummary};
use tier_status::{
    Event, Place, Progress, SnapshotStatus, StatusError, StatusHeader, StatusSink, StatusWriter,
};
use tier_types::{ErrorKind, HasKind, with_causes};

use super::background::in_background;
use super::ports::StorePorts;
use crate::AgentError;

pub(super) struct StageContext {
    pub(super) ports: StorePorts,
    pub(super) progress: Arc<dyn StatusSink>,
    /// As nice(1) counts it.
    pub(super) nice: u8,
}

impl StageContext {
    /// The local store's manifests.
    pub(super) fn archive(&self) -> Result<Archive<'_>, AgentError> {
        let StorePorts { local, keys, filesystem, .. } = &self.ports;
        Ok(Archive::open(local.as_ref(), keys, *filesystem)?)
    }

    /// Where a snapshot must be verified before anything of it is evicted; `None` while that is not
    /// known, and nothing is safe.
    pub(super) fn safe_place(&self) -> Option<Place> {
        match &self.ports.cloud {
            Some(cloud) => cloud.place().map(Place::Cloud),
            None => Some(Place::Local),
        }
    }

    /// The last snapshot that is safe with all before it; `None` if none is.
    pub(super) fn safe_snapshot(
        &self,
        archive: &Archive<'_>,
    ) -> Result<Option<SnapshotSummary>, AgentError> {
        let Some(place) = self.safe_place() else { return Ok(None) };
        let mut safe = None;
        for summary in archive.snapshots() {
            // A snapshot without a status log was never verified.
            let is_verified = |status: SnapshotStatus| status.is_verified_in(&place);
            if !self.status(summary)?.is_some_and(is_verified) {
                break;
            }
            safe = Some(summary.clone());
        }
        Ok(safe)
    }

    /// What the status log says of a snapshot; `None` without one.
    pub(super) fn status(
        &self,
        summary: &SnapshotSummary,
    ) -> Result<Option<SnapshotStatus>, AgentError> {
        Ok(self.ports.book.status(header_of(summary))?)
    }

    /// Where the events of a snapshot go.
    pub(super) fn status_sink(&self, header: StatusHeader) -> Result<StageSink<'_>, AgentError> {
        let log = self.ports.book.writer(header)?;
        Ok(StageSink { log, progress: self.progress.as_ref() })
    }

    /// Has work done that yields to the foreground.
    pub(super) fn in_background<T: Send>(
        &self,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, AgentError> {
        in_background(self.nice, work)
    }
}

/// Reports to the status log, and to the sink that shows progress.
pub(super) struct StageSink<'a> {
    log: StatusWriter,
    progress: &'a dyn StatusSink,
}

impl StageSink<'_> {
    /// Records why a step failed; a stop on request is no failure. The error that matters is the
    /// step's, so that one of the status log is only logged.
    pub(super) fn record_failure(&self, step: &str, error: &AgentError) {
        if error.kind() == ErrorKind::Cancelled {
            tracing::debug!(step, %error, "a stop is not recorded as a failure");
            return;
        }
        let failed = Event::Failed { step: step.into(), error: with_causes(error) };
        if let Err(error) = self.report(failed) {
            tracing::warn!("cannot record that a step failed: {}", with_causes(&error));
        }
    }
}

impl StatusSink for StageSink<'_> {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        // The durable one first: nothing is shown as done that was not recorded.
        self.log.report(event.clone())?;
        self.progress.report(event)
    }

    fn progress(&self, progress: Progress) {
        self.progress.progress(progress);
    }
}

/// The head of a snapshot's status log.
pub(super) fn header_of(summary: &SnapshotSummary) -> StatusHeader {
    StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot }
}
