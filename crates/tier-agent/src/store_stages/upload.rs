//! The upload stage: a persisted snapshot is copied to the cloud and verified there.
//!
//! Only what was read back and compared counts. A store may say that a put worked and have nothing,
//! so that each object is checked after it was put, and one event says at the end that all were:
//! it is what makes the snapshot safe. An upload that was interrupted is begun again; putting an
//! object that is there changes nothing. Without a cloud the local objects are read back in the
//! same way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tier_persist::{ContentDigest, PersistError, StoredObject, check_object};
use tier_status::{Event, StatusSink};
use tier_types::{Call, ErrorKind, HasKind, ObjectStore, SnapshotId, StoredContent};

use super::context::{StageContext, header_of};
use crate::AgentError;

/// Uploads a snapshot to the tier that makes it safe, and verifies it there.
pub(super) fn upload(
    context: &StageContext,
    snapshot: SnapshotId,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    let start = Instant::now();
    let archive = context.archive()?;
    let summary = archive
        .snapshots()
        .find(|summary| summary.snapshot == snapshot)
        .ok_or_else(|| PersistError::Missing(format!("the manifest of snapshot {snapshot}")))?;
    let status = context.status_sink(header_of(summary))?;
    // The manifest comes last: wherever an upload ends, no manifest lists what is not there.
    let objects = archive.objects(snapshot)?;
    let n_objects = objects.len();
    // A manifest states the lengths: they need not have a sum.
    let bytes =
        objects.iter().fold(0_u64, |sum, object| sum.saturating_add(object.content.len_bytes));
    let tier = context.safe_tier();
    tracing::info!(%snapshot, ?tier, n_objects, bytes, "upload begins");
    let local = context.ports.local.as_ref();
    let uploaded = context.in_background(|| {
        let verified = match context.ports.cloud.as_deref() {
            None => verify(&objects, local, stop),
            Some(to) => {
                copy(&UploadRequest { objects: &objects, from: local, to, status: &status, stop })
            }
        };
        verified?;
        // An error of the status log fails the upload: a snapshot whose verification is not
        // recorded stays unsafe, and the next task checks its objects again.
        Ok(status.report(Event::Verified { tier })?)
    })?;
    // Wherever the stop was noticed, in this crate or in a store.
    let is_stop = |error: &AgentError| error.kind() == ErrorKind::Cancelled;
    let uploaded =
        uploaded.map_err(|error| if is_stop(&error) { AgentError::Stopped } else { error });
    match &uploaded {
        Ok(()) => {
            let elapsed = start.elapsed();
            tracing::info!(%snapshot, ?tier, n_objects, bytes, ?elapsed, "snapshot verified");
        }
        Err(error) => status.record_failure("push", error),
    }
    uploaded
}

/// Objects to be copied from one store to another.
struct UploadRequest<'a> {
    objects: &'a [StoredObject],
    from: &'a dyn ObjectStore,
    to: &'a dyn ObjectStore,
    status: &'a dyn StatusSink,
    stop: &'a AtomicBool,
}

/// Copies objects in order, and compares each with what it must be once it is there.
fn copy(request: &UploadRequest<'_>) -> Result<(), AgentError> {
    let call = Call::bulk().cancelled_by(request.stop);
    for object in request.objects {
        check_stop(request.stop)?;
        let start = Instant::now();
        let StoredObject { name, content: ContentDigest { len_bytes, .. } } = object;
        let content = StoredContent { store: request.from, name, len_bytes: *len_bytes };
        // An object that is there already is read back all the same: it may be another one's bytes.
        request.to.put(&call, &object.name, &content)?;
        check_object(&call, request.to, object)?;
        let (name, bytes) = (object.name.to_string(), object.content.len_bytes);
        tracing::debug!(name, bytes, elapsed = ?start.elapsed(), "object uploaded and verified");
        request.status.report(Event::Pushed { name, bytes })?;
    }
    Ok(())
}

/// Compares objects with what they must be, where they are.
fn verify(
    objects: &[StoredObject],
    store: &dyn ObjectStore,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    let call = Call::bulk().cancelled_by(stop);
    for object in objects {
        check_stop(stop)?;
        check_object(&call, store, object)?;
    }
    Ok(())
}

fn check_stop(stop: &AtomicBool) -> Result<(), AgentError> {
    if stop.load(Ordering::Relaxed) { Err(AgentError::Stopped) } else { Ok(()) }
}
