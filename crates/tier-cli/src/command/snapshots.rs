//! `tier snapshots`: the persisted snapshots, and how far each has got.

use anyhow::Result;
use serde_json::{Value, json};
use tier_persist::StepKind;
use tier_status::{Stage, StatusHeader};

use super::status::{stage_in, stage_name};
use crate::args::SnapshotsArgs;
use crate::console::output;
use crate::context::Context;

pub(super) fn run(context: &Context, args: &SnapshotsArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let archive = store.archive()?;
    let place = store.store.dir().safe_place();
    let mut rows = Vec::new();
    let mut text = String::new();
    let mut statuses = Vec::new();
    for summary in archive.snapshots() {
        let header = StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
        statuses.push((summary, store.book().status(header)?));
    }
    // A store that was restored by a checkpoint has no logs of what came before that. Otherwise a
    // log was lost or moved away; what the archive lists was committed, and the index has it.
    let restored_by = statuses.iter().rev().find_map(|(summary, status)| {
        let from = status.as_ref()?.restored_from.as_ref();
        (from.is_some() && from == place.as_ref()).then_some(summary.snapshot)
    });
    for (summary, status) in statuses {
        let is_restored = restored_by > Some(summary.snapshot);
        let without_log = if is_restored { Stage::VerifiedCloud } else { Stage::Indexed };
        let stage = status.map_or(without_log, |status| stage_in(&status, place.as_ref()));
        text.push_str(&format!(
            "{:>6}  {}  xids {:<17}  {:>8} inodes  {:>12}  {:>3} tarballs  {:>12}  {}\n",
            summary.snapshot.get(),
            summary.created,
            summary.range.map_or_else(|| "-".into(), |range| range.to_string()),
            summary.n_inodes,
            output::bytes(summary.data_bytes),
            summary.n_tarballs,
            output::bytes(summary.tarball_bytes),
            stage_name(stage),
        ));
        let remark = match (summary.kind, summary.covered) {
            (StepKind::Checkpoint, _) => " (checkpoint)\n",
            (StepKind::Snapshot, Some(_)) => " (part)\n",
            (StepKind::Snapshot, None) => "\n",
        };
        text.truncate(text.trim_end().len());
        text.push_str(remark);
        rows.push(json!({
            "snapshot": summary.snapshot.get(),
            "epoch": summary.epoch.get(),
            "created": summary.created.to_string(),
            "first_xid": summary.range.map(|range| range.start().get()),
            "last_xid": summary.last_xid.get(),
            "inodes": summary.n_inodes,
            "data_bytes": summary.data_bytes,
            "tarballs": summary.n_tarballs,
            "tarball_bytes": summary.tarball_bytes,
            "state": stage_name(stage),
            "is_part": summary.covered.is_some(),
            "kind": match summary.kind {
                StepKind::Snapshot => "snapshot",
                StepKind::Checkpoint => "checkpoint",
            },
            "table_bytes": summary.table_bytes,
        }));
    }
    context.console.report(&Value::Array(rows), &text)
}
