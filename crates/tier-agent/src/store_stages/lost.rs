//! What no copy has whole: persisted again from the filesystem, and gone on without.
//!
//! A tarball or a manifest that is damaged in every copy would keep all that follows from being
//! safe, for ever. What the filesystem has of it makes another snapshot; what it does not have
//! either is lost ranges from then on, and is told. A checkpoint follows, which states all that is
//! live without the objects that are lost, so that a restore need not read what they belonged to.
//!
//! **Order.** The snapshot takes its mark back first. Then the inodes that lie in the lost tarballs
//! are persisted again: of two places of one version the later one counts. What still lies in a
//! lost one afterwards nothing has, and only then it is made lost in the index. Then comes the
//! checkpoint, and at the end it is recorded which objects are lost. A crash between any two of
//! these leaves a snapshot that is not safe, and the same objects to be found lost again.
//!
//! The snapshot is then uploaded without what it has lost, for what is left of it; it counts as
//! safe when the checkpoint does.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tier_index::TarballId;
use tier_persist::{
    Archive, LostRange, LostRanges, PersistError, Persister, SnapshotSummary, StoredObject,
    check_object, tarball_of,
};
use tier_status::{Event, StatusSink};
use tier_types::{ByteRange, Call, ErrorKind, HasKind, ObjectStore, SnapshotId};

use super::context::{StageContext, header_of};
use super::persist::{Again, persist_again};
use crate::AgentError;

/// Persists again what a snapshot has in objects that no copy has whole. Returns what the
/// filesystem does not have either.
pub(super) fn persist_lost(
    context: &StageContext,
    persister: &Persister,
    snapshot: SnapshotId,
    stop: &AtomicBool,
) -> Result<LostRanges, AgentError> {
    if context.ports.writer.is_none() {
        return Err(AgentError::Follower);
    }
    let archive = context.archive()?;
    let missing = || PersistError::Missing(format!("snapshot {snapshot}"));
    let summary = archive.snapshot(snapshot).ok_or_else(missing)?.clone();
    let lost = lost_objects(context, &archive, &summary, stop)?;
    drop(archive);
    if lost.is_empty() {
        return Ok(LostRanges::default());
    }
    tracing::warn!(%snapshot, n_lost = lost.len(), "no copy has all objects of a snapshot");
    let status = context.status_sink(header_of(&summary))?;
    if let Some(place) = context.safe_place() {
        status.take_back(place, "an object of it is lost in every copy")?;
    }
    let tarballs: BTreeSet<TarballId> =
        lost.iter().filter_map(|object| tarball_of(&object.name)).collect();
    let index = context.ports.history.index();
    let ranges = Mutex::new(LostRanges::default());
    let forget = || -> Result<(), AgentError> {
        let chunk_bytes = index.chunk_bytes();
        index.writer().lose(&tarballs, &mut |extent| {
            let (offset, len) =
                (extent.chunks.offset_bytes(chunk_bytes), extent.data_bytes(chunk_bytes));
            ranges.lock().add(LostRange { ino: extent.ino, bytes: ByteRange { offset, len } });
        })?;
        Ok(())
    };
    let again = Again { inodes: index.inodes_in(&tarballs)?, before_checkpoint: &forget };
    persist_again(context, persister, &again, stop)?;
    // Last of all: until then all of this is done again.
    for object in &lost {
        status.report(Event::ObjectLost { name: object.name.to_string() })?;
    }
    Ok(ranges.into_inner())
}

/// The objects of a snapshot that no copy has whole and that are not known to be lost.
fn lost_objects(
    context: &StageContext,
    archive: &Archive<'_>,
    summary: &SnapshotSummary,
    stop: &AtomicBool,
) -> Result<Vec<StoredObject>, AgentError> {
    let known = context.status(summary)?.map(|status| status.lost_objects).unwrap_or_default();
    let mut lost = Vec::new();
    for object in objects_left(context, archive, summary)? {
        let is_known = known.contains(object.name.as_str());
        if !is_known && !is_anywhere(context, &object, stop)? {
            lost.push(object);
        }
    }
    Ok(lost)
}

/// What a snapshot wrote. If its manifest is lost, that and the tarballs that the index knows.
fn objects_left(
    context: &StageContext,
    archive: &Archive<'_>,
    summary: &SnapshotSummary,
) -> Result<Vec<StoredObject>, AgentError> {
    match archive.objects(summary.snapshot) {
        Ok(objects) => Ok(objects.own().cloned().collect()),
        Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => {
            let index = context.ports.history.index();
            let mut objects = archive.indexed_tarballs(index, summary.snapshot)?;
            objects.push(archive.manifest_object(summary.snapshot)?);
            Ok(objects)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_anywhere(
    context: &StageContext,
    object: &StoredObject,
    stop: &AtomicBool,
) -> Result<bool, AgentError> {
    let call = Call::bulk().cancelled_by(stop);
    let local: &dyn ObjectStore = context.ports.local.as_ref();
    let cloud = context.ports.cloud.iter().map(|cloud| cloud.store.as_ref());
    let former = context.ports.former_clouds.iter().map(AsRef::as_ref);
    for store in std::iter::once(local).chain(cloud).chain(former) {
        match check_object(&call, store, object) {
            Ok(()) => return Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Missing | ErrorKind::Damaged) => {}
            // A store that is away may have it.
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
