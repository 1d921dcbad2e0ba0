//! The evict stage: room on the disk, from what is safe.
//!
//! Where room on the disk is wanted, what costs least goes first: local copies of tarballs that the
//! cloud has, which are read from there from then on. Only then the evicter is asked, and what it
//! evicted is given back to the disk.
//!
//! The evicter is handed a range of transactions and an archive to ask. Both end at the last
//! snapshot that is safe with all before it: the range says what comes up, the archive is asked
//! only for what that snapshot or an earlier one holds. A version that lies in a later snapshot,
//! committed but not verified, counts as not persisted.
//!
//! A pass that is under way when something of the archive turns out to be damaged ends before its
//! next call, before it is recorded what is safe no more ([`StageContext::lower_safe`]).

use std::sync::atomic::{AtomicBool, Ordering};

use tier_evict::{
    DryRunRequest, EvictError, EvictReport, EvictRequest, EvictScope, Evicter, PassGoal,
};
use tier_persist::SnapshotSummary;
use tier_types::{Dropped, ErrorKind, PortError, Reclaimed, Xid, with_causes};

use super::context::{StageContext, header_of};
use super::next_snapshot::complete_xid;
use super::spare;
use crate::{AgentError, SpaceGoal};

/// Frees space down to the low mark, if it is low.
pub(super) fn make_room(
    context: &StageContext,
    evicter: &Evicter,
    stop: &AtomicBool,
) -> Result<Option<EvictReport>, AgentError> {
    let marks = context.ports.marks;
    let space = context.ports.instance.usage()?.space;
    if !marks.is_low(&space) {
        return Ok(None);
    }
    // Where operations wait although little is used, because something else takes the disk, what
    // they need is not known.
    let goal = SpaceGoal::Bytes(marks.excess_bytes(&space).max(space.reserve_bytes));
    evict(context, evicter, goal, stop).map(Some)
}

/// Drops local copies and evicts, and gives the space back to the disk.
pub(super) fn evict(
    context: &StageContext,
    evicter: &Evicter,
    goal: SpaceGoal,
    stop: &AtomicBool,
) -> Result<EvictReport, AgentError> {
    spare::tell(context)?;
    let dropped = context.ports.local.drop_spare(goal.dropped_bytes_min());
    // File data can go all the same.
    let Dropped { n_objects, bytes } = *dropped.as_ref().unwrap_or(&Dropped::default());
    if n_objects > 0 {
        tracing::info!(n_objects, bytes, "local copies of the cloud's objects dropped");
    }
    let resident_bytes = resident_bytes(context)?;
    let passed = match goal.for_pass(bytes, resident_bytes) {
        Some(rest) => pass(context, evicter, rest, resident_bytes, stop)?,
        None => EvictReport::default(),
    };
    if let Err(error) = dropped {
        tracing::warn!("local copies cannot be dropped: {}", with_causes(&error));
        // What makes no room at all must not pass for a store that has nothing to give.
        if passed.bytes == 0 {
            return Err(error.into());
        }
    }
    Ok(EvictReport { n_dropped: n_objects, dropped_bytes: bytes, ..passed })
}

/// Bytes of file data in the key-value store.
fn resident_bytes(context: &StageContext) -> Result<u64, AgentError> {
    Ok(context.ports.instance.usage()?.resident_bytes)
}

