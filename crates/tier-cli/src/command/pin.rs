//! `tier pin` and `tier unpin`: what is kept from being evicted.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use crate::args::{PinArgs, UnpinArgs};
use crate::context::Context;
use crate::transfer::walk;

pub(super) fn pin(context: &Context, args: &PinArgs) -> Result<()> {
    set(context, &args.store, &args.paths, true)
}

pub(super) fn unpin(context: &Context, args: &UnpinArgs) -> Result<()> {
    set(context, &args.store, &args.paths, false)
}

fn set(context: &Context, store: &Path, paths: &[OsString], pinned: bool) -> Result<()> {
    let store = context.open_to_archive(store)?;
    for path in paths {
        let attr = walk::resolve(&store.fs, path)?;
        // A failure leaves the paths before it pinned; setting a pin again changes nothing.
        store.fs.set_pin(attr.ino, pinned)?;
    }
    // A loss of power must not undo a pin: the next pass would take the file.
    Ok(store.fs.fsync()?)
}
