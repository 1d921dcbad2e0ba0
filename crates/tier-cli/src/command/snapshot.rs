//! `tier snapshot`: publishes, persists, uploads and verifies what has changed.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tier_agent::{AgentReport, Task};

use crate::args::SnapshotArgs;
use crate::console::{DamageFound, output};
use crate::context::Context;

pub(super) fn run(context: &Context, args: &SnapshotArgs) -> Result<()> {
    let store = context.open_to_write(&args.store)?;
    let report = context.perform(&store, Task::Snapshot, "taking a snapshot")?;
    // The report comes first: the snapshot exists, also if some inodes are not in it.
    context.console.report(&report_json(&report), &report_text(&report))?;
    let failed = report.persisted.map_or(0, |persisted| persisted.report.failed.len());
    // Exit code 3, because an inode that cannot be read means that the key-value store is damaged.
    if failed > 0 {
        bail!(DamageFound(format!("{failed} inodes could not be read")));
    }
    Ok(())
}

fn report_text(report: &AgentReport) -> String {
    // Earlier snapshots may still have been waiting for the cloud.
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
