//! A store that goes on from what it has: how much of its history that is, and what becomes of the
//! rest.
//!
//! Snapshots that the archive can never have, because another store's have their names, are given
//! up. First comes an index without them, which may not come about; only then they are forgotten.

use tier_persist::{Archive, Claims, Damage, SnapshotSummary, StoredObject, check_object};
use tier_status::StatusHeader;
use tier_types::{Call, ErrorKind, HasKind, ObjectStore, SnapshotId, StagingStore};

use crate::dir::StoreDir;
use crate::rebuild::rebuild_index_from;
use crate::restore::RestoreTarget;
use crate::wiring::{open_index, status_book};
use crate::{StoreError, index_dirs};

/// An error if the filesystem ends before its own archive: nothing could be written to it, and the
/// writer would be fenced for nothing.
pub(crate) fn check_can_go_on(
    dir: &StoreDir,
    target: &mut dyn RestoreTarget,
) -> Result<(), StoreError> {
    let archived = dir.archived()?;
    let last = target.last_xid(dir.layout.root(), &dir.config)?;
    if last >= archived {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "the filesystem of {} ends with transaction {last}, and its own archive with {archived}: it \
         was put back to an earlier state and cannot go on. To take what is in the archive: tier \
         takeover --discard-local",
        dir.layout.root().display()
    )))
}

/// The number of snapshots here before the first one that can never be uploaded, because its name
/// holds another store's manifest.
pub(crate) fn first_conflict(
    dir: &StoreDir,
    archive: &Archive<'_>,
    claims: Claims<'_>,
    cloud: &dyn ObjectStore,
) -> Result<usize, StoreError> {
    let call = Call::bulk();
    let snapshots: Vec<_> = archive.snapshots().collect();
    let (book, place) = (status_book(dir)?, dir.safe_place());
    let mut kept = snapshots.len();
    for (position, summary) in snapshots.iter().enumerate().rev() {
        let manifest = archive.manifest_object(summary.snapshot)?;
        match check_object(&call, cloud, &manifest) {
            // What it continues was there before it was.
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::Missing => {}
            // This store's own, and damaged since, if it was once compared there. Otherwise it is
            // another store's, in whatever state.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let header = StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
                let status = book.status(header)?;
                let was_own = status.is_some_and(|status| {
                    place.as_ref().is_some_and(|place| status.was_verified.contains(place))
                });
                if claims.is_manifest(&call, &manifest.name)? || !was_own {
                    kept = position;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    for summary in snapshots.iter().skip(kept) {
        let header = StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
        let status = book.status(header)?;
        let was_safe = |status: tier_status::SnapshotStatus| {
            place.as_ref().is_some_and(|place| status.is_verified_in(place))
        };
        if status.is_some_and(was_safe) {
            return Err(StoreError::Damaged(format!(
                "snapshot {} was safe, and the cloud has another store's manifest in its place; \
                 what was evicted from this store may be nowhere else: keep both, and take over \
                 with --discard-local or restore",
                summary.snapshot
            )));
        }
    }
    Ok(kept)
}

/// Forgets snapshots: status log, manifest, tarballs. The newest first, so that what is left is a
/// history at any moment.
pub(crate) fn forget(
    dir: &StoreDir,
    archive: &Archive<'_>,
    dropped: &[SnapshotSummary],
) -> Result<(), StoreError> {
    let (call, local): (_, &dyn StagingStore) = (Call::bulk(), dir.local.as_ref());
    let book = status_book(dir)?;
    for summary in dropped.iter().rev() {
        let manifest = archive.manifest_object(summary.snapshot)?.name;
        let data = match archive.objects(summary.snapshot) {
            // What it lists stays behind, as what an attempt leaves that is never committed.
            Err(error) if error.kind().is_of_object() => Vec::new(),
            objects => objects?.data,
        };
        tracing::info!(snapshot = %summary.snapshot, "giving up a snapshot that never counted");
        // The log first: with it alone the manifest would seem to be lost.
        book.forget(StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot })?;
        local.delete(&call, &manifest, None)?;
        for StoredObject { name, .. } in &data {
            match local.delete(&call, name, None) {
                Err(error) if error.kind() != ErrorKind::Missing => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Makes the index anew if it includes more than the history up to this snapshot, and returns what
/// of that cannot be read.
pub(crate) fn make_index_fit(
    dir: &StoreDir,
    last: Option<SnapshotId>,
) -> Result<Vec<Damage>, StoreError> {
    let archive = Archive::open(dir.local.as_ref(), &dir.keys, dir.filesystem)?;
    let archive = archive.until(last.unwrap_or(SnapshotId::new(0)));
    let fits = {
        let index = open_index(&index_dirs::current(&dir.layout)?, &dir.config)?;
        match archive.catch_up(&index) {
            Err(error) if error.kind() == ErrorKind::Damaged => false,
            caught_up => {
                caught_up?;
                true
            }
        }
    };
    if fits {
        return Ok(Vec::new());
    }
    // From exactly these manifests, or none: what another store has under the same numbers is
    // another history.
    rebuild_index_from(dir, archive)
}
