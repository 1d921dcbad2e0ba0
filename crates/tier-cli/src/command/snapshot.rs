//! `tier snapshot`: publishes, persists, uploads and verifies what has changed.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tier_agent::{AgentReport, Task};
use tier_persist::PersistReport;

use super::lost;
use crate::args::SnapshotArgs;
use crate::console::{DamageFound, output};
use crate::context::Context;

/// What is said of bytes that are in no snapshot.
const LOST: &str = "could not be read and are lost";
/// What is said of bytes that an earlier snapshot has.
const UNREAD: &str =
    "could not be read; an earlier snapshot has them, tier fsck --repair brings them back";

pub(super) fn run(context: &Context, args: &SnapshotArgs) -> Result<()> {
    let store = context.open_to_archive(&args.store)?;
    let (report, uploaded) = context.perform_all(&store, Task::Snapshot, "taking a snapshot")?;
    let (text, json) = (report_text(&report, uploaded.is_ok()), report_json(&report));
    let done = report.persisted.map(|persisted| persisted.report).unwrap_or_default();
    let lost = lost::list(&store.fs, &done.lost, LOST)?;
    let unread = lost::list(&store.fs, &done.unread, UNREAD)?;
    let text = [text, lost.text, unread.text].concat();
    let json = json!({
        "persisted": json.get("persisted"),
        "verified": json.get("verified"),
        "lost": lost.json,
        "unread": unread.json,
    });
    // The report comes first: the snapshot exists, also if not all of some inodes is in it.
    context.console.report(&json, &text)?;
    // Exit code 3, because what cannot be read means that the key-value store is damaged.
    match problem(&done) {
        Some(problem) => bail!(DamageFound(problem)),
        None => uploaded,
    }
}

/// What could not be read, in one line.
fn problem(done: &PersistReport) -> Option<String> {
    let unread = done.lost.n_ranges() + done.unread.n_ranges();
    let mut parts = Vec::new();
    if !done.failed.is_empty() {
        parts.push(format!("{} inodes", done.failed.len()));
    }
    if unread > 0 {
        let bytes = done.lost.n_bytes().saturating_add(done.unread.n_bytes());
        parts.push(format!("{unread} damaged ranges of {}", output::bytes(bytes)));
    }
    (!parts.is_empty()).then(|| format!("{} could not be read", parts.join(" and ")))
}

fn report_text(report: &AgentReport, is_safe: bool) -> String {
    // Earlier snapshots may still have been waiting for the cloud.
    let Some(persisted) = &report.persisted else {
        return match report.uploaded.len() {
            0 if !is_safe => String::new(),
            0 => "Nothing has changed since the last snapshot.\n".into(),
            n => format!("Nothing has changed; {n} earlier snapshots were verified.\n"),
        };
    };
    let done = &persisted.report;
    let state = if is_safe { "verified" } else { "persisted here, and not uploaded" };
    let mut text = format!(
        "Snapshot {}: {} inodes, {} of data in {} tarballs of {}, {state}.\n",
        persisted.snapshot,
        done.n_inodes,
        output::bytes(done.data_bytes),
        done.n_tarballs,
        output::bytes(done.tarball_bytes)
    );
    if !done.failed.is_empty() {
        text.push_str(&format!(
            "{} inodes could not be read in full; the next snapshot tries again. See tier status.\n",
            done.failed.len()
        ));
    }
    text
}

pub(super) fn report_json(report: &AgentReport) -> Value {
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
