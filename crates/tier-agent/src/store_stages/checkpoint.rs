//! The checkpoint stage: a step that states all that is live, when a restore would gain by it.
//!
//! It is taken right behind a snapshot that is complete, while the KVS snapshot of the same moment is
//! held. It is worth having and never needed: one that fails costs nothing but the attempt, and is
//! tried again when the cost of doing without has doubled.

use std::sync::atomic::{AtomicBool, Ordering};

use tier_persist::{Archive, CheckpointRequest, Persister, SnapshotSummary, StepKind};
use tier_status::{SnapshotStatus, StatusHeader};
use tier_types::{Publication, with_causes};

use super::context::StageContext;
use super::next_snapshot::NextSnapshot;
use crate::AgentError;
use crate::decide::{CheckpointCosts, checkpoint_is_due};

/// Commits a checkpoint if one is due.
pub(super) fn take_if_due(
    context: &StageContext,
    persister: &Persister,
    publication: &Publication,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    let archive = context.archive()?;
    let costs = CheckpointCosts::of(archive.snapshots().rev());
    let is_complete = archive.snapshots().next_back().is_some_and(|last| last.covered.is_none());
    let is_due = checkpoint_is_due(&costs, context.ports.checkpoint_bytes);
    let not_before = context.no_checkpoint_before.load(Ordering::Relaxed);
    if !is_complete || !is_due || costs.since() < not_before {
        return Ok(());
    }
    tracing::debug!(?costs, "a checkpoint is due");
    let taken = is_last_one_whole(context, &archive)
        .and_then(|reuse| take(context, persister, publication, reuse, stop));
    if let Err(error) = taken {
        tracing::warn!("no checkpoint was made: {}", with_causes(&error));
        let twice = costs.since().saturating_mul(2);
        context.no_checkpoint_before.store(twice, Ordering::Relaxed);
    }
    Ok(())
}

/// Commits a checkpoint. The publication's KVS snapshot is that of the last snapshot. With `reuse` it
/// names what an earlier one holds again.
pub(super) fn take(
    context: &StageContext,
    persister: &Persister,
    publication: &Publication,
    reuse: bool,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    let archive = &context.archive()?;
    let writer = context.ports.writer.ok_or(AgentError::Follower)?;
    let snapshot = NextSnapshot::after(archive, context.ports.floor).snapshot;
    let epoch = context.ports.epoch;
    let number = |summary: &SnapshotSummary| summary.snapshot;
    assert!(archive.snapshots().next_back().map(number) < Some(snapshot), "it is behind them");
    let mounted = context.ports.instance.open_snapshot(publication)?;
    let status = context.status_sink(StatusHeader { epoch, snapshot })?;
    let request = CheckpointRequest {
        epoch,
        writer,
        snapshot,
        archive,
        reuse,
        mounted: mounted.as_ref(),
        status: &status,
        stop,
    };
    let taken = context.in_background(|| persister.checkpoint(&request))?;
    taken.map(drop).map_err(|error| {
        let error = AgentError::from(error);
        status.record_failure("checkpoint", &error);
        error
    })
}

/// Whether no object of the last checkpoint is known to be damaged.
fn is_last_one_whole(context: &StageContext, archive: &Archive<'_>) -> Result<bool, AgentError> {
    let is_checkpoint = |summary: &&SnapshotSummary| summary.kind == StepKind::Checkpoint;
    let Some(last) = archive.snapshots().rev().find(is_checkpoint) else { return Ok(true) };
    let was_taken_back = |status: SnapshotStatus| {
        !status.lost_objects.is_empty()
            || status.was_verified.iter().any(|place| !status.is_verified_in(place))
    };
    Ok(!context.status(last)?.is_some_and(was_taken_back))
}
