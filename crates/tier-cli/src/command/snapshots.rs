//! `tier snapshots`: the persisted snapshots, and how far each has got.

use anyhow::Result;
use serde_json::{Value, json};
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
    for summary in archive.snapshots() {
        let header = StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
        // A log may be lost or moved away; what the archive lists was committed, and the index has
        // it.
        let status = store.book().status(header)?;
        let stage = status.map_or(Stage::Indexed, |status| stage_in(&status, place.as_ref()));
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
        if summary.covered.is_some() {
            text.truncate(text.trim_end().len());
            text.push_str(" (part)\n");
        }
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
        }));
    }
    context.console.report(&Value::Array(rows), &text)
}
