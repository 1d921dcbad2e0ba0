//! `tier verify`: checks every object, here and in the cloud.
//!
//! The manifests say what must be there. Manifests that are gone say nothing, so that the status
//! logs are asked as well, which know what was once committed here and verified in the cloud. What
//! is in the cloud need not be here: an object that is missing here is damage only without a cloud.
//! The index is not asked: it may be behind or wrong, and is none of what a restore needs.

use anyhow::{Result, bail};
use serde_json::json;
use tier_persist::Watch;
use tier_store::audit;

use crate::args::VerifyArgs;
use crate::console::{DamageFound, output};
use crate::context::Context;
use crate::open_store::OpenMode;

pub(super) fn run(context: &Context, args: &VerifyArgs) -> Result<()> {
    let store = context.open_as(&args.store, OpenMode::IndexMayLag)?;
    let stop = context.console.stop()?;
    // The bar ends with this block: the report is printed where its line was.
    let report = {
        let bar = context.console.progress("verifying");
        let (mut n_objects, mut bytes) = (0, 0);
        let mut progress = |n| {
            n_objects += 1;
            bytes += n;
            bar.files_and_bytes(n_objects, bytes);
        };
        let mut watch = Watch::new(stop.flag(), &mut progress);
        audit(store.store.dir(), store.book(), args.read_data, &mut watch)?
    };
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
