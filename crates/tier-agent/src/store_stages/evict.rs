//! The evict stage: an eviction pass over what is safe.
//!
//! The evicter is handed a range of transactions and an archive to ask. Both end at the last
//! snapshot that is safe with all before it: the range says what comes up, the archive is asked
//! only for what that snapshot or an earlier one holds. A version that lies in a later snapshot,
//! committed but not verified, counts as not persisted.

use std::sync::atomic::AtomicBool;

use tier_evict::{EvictError, EvictReport, EvictRequest, Evicter, PassGoal};
use tier_status::{NullSink, StatusSink};
use tier_types::{Persisted, Xid};

use super::context::{StageContext, header_of};
use crate::AgentError;

/// What a pass is asked for.
#[derive(Clone, Copy)]
pub(super) struct PassWanted {
    /// The last safe transaction.
    pub(super) safe: Xid,
    pub(super) goal: PassGoal,
}

/// Evicts, and gives the space back to the disk.
pub(super) fn evict(
    context: &StageContext,
    evicter: &Evicter,
    wanted: PassWanted,
    stop: &AtomicBool,
) -> Result<EvictReport, AgentError> {
    // The step names a transaction; the gate needs the snapshot that ends with it.
    let Some(safe) = context.how_far(&context.archive()?)?.safe else {
        tracing::debug!("nothing is safe, and nothing is evicted");
        return Ok(EvictReport::default());
    };
    let status = context.status_sink(header_of(&safe))?;
    let persisted = context.ports.history.index().persisted_until(safe.snapshot);
    let instance = context.ports.instance.as_ref();
    let resident_bytes = || instance.usage().map(|usage| usage.resident_bytes);
    let before = resident_bytes();
    let passed = evicter.evict(&request(context, wanted, &persisted, &status, stop));
    // Whatever ended the pass, but for a stop, which is not to wait for it. Reclaiming makes the
    // key-value store rewrite files: too much work for nothing.
    let has_freed = match &passed {
        Ok(report) => report.bytes > 0,
        Err(EvictError::Cancelled) => false,
        // What is not known may have been freed.
        Err(_) => {
            before.ok().zip(resident_bytes().ok()).is_none_or(|(before, after)| after < before)
        }
    };
    let reclaimed = if has_freed { instance.reclaim() } else { Ok(0) };
    let report = passed?;
    let (evicted_bytes, reclaimed_bytes) = (report.bytes, reclaimed?);
    tracing::info!(evicted_bytes, reclaimed_bytes, "space reclaimed");
    Ok(report)
}

/// What [`evict`] would do.
pub(super) fn evict_dry_run(
    context: &StageContext,
    evicter: &Evicter,
    wanted: PassWanted,
) -> Result<EvictReport, AgentError> {
    let Some(safe) = context.how_far(&context.archive()?)?.safe else {
        tracing::debug!(safe = %wanted.safe, "nothing is safe, and nothing would be evicted");
        return Ok(EvictReport::default());
    };
    let persisted = context.ports.history.index().persisted_until(safe.snapshot);
    // A dry run only asks and is not stopped, but the request has a token.
    let stop = AtomicBool::new(false);
    Ok(evicter.dry_run(&request(context, wanted, &persisted, &NullSink, &stop))?)
}

fn request<'a>(
    context: &'a StageContext,
    wanted: PassWanted,
    persisted: &'a dyn Persisted,
    status: &'a dyn StatusSink,
    stop: &'a AtomicBool,
) -> EvictRequest<'a> {
    EvictRequest {
        // A restored filesystem has no segments up to its floor, and asking for them would be a
        // gap.
        first: context.ports.floor.xid.next(),
        safe: wanted.safe,
        goal: wanted.goal,
        log: context.ports.log.as_ref(),
        instance: context.ports.instance.as_ref(),
        persisted,
        status,
        stop,
    }
}
