//! `tier verify`: checks every object, here and in the cloud.
//!
//! The manifests say what must be there. Manifests that are gone say nothing, so that the status
//! logs are asked as well, which know what was once committed here and verified in the cloud. What
//! is in the cloud need not be here: an object that is missing here is damage only without a cloud.
//! The index is not asked for objects: it may be behind or wrong, and is none of what a restore
//! needs. What it is asked for is what no object has: the ranges of files that could not be read
//! when they were persisted, and that nothing has replaced since.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tier_index::{Extent, Index, IndexError};
use tier_persist::{LostRange, LostRanges, Watch};
use tier_store::audit;
use tier_types::ByteRange;

use super::lost;
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
    let mut json = json!({
        "objects": report.n_objects,
        "bytes": report.bytes,
        "members": report.n_members,
        "damages": damages,
    });
    // An index that cannot tell is an error in the end: what the objects are is said before.
    let lost = lost_ranges(store.index());
    if let Ok(lost) = &lost {
        let listed = lost::list(&store.fs, lost, "are lost: they are in no object")?;
        text.push_str(&listed.text);
        json["lost"] = Value::Array(listed.json);
    }
    text.push_str(&format!(
        "Checked {} objects, {}; {} damaged or missing.\n",
        report.n_objects,
        output::bytes(report.bytes),
        report.damages.len()
    ));
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

/// What the archive has as lost.
fn lost_ranges(index: &Index) -> Result<LostRanges, IndexError> {
    let (chunk_bytes, mut lost) = (index.chunk_bytes(), LostRanges::default());
    index.visit_lost(&mut |Extent { ino, chunks, .. }| {
        let offset = chunks.offset_bytes(chunk_bytes);
        let len = chunks.len().saturating_mul(u64::from(chunk_bytes));
        lost.add(LostRange { ino: *ino, bytes: ByteRange { offset, len } });
        Ok::<_, IndexError>(())
    })?;
    Ok(lost)
}
