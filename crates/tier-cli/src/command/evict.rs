//! `tier evict`: frees space in the key-value store now.
//!
//! The agent is asked, so that this never runs beside another eviction. Local copies of what the
//! cloud has go first, then what the policy picks among data that is safe; whole batches are worked
//! through, so that more may go than was asked for. What the disk gets back is measured, not
//! computed: the key-value store gives space back when it compacts.

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tier_agent::{SpaceGoal, Task};
use tier_evict::{EvictReport, RetainedCounts};
use tier_types::{InstanceView, Reclaimed};

use crate::args::{EvictArgs, EvictGoal};
use crate::console::{DamageFound, output};
use crate::context::Context;
use crate::open_store::OpenStore;

pub(super) fn run(context: &Context, args: &EvictArgs) -> Result<()> {
    let EvictArgs { store, goal, dry_run } = args;
    let store = context.open_to_write(store)?;
    let goal = space_goal(&store, goal)?;
    let task = if *dry_run { Task::EvictDryRun(goal) } else { Task::Evict(goal) };
    let before = store.fs.usage()?;
    let (report, uploaded) = perform(context, &store, task)?;
    // The disk is asked and not the report: chunk bytes are not what the database frees.
    let after = store.fs.usage()?;
    // Other work may have made the store grow meanwhile.
    let evicted_bytes = before.physical_bytes.saturating_sub(after.physical_bytes);
    let disk_bytes = if *dry_run { 0 } else { evicted_bytes + report.dropped_bytes };
    let json = json!({
        "dry_run": dry_run,
        "candidates": report.n_candidates,
        "evicted": report.n_evicted,
        "bytes": report.bytes,
        "retained": report.retained.n_inodes(),
        "retained_by_reason": {
            "pinned": report.retained.n_pinned,
            "young": report.retained.n_young,
            "small": report.retained.n_small,
            "goal_reached": report.retained.n_goal_reached,
        },
        "not_safe": report.n_not_safe,
        "damaged": report.n_damaged,
        "garbage_bytes": report.reclaimed.garbage_bytes,
        "pinned_bytes": report.reclaimed.pinned_bytes,
        "dropped": report.n_dropped,
        "dropped_bytes": report.dropped_bytes,
        "disk_bytes": disk_bytes,
    });
    context.console.report(&json, &report_text(&report, disk_bytes, *dry_run))?;
    if report.n_damaged > 0 {
        let n = report.n_damaged;
        bail!(DamageFound(format!("{n} inodes are damaged and keep their data: see tier fsck")));
    }
    uploaded.context("what was safe is evicted, and more is not safe yet")
}

/// Has the agent carry out a task of eviction. Also what was done without an upload that failed.
pub(super) fn perform(
    context: &Context,
    store: &OpenStore,
    task: Task,
) -> Result<(EvictReport, Result<()>)> {
    let (report, uploaded) = context.perform_all(store, task, "evicting")?;
    let evicted = report.evicted.context("the agent was to evict, and reports no eviction")?;
    Ok((evicted, uploaded))
}

fn report_text(report: &EvictReport, disk_bytes: u64, dry_run: bool) -> String {
    let verb = if dry_run { "Would evict" } else { "Evicted" };
    let mut text = String::new();
    if report.dropped_bytes > 0 {
        let verb = if dry_run { "Would drop" } else { "Dropped" };
        let bytes = output::bytes(report.dropped_bytes);
        text.push_str(&format!("{verb} {bytes} of local copies of what the cloud has.\n"));
    }
    text.push_str(&format!(
        "{verb} {} of file data in {} of {} inodes that came up.\n",
        output::bytes(report.bytes),
        report.n_evicted,
        report.n_candidates
    ));
    if !dry_run {
        text.push_str(&format!("The disk got {} back.\n", output::bytes(disk_bytes)));
    }
    let Reclaimed { garbage_bytes, pinned_bytes, .. } = report.reclaimed;
    if pinned_bytes > 0 {
        let pinned = output::bytes(pinned_bytes);
        text.push_str(&format!("{pinned} follow when a snapshot that is being taken is done.\n"));
    }
    if garbage_bytes > 0 {
        let garbage = output::bytes(garbage_bytes);
        text.push_str(&format!("About {garbage} of small files follow as files are rewritten.\n"));
    }
    if report.retained.n_inodes() > 0 {
        let RetainedCounts { n_pinned, n_young, n_small, n_goal_reached } = report.retained;
        let reasons = [
            (n_pinned, "pinned"),
            (n_young, "used lately"),
            (n_small, "small"),
            (n_goal_reached, "not needed for the goal"),
        ];
        let told = reasons.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}"));
        let told: Vec<_> = told.collect();
        let n = report.retained.n_inodes();
        text.push_str(&format!("{n} were retained by the policy: {}.\n", told.join(", ")));
    }
    if report.n_not_safe > 0 {
        text.push_str(&format!(
            "{} have data that is not in a verified snapshot yet; run tier snapshot.\n",
            report.n_not_safe
        ));
    }
    text
}

fn space_goal(store: &OpenStore, goal: &EvictGoal) -> Result<SpaceGoal> {
    match goal {
        EvictGoal { bytes: Some(bytes), .. } => Ok(SpaceGoal::Bytes(*bytes)),
        EvictGoal { to: Some(percent), .. } => {
            let usage = store.fs.usage()?;
            let total = usage.resident_bytes + usage.cold_bytes;
            // Divided first, so that the product cannot overflow; a rest below a hundred bytes does
            // not matter.
            let kept = total / 100 * u64::from(*percent);
            Ok(SpaceGoal::ResidentBytes(kept))
        }
        EvictGoal { bytes: None, to: None, all } => {
            assert!(all, "the command line names one goal");
            Ok(SpaceGoal::Everything)
        }
    }
}
