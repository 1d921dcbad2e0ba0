//! An audit of a store: every object that was ever committed, here and in the cloud.
//!
//! What manifests list is checked by the archive itself. What is lost together with its manifest no
//! manifest can list: the status logs remember which snapshots were committed here and verified in
//! the cloud, and each of them must still have its manifest there.

use tier_agent::StatusBook;
use tier_persist::{Archive, Damage, VerifyReport, Watch};
use tier_status::{SnapshotStatus, StatusHeader};
use tier_types::ObjectStore;

use crate::StoreError;
use crate::dir::StoreDir;

/// Checks both copies of everything; with `read_data` every byte is decrypted and every member
/// parsed. Damage is reported, not an error.
pub fn audit(
    dir: &StoreDir,
    book: &StatusBook,
    read_data: bool,
    watch: &mut Watch<'_>,
) -> Result<VerifyReport, StoreError> {
    let local: &dyn ObjectStore = dir.local.as_ref();
    tracing::info!(read_data, "auditing the local copy");
    let mut report = verify_copy(dir, local, read_data, watch)?;
    let committed = SnapshotStatus::is_committed;
    // The local manifests must be whole also where a cloud has them: the index and the next
    // snapshot go by the local chain.
    let mut lost = lost_manifests(dir, book, local, &committed)?;
    if let (Some(cloud), Some(place)) = (&dir.cloud, dir.safe_place()) {
        let cloud = cloud.store.as_ref();
        // What is in the cloud need not be here.
        report.damages.retain(|damage| !damage.missing);
        tracing::info!(read_data, "auditing the copy in the cloud");
        let there = verify_copy(dir, cloud, read_data, watch)?;
        report.n_objects += there.n_objects;
        report.bytes += there.bytes;
        report.n_members += there.n_members;
        // An object has the same name in both copies, and a report must say which of the two is
        // damaged.
        let in_cloud =
            |damage: Damage| Damage { object: format!("cloud: {}", damage.object), ..damage };
        report.damages.extend(there.damages.into_iter().map(in_cloud));
        // Not every committed snapshot was uploaded: the cloud owes only what was once read back
        // from it.
        let uploaded = |status: &SnapshotStatus| status.is_verified_in(&place);
        let gone = lost_manifests(dir, book, cloud, &uploaded)?;
        lost.extend(gone.into_iter().map(in_cloud));
    }
    // Missing manifests come after the retain above, which would take those of the local store out.
    tracing::info!(n_lost = lost.len(), n_damages = report.damages.len(), "audited");
    report.damages.extend(lost);
    Ok(report)
}

fn verify_copy(
    dir: &StoreDir,
    objects: &dyn ObjectStore,
    read_data: bool,
    watch: &mut Watch<'_>,
) -> Result<VerifyReport, StoreError> {
    let archive = Archive::open(objects, &dir.keys, dir.filesystem)?;
    Ok(archive.verify(read_data, watch)?)
}

/// Snapshots that were once in a store, and are not any more.
fn lost_manifests(
    dir: &StoreDir,
    book: &StatusBook,
    objects: &dyn ObjectStore,
    was_there: &dyn Fn(&SnapshotStatus) -> bool,
) -> Result<Vec<Damage>, StoreError> {
    // First what was there, then what is: a snapshot may come in between.
    let statuses = book.all()?;
    let archive = Archive::open(objects, &dir.keys, dir.filesystem)?;
    let mut lost = Vec::new();
    for status in statuses.iter().filter(|status| was_there(status)) {
        // A status log has both numbers in its name, so that both must be found.
        let StatusHeader { epoch, snapshot } = status.header;
        if !archive.snapshots().any(|s| (s.epoch, s.snapshot) == (epoch, snapshot)) {
            lost.push(Damage {
                object: format!("the manifest of snapshot {snapshot} (epoch {epoch})"),
                problem: "it was committed and is missing".into(),
                missing: true,
            });
        }
    }
    Ok(lost)
}
