//! Objects in the cloud that are of no use: what attempts at a snapshot put before they failed.
//!
//! Each attempt gives its objects names of its own, all of which begin with the number of the
//! snapshot. When one attempt has come through, the cloud is asked what it has under that number,
//! if there was more than one: what a crash came before it was recorded is found like all else.
//! What neither the manifest nor the index names goes into the deletion queue
//! ([`DeletionQueue`](crate::DeletionQueue)), and is deleted beside a later upload. Neither fails
//! the upload: what goes wrong costs room in the cloud.

use std::collections::{BTreeMap, BTreeSet};

use tier_index::TarballId;
use tier_persist::{Archive, SnapshotSummary, tarball_of, tarballs_in};
use tier_types::{Epoch, ErrorKind, ObjectName, SnapshotId, with_causes};

use super::cloud_writer::CloudWriter;
use crate::AgentError;
use crate::decide::may_be_away;

/// Deleted beside an upload, at most.
const N_AT_ONCE: usize = 100;

/// Puts what failed attempts at a snapshot left into the queue. To be called when its manifest is
/// in the cloud.
pub(super) fn enqueue(writer: &CloudWriter<'_>, archive: &Archive<'_>, summary: &SnapshotSummary) {
    let add = || -> Result<(), AgentError> {
        let Some(cloud) = writer.place.as_ref().map(|place| place.id) else { return Ok(()) };
        let status = writer.context.status(summary)?;
        if status.is_none_or(|status| status.n_attempts < 2) {
            return Ok(());
        }
        let SnapshotSummary { epoch, snapshot, .. } = *summary;
        let filesystem = writer.context.ports.filesystem;
        let mut moot = tarballs_in(&writer.call(), writer.cloud, filesystem, epoch, snapshot)?;
        let Some(own) = needed(writer, archive, epoch, snapshot) else { return Ok(()) };
        moot.retain(|name| !own.contains(name));
        tracing::debug!(%snapshot, n = moot.len(), "failed attempts have left objects in the cloud");
        Ok(writer.context.ports.deletions.add(cloud, moot)?)
    };
    if let Err(error) = add() {
        tracing::info!("objects of failed attempts may stay in the cloud: {}", with_causes(&error));
    }
}

/// Deletes some of what has been moot for long enough, and still is.
pub(super) fn delete_due(writer: &CloudWriter<'_>, archive: &Archive<'_>) {
    let Some(cloud) = writer.place.as_ref().map(|place| place.id) else { return };
    let queue = &writer.context.ports.deletions;
    let due = match queue.due(cloud) {
        Ok(due) => due,
        Err(error) => return tracing::warn!("{}", with_causes(&error)),
    };
    let mut known = BTreeMap::new();
    let mut settled = Vec::new();
    for name in due {
        if settled.len() >= N_AT_ONCE {
            break;
        }
        let Some(TarballId { epoch, snapshot, .. }) = tarball_of(&name) else { continue };
        let own = known
            .entry((epoch, snapshot))
            .or_insert_with(|| needed(writer, archive, epoch, snapshot));
        match own {
            // What is not known for sure is not moot.
            None => continue,
            Some(own) if own.contains(&name) => {}
            Some(_) => match writer.cloud.delete(&writer.call(), &name, None) {
                Err(error) if error.kind() != ErrorKind::Missing => {
                    tracing::info!(%name, "a moot object is not deleted: {}", with_causes(&error));
                    let kind = error.kind();
                    if kind == ErrorKind::Cancelled || may_be_away(kind) {
                        break;
                    }
                    // One that may not be deleted keeps none of the others.
                    continue;
                }
                _ => tracing::debug!(%name, "a moot object is deleted"),
            },
        }
        settled.push(name);
    }
    // Until it is recorded it is deleted once more, which does nothing.
    if let Err(error) = queue.remove(cloud, &settled) {
        tracing::warn!("{}", with_causes(&error));
    }
}

/// What is needed of a snapshot that came through; `None` if that is not known. An index that was
/// rebuilt from the tarballs alone may know others than the manifest lists.
fn needed(
    writer: &CloudWriter<'_>,
    archive: &Archive<'_>,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> Option<BTreeSet<ObjectName>> {
    archive.snapshot(snapshot).filter(|known| known.epoch == epoch)?;
    let listed = archive.objects(snapshot).ok()?;
    let index = writer.context.ports.history.index();
    let indexed = archive.indexed_tarballs(index, snapshot).ok()?;
    Some(listed.own().chain(&indexed).map(|object| object.name.clone()).collect())
}
