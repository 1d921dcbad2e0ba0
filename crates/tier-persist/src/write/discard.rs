//! Discarding what an attempt left that was never committed.
//!
//! A snapshot exists when its manifest does. Tarballs without one are left by a crash or an error
//! between the first tarball and the manifest, and staged files by a crash while they were written.
//! They must go, because nothing would ever ask for them again: the next attempt at the same
//! snapshot gives its objects other names. What must never go is a tarball that is committed. Its
//! manifest may be lost from this store all the same, so the manifest alone is not asked: the index
//! remembers every tarball that it took in.

use std::collections::HashSet;

use tier_index::{Index, TarballId};
use tier_types::{Call, Epoch, ErrorKind, ObjectName, SnapshotId, StagingStore};

use crate::error::PersistError;
use crate::format::names::{self, FilesystemId, ObjectKind, PackedName, TarballName};

/// Removes staged files, and tarballs of an epoch's snapshots after `last` that neither a manifest
/// here nor the index commits.
pub(super) fn discard_uncommitted(
    store: &dyn StagingStore,
    filesystem: FilesystemId,
    index: &Index,
    epoch: Epoch,
    last: SnapshotId,
) -> Result<(), PersistError> {
    // What never got its name is in no listing.
    store.discard_staged().map_err(PersistError::Store)?;
    // Snapshots up to `last` are on the chain, or were once: nothing of them is touched here, nor
    // asked for. Nor is anything of another epoch, which another store may have written.
    let (prefix, behind) =
        (names::data_prefix(filesystem), names::before_data_of(filesystem, epoch, last.next()));
    let tarballs = store.names_after(&Call::bulk(), &prefix, Some(&behind));
    let tarballs = tarballs.map_err(PersistError::Store)?;
    let newer = tarballs.into_iter().filter_map(|name| match names::parse(&name) {
        Some((
            _,
            ObjectKind::Tarball(TarballName { id, .. }) | ObjectKind::Packed(PackedName { id, .. }),
        )) if id.epoch == epoch && id.snapshot > last => Some((id, name)),
        Some(_) | None => None,
    });
    let newer: Vec<_> = newer.collect();
    // Most stores are opened with nothing left over.
    if newer.is_empty() {
        return Ok(());
    }
    // Listed after the tarballs: what commits one of them is there by now.
    let manifests = store.names(&Call::bulk(), &names::manifests_prefix(filesystem));
    let manifests = manifests.map_err(PersistError::Store)?;
    let committed: HashSet<_> = manifests
        .iter()
        .filter_map(|name| match names::parse(name) {
            Some((_, ObjectKind::Manifest { epoch, snapshot })) => Some((epoch, snapshot)),
            Some(_) | None => None,
        })
        .collect();
    // An index without any manifest knows tarballs, and not what else their steps wrote.
    if index.applied()?.is_none() && !index.tarballs()?.is_empty() {
        return Ok(());
    }
    for (id, name) in newer {
        if committed.contains(&(id.epoch, id.snapshot)) {
            continue;
        }
        if index.tarball_rows(&TarballId::of_snapshot(id.epoch, id.snapshot), 1)?.is_empty() {
            delete(store, &name)?;
        } else {
            // Its manifest was lost from this store, and may be copied back; without its objects it
            // would commit nothing.
            tracing::debug!(%name, "keeping an object of which only the index knows");
        }
    }
    Ok(())
}

/// Removes the tarballs of earlier attempts at a snapshot. One that the index has is no attempt: an
/// index that was rebuilt without manifests knows tarballs and no snapshot. Then nothing is removed
/// and the snapshot refused, for the index tells tarballs apart by their numbers. What has a
/// manifest is no attempt either.
pub(super) fn discard_attempt(
    store: &dyn StagingStore,
    filesystem: FilesystemId,
    index: &Index,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> Result<(), PersistError> {
    let manifest = names::manifest_name(filesystem, epoch, snapshot);
    match store.metadata(&Call::bulk(), &manifest) {
        Err(error) if error.kind() == ErrorKind::Missing => {}
        found => {
            found.map_err(PersistError::Store)?;
            let problem = "it is committed, and the index has not caught up with it";
            return Err(PersistError::BrokenChain { name: manifest.to_string(), problem });
        }
    }
    let mut left_over = Vec::new();
    let prefix = names::snapshot_prefix(filesystem, epoch, snapshot);
    for name in store.names(&Call::bulk(), &prefix).map_err(PersistError::Store)? {
        let parsed = names::parse(&name).map(|(_, kind)| kind);
        if let Some(ObjectKind::Packed(_)) = parsed {
            left_over.push(name);
        } else if let Some(ObjectKind::Tarball(TarballName { id, .. })) = parsed {
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

fn delete(store: &dyn StagingStore, name: &ObjectName) -> Result<(), PersistError> {
    tracing::debug!(%name, "discarding a tarball that was never committed");
    store.delete(&Call::bulk(), name, None).map_err(PersistError::Store)
}
