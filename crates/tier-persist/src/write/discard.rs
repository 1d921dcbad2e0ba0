//! Discarding what an attempt left that was never committed.
//!
//! A snapshot exists when its manifest does. Tarballs without one are left by a crash or an error
//! between the first tarball and the manifest, and staged files by a crash while they were written.
//! They must go: the next attempt at the same snapshot writes objects of the same names, and may
//! make fewer of them. What must never go is a tarball that is committed. Its manifest may be lost
//! from this store all the same, so the manifest alone is not asked: the index remembers every
//! tarball that it took in.

use std::collections::HashSet;

use tier_index::{Index, TarballId};
use tier_types::{Call, Epoch, ObjectName, SnapshotId, StagingStore};

use crate::error::PersistError;
use crate::format::names::{self, FilesystemId, ObjectKind};

/// Removes staged files, and tarballs of snapshots after `last` that neither a manifest here nor
/// the index commits.
pub(super) fn discard_uncommitted(
    store: &dyn StagingStore,
    filesystem: FilesystemId,
    index: &Index,
    last: SnapshotId,
) -> Result<(), PersistError> {
    // What never got its name is in no listing.
    store.discard_staged().map_err(PersistError::Store)?;
    let mut committed = HashSet::new();
    // Decided after the listing: in it a manifest comes behind its tarballs.
    let mut tarballs = Vec::new();
    for name in list(store, filesystem)? {
        match names::parse(&name) {
            Some((_, ObjectKind::Manifest { epoch, snapshot })) => {
                committed.insert((epoch, snapshot));
            }
            Some((_, ObjectKind::Tarball(id))) => tarballs.push((id, name)),
            None => {}
        }
    }
    for (id, name) in tarballs {
        let TarballId { epoch, snapshot, .. } = id;
        // Snapshots up to `last` are on the chain, or were once: nothing of them is touched here.
        let left_over = snapshot > last && !committed.contains(&(epoch, snapshot));
        if left_over && index.tarball_row(id)?.is_some() {
            // Its manifest was lost from this store, and may be copied back; without its tarballs
            // it would commit nothing.
            tracing::debug!(%name, "keeping a tarball of which only the index knows");
        } else if left_over {
            delete(store, &name)?;
        }
    }
    Ok(())
}

/// Removes the tarballs of an earlier attempt at a snapshot, which may have had more of them. One
/// that the index has is no attempt: an index that was rebuilt without manifests knows tarballs and
/// no snapshot. Then nothing is removed and the snapshot refused, for its tarballs would take the
/// names of those.
pub(super) fn discard_attempt(
    store: &dyn StagingStore,
    filesystem: FilesystemId,
    index: &Index,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> Result<(), PersistError> {
    let mut left_over = Vec::new();
    for name in list(store, filesystem)? {
        if let Some((_, ObjectKind::Tarball(id))) = names::parse(&name)
            && (id.epoch, id.snapshot) == (epoch, snapshot)
        {
            if index.tarball_row(id)?.is_some() {
                let problem = "the index has tarballs of it; copy lost manifests back";
                return Err(PersistError::BrokenChain { name: name.to_string(), problem });
            }
            left_over.push(name);
        }
    }
    // Only after every name was looked at: a snapshot that is refused half way through the listing
    // has lost nothing.
    left_over.iter().try_for_each(|name| delete(store, name))
}

fn list(
    store: &dyn StagingStore,
    filesystem: FilesystemId,
) -> Result<Vec<ObjectName>, PersistError> {
    store.names(&Call::bulk(), &names::prefix(filesystem)).map_err(PersistError::Store)
}

fn delete(store: &dyn StagingStore, name: &ObjectName) -> Result<(), PersistError> {
    tracing::debug!(%name, "discarding a tarball that was never committed");
    store.delete(&Call::bulk(), name, None).map_err(PersistError::Store)
}
