//! Moving data between tiers.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tier_agent::{AgentReport, Task};
use tier_evict::{EvictReport, PassGoal};
use tier_types::{FileKind, MountedInstance};

use crate::args::EvictGoal;
use crate::exit::DamageFound;
use crate::session::Session;
use crate::store::Store;
use crate::{output, walk};

pub(crate) fn snapshot(session: &Session, store: &Path) -> Result<()> {
    let store = session.open(store)?;
    let report = session.perform(&store, Task::Snapshot, "taking a snapshot")?;
    session.report(&snapshot_json(&report), &snapshot_text(&report))?;
    let failed = report.persisted.map_or(0, |persisted| persisted.report.failed.len());
    if failed > 0 {
        bail!(DamageFound(format!("{failed} inodes could not be read")));
    }
    Ok(())
}

pub(crate) fn push(session: &Session, store: &Path) -> Result<()> {
    let store = session.open(store)?;
    let report = session.perform(&store, Task::Upload, "pushing")?;
    let n = report.uploaded.len();
    let text = format!("{n} snapshots were pushed and verified.\n");
    session.report(&snapshot_json(&report), &text)
}

fn snapshot_text(report: &AgentReport) -> String {
    let Some(persisted) = &report.persisted else {
        return match report.uploaded.len() {
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
    let uploaded: Vec<_> = report.uploaded.iter().map(|snapshot| snapshot.get()).collect();
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
    json!({ "persisted": persisted, "verified": uploaded })
}

pub(crate) fn evict(
    session: &Session,
    store: &Path,
    goal: &EvictGoal,
    dry_run: bool,
) -> Result<()> {
    let store = session.open(store)?;
    let goal = pass_goal(&store, goal)?;
    let task = if dry_run { Task::EvictDryRun(goal) } else { Task::Evict(goal) };
    let before = store.fs.usage()?;
    let report = session.perform(&store, task, "evicting")?.evicted.unwrap_or_default();
    let after = store.fs.usage()?;
    let disk_bytes = before.physical_bytes.saturating_sub(after.physical_bytes);
    let json = json!({
        "dry_run": dry_run,
        "candidates": report.n_candidates,
        "evicted": report.n_evicted,
        "bytes": report.bytes,
        "spared": report.n_retained,
        "not_safe": report.n_not_safe,
        "disk_bytes": disk_bytes,
    });
    session.report(&json, &evict_text(&report, disk_bytes, dry_run))
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
    if report.n_retained > 0 {
        text.push_str(&format!("{} were spared by the policy.\n", report.n_retained));
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

pub(crate) fn recall(session: &Session, store: &Path, paths: &[OsString]) -> Result<()> {
    let store = session.open(store)?;
    let stop = session.stop()?;
    let bar = session.bar("recalling");
    let (mut n_files, mut bytes) = (0_u64, 0_u64);
    for path in paths {
        let start = walk::resolve(&store.fs, path)?;
        walk::tree(&store.fs, start, |name, attr| {
            stop.check()?;
            if matches!(attr.kind, FileKind::Regular) {
                let came = store.fs.recall_file(attr.ino, stop.flag());
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
    session.report(&json!({ "files": n_files, "bytes": bytes }), &text)
}

pub(crate) fn pin(session: &Session, store: &Path, paths: &[OsString], pinned: bool) -> Result<()> {
    let store = session.open(store)?;
    for path in paths {
        let attr = walk::resolve(&store.fs, path)?;
        store.fs.set_pin(attr.ino, pinned)?;
    }
    Ok(store.fs.fsync()?)
}

pub(crate) fn pause(session: &Session, paused: bool) -> Result<()> {
    let scheduler = session.daemon().and_then(|daemon| daemon.scheduler());
    let scheduler = scheduler.context("the store is not mounted with its agent running")?;
    if paused {
        scheduler.pause();
    } else {
        scheduler.resume();
    }
    Ok(())
}
