//! `tier verify`: checks every object, here and in the cloud.
//!
//! The index says which manifests there are, with the digest of each, and they say what else must
//! be there; so what is lost together with its manifest is missed as well. What is in the cloud
//! need not be here: an object that is missing here is damage only without a cloud. The index is
//! also asked for what no object has: the ranges of files that could not be read when they were
//! persisted, and that nothing has replaced since.

use anyhow::{Result, bail};
use serde_json::json;
use tier_persist::{LostRanges, Watch};
use tier_store::AuditReport;

use super::lost;
use crate::args::VerifyArgs;
use crate::console::{DamageFound, output};
use crate::context::Context;
use crate::open_store::OpenMode;

pub(super) fn run(context: &Context, args: &VerifyArgs) -> Result<()> {
    let store = context.open_as(&args.store, OpenMode::IndexMayLag)?;
    let stop = context.console.stop()?;
    // The bar ends with this block: the report is printed where its line was.
    let AuditReport { checked: report, unsafe_now, not_recorded } = {
        let bar = context.console.progress("verifying");
        let (mut n_objects, mut bytes) = (0, 0);
        let mut progress = |n| {
            n_objects += 1;
            bytes += n;
            bar.files_and_bytes(n_objects, bytes);
        };
        let mut watch = Watch::new(stop.flag(), &mut progress);
        store.store.audit(args.read_data, &mut watch)?
    };
    let (mut text, damages) = output::damages(&report.damages);
    // An index that cannot tell is an error in the end: what the objects are is said before.
    let lost = LostRanges::of_index(store.index());
    let listed = match &lost {
        Ok(lost) => Some(lost::list(&store.fs, lost, "are lost: they are in no object")?),
        Err(_) => None,
    };
    if let Some(listed) = &listed {
        text.push_str(&listed.text);
    }
    let json = json!({
        "objects": report.n_objects,
        "bytes": report.bytes,
        "members": report.n_members,
        "frozen": report.frozen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "damages": damages,
        "unsafe_snapshots": unsafe_now.iter().map(|snapshot| snapshot.get()).collect::<Vec<_>>(),
        "not_recorded": not_recorded,
        "lost": listed.map(|listed| listed.json),
    });
    text.push_str(&format!(
        "Checked {} objects, {}; {} damaged or missing.\n",
        report.n_objects,
        output::bytes(report.bytes),
        report.damages.len()
    ));
    if !report.frozen.is_empty() {
        text.push_str(&format!(
            "{} of them are frozen in the cloud: only their length was compared.\n",
            report.frozen.len()
        ));
    }
    if let Some(error) = &not_recorded {
        text.push_str(&format!(
            "It could not be recorded of all of these that they are not safe: {error}. Repeat this \
             before anything is evicted.\n"
        ));
    } else if !unsafe_now.is_empty() {
        text.push_str(&format!(
            "{} snapshots do not count as safe any more, and nothing is evicted against them: tier \
             repair puts right what another copy has\n",
            unsafe_now.len()
        ));
    }
    context.console.report(&json, &text)?;
    let lost = lost?;
    let mut problems = Vec::new();
    if !report.damages.is_empty() {
        problems.push(format!("{} objects are damaged or missing", report.damages.len()));
    }
    if lost.n_ranges() > 0 {
        problems.push(format!("the archive has {}", lost::summary(&lost)));
    }
    if problems.is_empty() { Ok(()) } else { bail!(DamageFound(problems.join("; "))) }
}
