//! Moving data between tiers.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use tier_agent::{AgentReport, Task, TieringOutAgent};
use tier_evict::{EvictReport, PassGoal};
use tier_types::{FileKind, MountedInstance};

use crate::args::EvictGoal;
use crate::exit::DamageFound;
use crate::progress::Bar;
use crate::store::Store;
use crate::{output, walk};

pub(crate) fn snapshot(store: &Path, as_json: bool) -> Result<()> {
    let store = Store::open(store)?;
    let report = perform(&store, Task::Snapshot, "taking a snapshot")?;
    output::report(as_json, &snapshot_json(&report), &snapshot_text(&report))?;
    let failed = report.persisted.map_or(0, |persisted| persisted.report.failed.len());
    if failed > 0 {
        bail!(DamageFound(format!("{failed} inodes could not be read")));
    }
    Ok(())
}

pub(crate) fn push(store: &Path, as_json: bool) -> Result<()> {
    let store = Store::open(store)?;
    let report = perform(&store, Task::Secure, "pushing")?;
    let n = report.secured.len();
    let text = format!("{n} snapshots were pushed and verified.\n");
    output::report(as_json, &snapshot_json(&report), &text)
}

/// Has the agent perform a task; Ctrl-C stops it at the next safe point.
pub(crate) fn perform(store: &Store, task: Task, what: &str) -> Result<AgentReport> {
    let bar = Arc::new(Bar::new(what));
    let agent: TieringOutAgent = store.agent(bar)?;
    let mut signals = Vec::new();
    for signal in [SIGINT, SIGTERM] {
        let registered = signal_hook::flag::register(signal, agent.stop_flag());
        signals.push(registered.context("cannot listen to signals")?);
    }
    let report = agent.perform(task);
    // From here on a signal ends the program again.
    for signal in signals {
        signal_hook::low_level::unregister(signal);
    }
    agent.request_stop();
    agent.join()?;
    Ok(report?)
}

fn snapshot_text(report: &AgentReport) -> String {
    let Some(persisted) = &report.persisted else {
        return match report.secured.len() {
            0 => "Nothing has changed since the last snapshot.\n".into(),
            n => format!("Nothing has changed; {n} earlier snapshots were verified.\n"),
        };
    };
    let done = &persisted.report;
    let mut text = format!(
        "Snapshot {}: {} inodes, {} of data in {} tarballs of {}, verified.\n",
        persisted.snapshot,
        done.n_inodes,
        output::bytes(done.data_bytes),
        done.n_tarballs,
        output::bytes(done.tarball_bytes)
    );
    if !done.failed.is_empty() {
        text.push_str(&format!(
            "{} inodes could not be read and are not in it; see tier status.\n",
            done.failed.len()
        ));
    }
    text
}

fn snapshot_json(report: &AgentReport) -> Value {
    let secured: Vec<_> = report.secured.iter().map(|snapshot| snapshot.get()).collect();
    let persisted = report.persisted.as_ref().map(|persisted| {
        json!({
            "snapshot": persisted.snapshot.get(),
            "inodes": persisted.report.n_inodes,
            "data_bytes": persisted.report.data_bytes,
            "tarballs": persisted.report.n_tarballs,
            "tarball_bytes": persisted.report.tarball_bytes,
            "failed": persisted.report.failed.iter().map(|ino| ino.get()).collect::<Vec<_>>(),
        })
    });
    json!({ "persisted": persisted, "verified": secured })
}

pub(crate) fn evict(store: &Path, goal: &EvictGoal, dry_run: bool, as_json: bool) -> Result<()> {
    let store = Store::open(store)?;
    let goal = pass_goal(&store, goal)?;
    let task = if dry_run { Task::EvictDryRun(goal) } else { Task::Evict(goal) };
    let before = store.fs.usage()?;
    let report = perform(&store, task, "evicting")?.evicted.unwrap_or_default();
    let after = store.fs.usage()?;
    let disk_bytes = before.physical_bytes.saturating_sub(after.physical_bytes);
    let json = json!({
        "dry_run": dry_run,
        "candidates": report.n_candidates,
        "evicted": report.n_evicted,
        "bytes": report.bytes,
        "spared": report.n_spared,
        "not_safe": report.n_not_safe,
        "disk_bytes": disk_bytes,
    });
    output::report(as_json, &json, &evict_text(&report, disk_bytes, dry_run))
}

fn evict_text(report: &EvictReport, disk_bytes: u64, dry_run: bool) -> String {
    let verb = if dry_run { "Would evict" } else { "Evicted" };
    let mut text = format!(
        "{verb} {} of {} in {} of {} inodes that came up.\n",
        output::bytes(report.bytes),
        "file data",
        report.n_evicted,
        report.n_candidates
    );
    if !dry_run {
        text.push_str(&format!("The disk got {} back.\n", output::bytes(disk_bytes)));
    }
    if report.n_spared > 0 {
        text.push_str(&format!("{} were spared by the policy.\n", report.n_spared));
    }
    if report.n_not_safe > 0 {
        text.push_str(&format!(
            "{} have data that is not in a verified snapshot yet; run tier snapshot.\n",
            report.n_not_safe
        ));
    }
    text
}

fn pass_goal(store: &Store, goal: &EvictGoal) -> Result<PassGoal> {
    let usage = store.fs.usage()?;
    Ok(match (goal.bytes, goal.to) {
        (Some(bytes), _) => PassGoal::Bytes(bytes),
        (None, Some(percent)) => {
            let total = usage.resident_bytes + usage.cold_bytes;
            let kept = total / 100 * u64::from(percent);
            PassGoal::Bytes(usage.resident_bytes.saturating_sub(kept))
        }
        (None, None) => PassGoal::Everything,
    })
}

pub(crate) fn recall(store: &Path, paths: &[OsString], as_json: bool) -> Result<()> {
    let store = Store::open(store)?;
    let bar = Bar::new("recalling");
    let (mut n_files, mut bytes) = (0_u64, 0_u64);
    for path in paths {
        let start = walk::resolve(&store.fs, path)?;
        walk::tree(&store.fs, start, |name, attr| {
            if matches!(attr.kind, FileKind::Regular) {
                let came = store.fs.recall_file(attr.ino);
                let came = came.with_context(|| {
                    format!("cannot recall {}/{}", path.display(), output::name(name))
                })?;
                n_files += u64::from(came > 0);
                bytes += came;
                bar.files_and_bytes(n_files, bytes);
            }
            Ok(())
        })?;
    }
    store.fs.fsync()?;
    drop(bar);
    let text = format!("Recalled {} in {n_files} files.\n", output::bytes(bytes));
    output::report(as_json, &json!({ "files": n_files, "bytes": bytes }), &text)
}

pub(crate) fn pin(store: &Path, paths: &[OsString], pinned: bool) -> Result<()> {
    let store = Store::open(store)?;
    for path in paths {
        let attr = walk::resolve(&store.fs, path)?;
        store.fs.set_pin(attr.ino, pinned)?;
    }
    Ok(store.fs.fsync()?)
}