/// An eviction pass, and what the disk gets back of it.
fn pass(
    context: &StageContext,
    evicter: &Evicter,
    goal: PassGoal,
    resident_before: u64,
    stop: &AtomicBool,
) -> Result<EvictReport, AgentError> {
    // What is damaged from here on waits for the pass to end, which it does before its next call.
    let passing = context.passes.read();
    // The step names a transaction; the gate needs the snapshot that ends with it.
    let Some(safe) = context.how_far(&context.archive()?)?.safe else {
        tracing::debug!("nothing is safe, and nothing is evicted");
        return Ok(EvictReport::default());
    };
    let status = context.status_sink(header_of(&safe))?;
    let persisted = context.ports.history.index().persisted_until(safe.snapshot);
    let instance = context.ports.instance.as_ref();
    let has_fallen = || context.safe_falls.load(Ordering::SeqCst) > 0;
    let is_stopped = || stop.load(Ordering::Relaxed) || has_fallen();
    let passed = evicter.evict(&EvictRequest {
        scope: scope(context, &safe, goal),
        log: context.ports.log.as_ref(),
        instance,
        persisted: &persisted,
        status: &status,
        is_stopped: &is_stopped,
    });
    drop(passing);
    if passed.is_ok() {
        retire_segments(context, evicter);
    }
    // Whatever ended the pass, but for a stop, which is not to wait for it. Reclaiming makes the
    // key-value store rewrite files: too much work for nothing.
    let has_freed = match &passed {
        Ok(report) => report.bytes > 0,
        Err(EvictError::Cancelled) => false,
        // What is not known may have been freed.
        Err(_) => resident_bytes(context).map_or(true, |after| after < resident_before),
    };
    let reclaimed = if has_freed {
        instance.reclaim(&|| stop.load(Ordering::Relaxed))
    } else {
        Ok(Reclaimed::default())
    };
    let report = match passed {
        Err(EvictError::Cancelled) if !stop.load(Ordering::Relaxed) => {
            let problem = "an object of the archive was found to be damaged or missing: evicting \
                           stops, and goes on with what is safe";
            return Err(PortError::new(ErrorKind::Away, problem).into());
        }
        passed => passed?,
    };
    let (evicted_bytes, reclaimed) = (report.bytes, reclaimed?);
    tracing::info!(evicted_bytes, ?reclaimed, "space reclaimed");
    Ok(EvictReport { reclaimed, ..report })
}

/// Says to the log what is needed no more of it: what is complete in the archive, safe, and behind
/// the evicter. That it fails costs room and nothing else.
fn retire_segments(context: &StageContext, evicter: &Evicter) {
    let retire = || -> Result<(), AgentError> {
        let complete = complete_xid(&context.archive()?);
        // The cursor is the first transaction that no pass has gone through, and a pass goes as far
        // as is safe.
        let passed = evicter.cursor()?.get().saturating_sub(1);
        Ok(context.ports.log.retire_segments(complete.min(Xid::new(passed)))?)
    };
    if let Err(error) = retire() {
        tracing::warn!("log segments are not retired: {}", with_causes(&error));
    }
}

/// What [`evict`] would do.
pub(super) fn evict_dry_run(
    context: &StageContext,
    evicter: &Evicter,
    goal: SpaceGoal,
    stop: &AtomicBool,
) -> Result<EvictReport, AgentError> {
    spare::tell(context)?;
    let Dropped { n_objects, bytes } = context.ports.local.would_drop(goal.dropped_bytes_min());
    let dropped =
        EvictReport { n_dropped: n_objects, dropped_bytes: bytes, ..EvictReport::default() };
    let Some(rest) = goal.for_pass(bytes, resident_bytes(context)?) else { return Ok(dropped) };
    let Some(safe) = context.how_far(&context.archive()?)?.safe else {
        tracing::debug!("nothing is safe, and nothing would be evicted");
        return Ok(dropped);
    };
    let report = evicter.dry_run(&DryRunRequest {
        scope: scope(context, &safe, rest),
        log: context.ports.log.as_ref(),
        instance: context.ports.instance.as_ref(),
        is_stopped: &|| stop.load(Ordering::Relaxed),
    })?;
    Ok(EvictReport { n_dropped: n_objects, dropped_bytes: bytes, ..report })
}

/// What a pass goes through.
fn scope(context: &StageContext, safe: &SnapshotSummary, goal: PassGoal) -> EvictScope {
    EvictScope {
        // A restored filesystem has no segments up to its floor, and asking for them would be a
        // gap.
        first: context.ports.floor.xid.next(),
        safe: safe.last_xid,
        covered: safe.covered,
        goal,
    }
}
