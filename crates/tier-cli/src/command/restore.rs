//! `tier restore`: a store from the cloud alone; and a store as it was in an old snapshot.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use kvfs::{Kvfs, NoArchive};
use serde_json::json;
use tempfile::TempDir;
use tier_persist::{Damage, FilesystemId};
use tier_store::{RestoreProgress, RestoreReport, RestoreSource};
use tier_types::{Epoch, SnapshotId};

use super::lost;
use crate::args::RestoreArgs;
use crate::console::{DamageFound, output};
use crate::context::Context;
use crate::open_store::{OpenStore, RestoredFilesystem};

pub(super) fn run(context: &Context, args: &RestoreArgs) -> Result<()> {
    let (report, fs) = restore(context, args)?;
    let RestoreReport { n_inodes, snapshot, failed, lost, unread, damages } = &report;
    // An archive without a snapshot was refused before anything was made.
    let snapshot = snapshot.context("a snapshot was restored")?;
    let listed = lost::list(&fs, lost, "are lost: they could not be read when persisted")?;
    let text = format!(
        "Restored {n_inodes} inodes of snapshot {snapshot} into {}. Their data comes back as it is \
         read.\nIt is a follower: it can be read and mounted, and does not write to the archive. To \
         make it the writer: tier takeover {}\n{}{}",
        args.store.display(),
        args.store.display(),
        unread_text(unread, damages),
        listed.text
    );
    let json = json!({
        "inodes": n_inodes,
        "snapshot": snapshot.get(),
        "failed": failed.iter().map(|ino| ino.get()).collect::<Vec<_>>(),
        "lost": listed.json,
        "damages": damages.iter().map(|damage| &damage.problem).collect::<Vec<_>>(),
        "unread_manifests": unread.iter().map(|damage| &damage.problem).collect::<Vec<_>>(),
    });
    context.console.report(&json, &text)?;
    // The store is there and can be used; the exit code says that it is not all that there was.
    match (failed.len(), lost.n_ranges()) {
        (0, 0) if unread.is_empty() && damages.is_empty() => Ok(()),
        (0, 0) => bail!(DamageFound(format!(
            "{} manifests and {} places of tarballs could not be read",
            unread.len(),
            damages.len()
        ))),
        (0, _) => bail!(DamageFound(format!("{} came back as such", lost::summary(lost)))),
        (n, _) => bail!(DamageFound(format!(
            "{n} inodes could not be read when this snapshot was taken; {}",
            lost::summary(lost)
        ))),
    }
}

fn unread_text(unread: &[Damage], damages: &[Damage]) -> String {
    let line = |damage: &Damage| format!("Left out: {}: {}\n", damage.object, damage.problem);
    unread.iter().chain(damages).map(line).collect()
}

/// Makes a store from the cloud alone. Its filesystem comes without a way back for its data.
pub(super) fn restore(context: &Context, args: &RestoreArgs) -> Result<(RestoreReport, Arc<Kvfs>)> {
    let filesystem = args.filesystem.as_deref().map(|text| {
        FilesystemId::parse(text).with_context(|| format!("{text} is not the id of a filesystem"))
    });
    let source = RestoreSource {
        cloud: args.cloud.clone(),
        identity: args.identity.clone(),
        snapshot: args.snapshot.map(SnapshotId::new),
        filesystem: filesystem.transpose()?,
        recipients: args.recipients.clone(),
        signer: args.signer.clone(),
        epoch: args.epoch.map(Epoch::new),
        incomplete: args.incomplete,
    };
    let bar = context.console.progress("restoring");
    let mut progress = |RestoreProgress { n_inodes, bytes, n_calls }| {
        let read = output::bytes(bytes);
        bar.text(|| format!("{n_inodes} inodes; {read} came in {n_calls} requests"));
    };
    let mut target = RestoredFilesystem::default();
    let report = tier_store::restore(&args.store, &source, &mut target, &mut progress)?;
    // Everything else of the snapshot is there; these have lost ranges, an older state, or none.
    for ino in &report.failed {
        tracing::warn!("inode {ino} could not be read when this snapshot was taken");
    }
    Ok((report, target.open(Arc::new(NoArchive))?))
}

/// A filesystem as it was in a snapshot, in a directory of its own that goes when this is dropped.
pub(super) struct AtSnapshot {
    // The fields go in this order: the filesystem closes before its directory is removed.
    pub(super) fs: Arc<Kvfs>,
    _work: TempDir,
}

/// Restores a store as it was in a snapshot into a temporary directory inside of it.
pub(super) fn at_snapshot(
    context: &Context,
    store: &OpenStore,
    snapshot: u64,
) -> Result<AtSnapshot> {
    // Inside the store: what is restored is as private as the store, and lies on its disk.
    let work = tempfile::tempdir_in(store.path()).context("cannot make a temporary directory")?;
    let bar = context.console.progress("restoring");
    let mut progress = |n_inodes| bar.files_and_bytes(n_inodes, 0);
    let mut target = RestoredFilesystem::default();
    let snapshot = SnapshotId::new(snapshot);
    let recall = store.store.restore_snapshot(work.path(), snapshot, &mut target, &mut progress)?;
    Ok(AtSnapshot { fs: target.open(recall)?, _work: work })
}
