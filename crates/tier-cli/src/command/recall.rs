//! `tier recall`: brings files back before they are read.
//!
//! Files come one after the other, each with its extents in order, which is the order in which they
//! lie in tarballs. What came stays in the key-value store, as after a read, until it is evicted
//! again; that costs nothing as long as it is not changed. A stop leaves what came by then.

use anyhow::{Context as _, Result};
use serde_json::json;
use tier_types::FileKind;

use crate::args::RecallArgs;
use crate::console::output;
use crate::context::Context;
use crate::transfer::walk;

pub(super) fn run(context: &Context, args: &RecallArgs) -> Result<()> {
    let store = context.open_to_write(&args.store)?;
    let stop = context.console.stop()?;
    let bar = context.console.progress("recalling");
    let (mut n_files, mut bytes) = (0_u64, 0_u64);
    for path in &args.paths {
        let start = walk::resolve(&store.fs, path)?;
        walk::tree(&store.fs, start, |name, attr| {
            // Looked at here as well: where all is resident, nothing below looks at the flag.
            stop.check()?;
            if matches!(attr.kind, FileKind::Regular) {
                let failed = || format!("cannot recall {}/{}", path.display(), output::name(name));
                let came = store.fs.recall_file(attr.ino, stop.flag()).with_context(failed)?;
                // A file that was resident all along is not counted: nothing came for it.
                n_files += u64::from(came > 0);
                bytes += came;
                bar.files_and_bytes(n_files, bytes);
            }
            Ok(())
        })?;
    }
    // Without the sync a crash could lose what came, and it would be fetched again.
    store.fs.fsync()?;
    drop(bar);
    let text = format!("Recalled {} in {n_files} files.\n", output::bytes(bytes));
    context.console.report(&json!({ "files": n_files, "bytes": bytes }), &text)
}
