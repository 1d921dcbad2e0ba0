//! Objects in the cloud that are of no use: what attempts at a snapshot put before they failed.
//!
//! Each attempt gives its objects names of its own, and the status log of the snapshot remembers
//! what was put until all of it is verified. When one attempt has come through, what the others put
//! goes into the deletion queue ([`DeletionQueue`](crate::DeletionQueue)), and is deleted beside a
//! later upload. Neither holds up the snapshot: what goes wrong costs room in the cloud.

use std::collections::HashSet;

use tier_index::TarballId;
use tier_persist::{Archive, tarball_of};
use tier_types::{ErrorKind, ObjectName, with_causes};

use super::cloud_writer::CloudWriter;

/// Puts what failed attempts at a snapshot left into the queue, of all that was pushed of it. To be
/// called when its manifest is in the cloud, and before it is forgotten what was pushed.
pub(super) fn enqueue(writer: &CloudWriter<'_>, archive: &Archive<'_>, pushed: &HashSet<String>) {
    let Some(cloud) = writer.place.as_ref().map(|place| place.id) else { return };
    let names = pushed.iter().filter_map(ObjectName::new);
    let moot: Vec<_> = names.filter(|name| is_moot(archive, name)).collect();
    if moot.is_empty() {
        return;
    }
    tracing::debug!(n = moot.len(), "failed attempts have left objects in the cloud");
    if let Err(error) = writer.context.ports.deletions.add(cloud, moot) {
        tracing::warn!("objects of failed attempts stay in the cloud: {}", with_causes(&error));
    }
}

/// Deletes what has been moot for long enough, and still is.
pub(super) fn delete_due(writer: &CloudWriter<'_>, archive: &Archive<'_>) {
    let Some(cloud) = writer.place.as_ref().map(|place| place.id) else { return };
    let queue = &writer.context.ports.deletions;
    let due = queue.due(cloud).into_iter().filter(|name| is_moot(archive, name));
    let mut deleted = Vec::new();
    for name in due {
        match writer.cloud.delete(&writer.call(), &name, None) {
            Err(error) if error.kind() != ErrorKind::Missing => {
                tracing::info!(%name, "a moot object is not deleted: {}", with_causes(&error));
                // It would be no better with the others.
                break;
            }
            _ => deleted.push(name),
        }
    }
    // Until it is recorded it is deleted once more, which does nothing.
    if let Err(error) = queue.remove(cloud, &deleted) {
        tracing::warn!("{}", with_causes(&error));
    }
}

/// Whether a tarball is none of its snapshot, which has come through. What is not known for sure
/// is not moot.
fn is_moot(archive: &Archive<'_>, name: &ObjectName) -> bool {
    let Some(TarballId { epoch, snapshot, .. }) = tarball_of(name) else { return false };
    let is_known = archive.snapshot(snapshot).is_some_and(|known| known.epoch == epoch);
    let Ok(objects) = archive.objects(snapshot) else { return false };
    is_known && objects.own().all(|object| object.name != *name)
}
