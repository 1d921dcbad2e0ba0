//! `tier repair`: puts right what one copy of the archive has damaged or lost and the other has, or
//! the filesystem.

use anyhow::{Result, bail};
use serde_json::json;
use tier_store::RepairReport;
use tier_types::SnapshotId;

use super::lost;
use crate::args::RepairArgs;
use crate::console::{DamageFound, output};
use crate::context::Context;

pub(super) fn run(context: &Context, args: &RepairArgs) -> Result<()> {
    let store = context.open_to_write(&args.store)?;
    let stop = context.console.stop()?;
    let report = {
        let bar = context.console.progress("repairing");
        let (mut n_objects, mut bytes) = (0, 0);
        let mut progress = |n| {
            n_objects += 1;
            bytes += n;
            bar.files_and_bytes(n_objects, bytes);
        };
        store.store.repair(stop.flag(), &mut progress)?
    };
    let RepairReport {
        repaired_here,
        claimed_again,
        uploaded,
        not_uploaded,
        persisted_again,
        found_again,
        lost,
        left,
    } = &report;
    let listed =
        lost::list(&store.fs, lost, "are lost: neither a copy nor the filesystem has them")?;
    let (damages_text, damages) = output::damages(left);
    let mut text = String::new();
    for name in repaired_here {
        text.push_str(&format!("{name}: put right here, from the cloud\n"));
    }
    if let Some(claim) = claimed_again {
        text.push_str(&format!("{claim}: made again\n"));
    }
    for snapshot in persisted_again {
        text.push_str(&format!("snapshot {snapshot}: no copy had all of it; persisted again\n"));
    }
    for snapshot in found_again {
        text.push_str(&format!("snapshot {snapshot}: a copy has again what was lost of it\n"));
    }
    for snapshot in uploaded {
        text.push_str(&format!("snapshot {snapshot}: uploaded and verified again\n"));
    }
    text.push_str(&damages_text);
    text.push_str(&listed.text);
    text.push_str(&format!(
        "{} objects put right here, {} snapshots uploaded again; {} objects are left that no copy has \
         whole.\n",
        repaired_here.len(),
        uploaded.len(),
        left.len()
    ));
    let json = json!({
        "repaired_here": repaired_here,
        "claimed_again": claimed_again,
        "uploaded": uploaded.iter().copied().map(SnapshotId::get).collect::<Vec<_>>(),
        "persisted_again":
            persisted_again.iter().copied().map(SnapshotId::get).collect::<Vec<_>>(),
        "found_again": found_again.iter().copied().map(SnapshotId::get).collect::<Vec<_>>(),
        "lost": listed.json,
        "left": damages,
    });
    context.console.report(&json, &text)?;
    if !left.is_empty() {
        let n_left = left.len();
        bail!(DamageFound(format!("{n_left} objects are damaged or missing in every copy")));
    }
    match not_uploaded {
        Some(error) => bail!("what is damaged in the cloud could not be uploaded again: {error}"),
        None if lost.n_ranges() > 0 => bail!(DamageFound(lost::summary(lost))),
        None => Ok(()),
    }
}
