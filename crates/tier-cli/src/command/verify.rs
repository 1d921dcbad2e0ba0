//! `tier verify`: checks every object, here and in the cloud.

use anyhow::{Result, bail};
use serde_json::json;
use tier_persist::{Archive, Damage, VerifyReport, Watch};
use tier_status::{SnapshotStatus, Stage, StatusHeader, Tier};
use tier_types::ObjectStore;

use crate::args::VerifyArgs;
use crate::console::{DamageFound, output};
use crate::context::{Context, OpenMode};
use crate::store::Store;

pub(super) fn run(context: &Context, args: &VerifyArgs) -> Result<()> {
    let read_data = args.read_data;
    let store = context.open_as(&args.store, OpenMode::IndexBehind)?;
    let mut report = verify_one(context, &store, &store.base.local, read_data)?;
    let committed = |status: &SnapshotStatus| status.stage >= Stage::Committed;
    let mut lost = lost_manifests(&store, &store.base.local, &committed)?;
    if let Some(cloud) = &store.base.cloud {
        // What is in the cloud need not be here.
        report.damages.retain(|damage| !damage.missing);
        let there = verify_one(context, &store, cloud.as_ref(), read_data)?;
        report.n_objects += there.n_objects;
        report.bytes += there.bytes;
        report.n_members += there.n_members;
        let in_cloud =
            |damage: Damage| Damage { object: format!("cloud: {}", damage.object), ..damage };
        report.damages.extend(there.damages.into_iter().map(in_cloud));
        let pushed = |status: &SnapshotStatus| status.verified == Some(Tier::Cloud);
        let gone = lost_manifests(&store, cloud.as_ref(), &pushed)?;
        lost.extend(gone.into_iter().map(in_cloud));
    }
    report.damages.extend(lost);
    let (mut text, damages) = output::damages(&report.damages);
    let json = json!({
        "objects": report.n_objects,
        "bytes": report.bytes,
        "members": report.n_members,
        "damages": damages,
    });
    text.push_str(&format!(
        "Checked {} objects, {}; {} damaged or missing.\n",
        report.n_objects,
        output::bytes(report.bytes),
        report.damages.len()
    ));
    context.console.report(&json, &text)?;
    if report.damages.is_empty() {
        return Ok(());
    }
    bail!(DamageFound(format!("{} objects are damaged or missing", report.damages.len())))
}

/// Snapshots that were once in a store, and are not any more.
fn lost_manifests(
    store: &Store,
    objects: &dyn ObjectStore,
    was_there: &dyn Fn(&SnapshotStatus) -> bool,
) -> Result<Vec<Damage>> {
    // First what was there, then what is: a snapshot may come in between.
    let statuses = store.book.all()?;
    let archive = Archive::open(objects, &store.base.keys, store.base.filesystem)?;
    let mut lost = Vec::new();
    for status in statuses.iter().filter(|status| was_there(status)) {
        let StatusHeader { epoch, snapshot } = status.header;
        if !archive.snapshots().any(|s| (s.epoch, s.snapshot) == (epoch, snapshot)) {
            lost.push(Damage {
                object: format!("the manifest of snapshot {snapshot} (epoch {epoch})"),
                problem: "it was committed and is missing".into(),
                missing: true,
            });
        }
    }
    Ok(lost)
}

fn verify_one(
    context: &Context,
    store: &Store,
    objects: &dyn ObjectStore,
    read_data: bool,
) -> Result<VerifyReport> {
    let archive = Archive::open(objects, &store.base.keys, store.base.filesystem)?;
    let stop = context.console.stop()?;
    let bar = context.console.progress("verifying");
    let (mut n_objects, mut bytes) = (0, 0);
    let mut progress = |n| {
        n_objects += 1;
        bytes += n;
        bar.files_and_bytes(n_objects, bytes);
    };
    Ok(archive.verify(read_data, &mut Watch::new(stop.flag(), &mut progress))?)
}
