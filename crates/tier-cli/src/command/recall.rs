//! `tier recall`: brings files back before they are read.

use anyhow::{Context as _, Result};
use serde_json::json;
use tier_types::FileKind;

use crate::args::RecallArgs;
use crate::console::output;
use crate::context::Context;
use crate::transfer::walk;

pub(super) fn run(context: &Context, args: &RecallArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let stop = context.console.stop()?;
    let bar = context.console.progress("recalling");
    let (mut n_files, mut bytes) = (0_u64, 0_u64);
    for path in &args.paths {
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
    context.console.report(&json!({ "files": n_files, "bytes": bytes }), &text)
}
