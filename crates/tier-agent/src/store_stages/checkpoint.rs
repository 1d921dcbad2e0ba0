//! The checkpoint stage: a step that states all that is live, when a restore would gain by it.
//!
//! It is taken right behind a snapshot that is complete, while the KVS snapshot of the same moment
//! is held. It is worth having and never needed: one that fails costs nothing but the attempt, and
//! is tried again when the cost of doing without has doubled.

use std::sync::atomic::{AtomicBool, Ordering};

use tier_persist::{Archive, CheckpointRequest, Persister, SnapshotSummary, StepKind};
use tier_status::{SnapshotStatus, StatusHeader, StatusSink};
use tier_types::{ErrorKind, HasKind, Publication, SnapshotId, with_causes};

use super::context::StageContext;
use super::next_snapshot::NextSnapshot;
use crate::AgentError;
use crate::decide::{CheckpointCosts, checkpoint_is_due};

/// Commits a checkpoint if one is due. Whatever fails is only told: the snapshot is there.
pub(super) fn take_if_due(
    context: &StageContext,
    persister: &Persister,
    publication: &Publication,
    stop: &AtomicBool,
) {
    let costs = match costs_if_due(context) {
        Ok(Some(costs)) => costs,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!("it cannot be told if a checkpoint is due: {}", with_causes(&error));
            return;
        }
    };
    tracing::debug!(?costs, "a checkpoint is due");
    let is_whole = |snapshot| is_whole(context, snapshot);
    let not_before = match take(context, persister, publication, &is_whole, stop) {
        Ok(_) => 0,
        Err(error) if error.kind() == ErrorKind::Cancelled => return,
        Err(error) => {
            tracing::warn!("no checkpoint was made: {}", with_causes(&error));
            costs.since().saturating_mul(2)
        }
    };
    context.no_checkpoint_before.store(not_before, Ordering::Relaxed);
}

/// What doing without a checkpoint costs, if one is due.
fn costs_if_due(context: &StageContext) -> Result<Option<CheckpointCosts>, AgentError> {
    let archive = context.archive()?;
    if archive.snapshots().next_back().is_some_and(|last| last.covered.is_some()) {
        return Ok(None);
    }
    let is_whole = |summary: &SnapshotSummary| is_whole(context, summary.snapshot);
    let costs = CheckpointCosts::of(archive.snapshots().rev(), &is_whole);
    let not_before = context.no_checkpoint_before.load(Ordering::Relaxed);
    let is_due =
        checkpoint_is_due(&costs, context.ports.checkpoint_bytes) && costs.since() >= not_before;
    let is_wanted = is_due || is_needed(context, &archive)?;
    Ok(is_wanted.then_some(costs))
}

/// Whether nothing more becomes safe without one.
fn is_needed(context: &StageContext, archive: &Archive<'_>) -> Result<bool, AgentError> {
    let verified = context.how_far(archive)?.verified;
    let next = archive.after(verified).find(|summary| !summary.is_lost);
    next.map_or(Ok(false), |next| is_missing(context, archive, next))
}

/// Whether a snapshot has lost objects, and no checkpoint that is whole does without them.
pub(super) fn is_missing(
    context: &StageContext,
    archive: &Archive<'_>,
    summary: &SnapshotSummary,
) -> Result<bool, AgentError> {
    let needed = context.status(summary)?.and_then(|status| status.needs_checkpoint());
    let Some(needed) = needed.filter(|_| summary.kind != StepKind::Checkpoint) else {
        return Ok(false);
    };
    Ok(!context.ports.book.has_whole_checkpoint(archive, needed)?)
}

/// Commits a checkpoint, and returns its number. The publication's KVS snapshot is that of the last
/// snapshot. What earlier ones hold that are whole is named again.
pub(super) fn take(
    context: &StageContext,
    persister: &Persister,
    publication: &Publication,
    is_whole: &(dyn Fn(SnapshotId) -> bool + Sync),
    stop: &AtomicBool,
) -> Result<SnapshotId, AgentError> {
    let archive = &context.archive()?;
    let writer = context.ports.writer.ok_or(AgentError::Follower)?;
    let snapshot = NextSnapshot::after(archive, context.ports.floor).snapshot;
    let epoch = context.ports.epoch;
    let number = |summary: &SnapshotSummary| summary.snapshot;
    assert!(archive.snapshots().next_back().map(number) < Some(snapshot), "it is behind them");
    let mounted = context.ports.instance.open_snapshot(publication)?;
    let status = context.status_sink(StatusHeader { epoch, snapshot })?;
    let mounted = mounted.as_ref();
    let status_sink: &dyn StatusSink = &status;
    let request = CheckpointRequest {
        epoch,
        writer,
        snapshot,
        archive,
        is_whole,
        mounted,
        status: status_sink,
        stop,
    };
    let taken = context.in_background(|| persister.checkpoint(&request))?;
    taken.map(|_| snapshot).map_err(|error| {
        let error = AgentError::from(error);
        status.record_failure("checkpoint", &error);
        error
    })
}

/// Whether nothing of a checkpoint is known to be damaged.
fn is_whole(context: &StageContext, snapshot: SnapshotId) -> bool {
    let look = || -> Result<bool, AgentError> {
        let archive = context.archive()?;
        let Some(summary) = archive.snapshot(snapshot) else { return Ok(false) };
        let status = context.status(summary)?;
        let was_taken_back = |status: SnapshotStatus| {
            !status.lost_objects.is_empty()
                || status.was_verified.iter().any(|place| !status.is_verified_in(place))
        };
        Ok(!status.is_some_and(was_taken_back))
    };
    // What cannot be told is written again.
    look().unwrap_or(false)
}
