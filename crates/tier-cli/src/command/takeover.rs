//! `tier takeover`: makes a store the writer of its archive.

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tier_agent::Task;
use tier_persist::Damage;
use tier_store::{LocalState, StoreDir, Takeover, TakeoverOptions};
use tier_types::SnapshotId;

use crate::args::TakeoverArgs;
use crate::console::DamageFound;
use crate::context::Context;
use crate::open_store::RestoredFilesystem;

pub(super) fn run(context: &Context, args: &TakeoverArgs) -> Result<()> {
    let local = match (args.keep_local, args.discard_local) {
        (true, _) => Some(LocalState::Keep),
        (false, true) => Some(LocalState::Discard),
        (false, false) => None,
    };
    let options = TakeoverOptions {
        at: args.at.map(SnapshotId::new),
        local,
        signer: args.signer.clone(),
        force: args.force,
    };
    let bar = context.console.progress("taking over");
    let mut progress = |n_inodes| bar.files_and_bytes(n_inodes, 0);
    let dir = StoreDir::open(&args.store)?;
    let mut target = RestoredFilesystem::default();
    let done = tier_store::takeover(&dir, &options, &mut target, &mut progress)?;
    // A filesystem that was made anew is closed before it is moved to its place, which opening the
    // store does.
    drop((target, dir));
    let opened = context.open_to_archive(&args.store)?;
    // What the archive lacks goes up, and the epoch's first step, by which a restore learns whose
    // history goes on. Also if the store is the writer already: the last attempt may have ended
    // here.
    let uploaded = context.perform(&opened, Task::Snapshot, "uploading");
    let store = args.store.display();
    let mut left: &[Damage] = &[];
    let mut text = match &done {
        Takeover::WasWriter(epoch) => format!("{store} is the writer already (epoch {epoch}).\n"),
        Takeover::Done { epoch, continues, is_new, damages } => {
            left = damages;
            let from = continues
                .map_or_else(|| "from nothing".into(), |last| format!("from snapshot {last}"));
            let state = if *is_new { "its files are those of that snapshot" } else { "as it was" };
            format!("{store} is the writer now (epoch {epoch}), and goes on {from}; {state}.\n")
        }
    };
    let json = match &done {
        Takeover::WasWriter(epoch) => json!({ "epoch": epoch.get(), "was_writer": true }),
        Takeover::Done { epoch, continues, is_new, damages } => json!({
            "damages": damages.iter().map(|damage| &damage.problem).collect::<Vec<_>>(),
            "epoch": epoch.get(),
            "was_writer": false,
            "continues": continues.map(SnapshotId::get),
            "is_new": is_new,
        }),
    };
    for damage in left {
        text.push_str(&format!("Left out: {}: {}\n", damage.object, damage.problem));
    }
    context.console.report(&json, &text)?;
    uploaded
        .context("the store is the writer, but the archive does not show it yet: tier snapshot")?;
    match left.len() {
        0 => Ok(()),
        n => bail!(DamageFound(format!("{n} objects could not be read"))),
    }
}
