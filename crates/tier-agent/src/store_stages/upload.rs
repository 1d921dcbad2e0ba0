//! The upload stage: a persisted snapshot is copied to the cloud and verified there.
//!
//! Only what was read back and compared counts. A store may say that a put worked and have nothing,
//! so that each object is checked after it was put, and one event says at the end that all were:
//! it is what makes the snapshot safe. An upload that was interrupted is begun again; putting an
//! object that is there changes nothing. Without a cloud the local objects are read back in the
//! same way.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tier_persist::{PersistError, StoredObject, check_object};
use tier_status::{Event, StatusSink};
use tier_types::{ObjectStore, SnapshotId, to_u64, to_usize};

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
    let bytes = objects.iter().fold(0_u64, |sum, object| sum.saturating_add(object.len_bytes));
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
        Ok(status.report(Event::Verified { tier })?)
    })?;
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
    for object in request.objects {
        // Between objects only: one that is under way is finished, or its bytes were sent for
        // nothing.
        check_stop(request.stop)?;
        let start = Instant::now();
        let mut content = Content { store: request.from, object, at: 0 };
        // An object that is there already is read back all the same: it may be another one's bytes.
        request.to.put(&object.name, object.len_bytes, &mut content)?;
        check_object(request.to, object)?;
        let (name, bytes) = (object.name.to_string(), object.len_bytes);
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
    for object in objects {
        check_stop(stop)?;
        check_object(store, object)?;
    }
    Ok(())
}

fn check_stop(stop: &AtomicBool) -> Result<(), AgentError> {
    if stop.load(Ordering::Relaxed) { Err(AgentError::Stopped) } else { Ok(()) }
}

/// An object's bytes, one piece after another.
struct Content<'a> {
    store: &'a dyn ObjectStore,
    object: &'a StoredObject,
    at: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(self.at <= self.object.len_bytes, "no more is read than there is");
        let left_bytes = self.object.len_bytes - self.at;
        let n = to_usize(left_bytes.min(to_u64(buffer.len())));
        let (piece, _) = buffer.split_at_mut(n);
        // An object that ends early is an error of the store here, and never a short upload.
        self.store.read_range(&self.object.name, self.at, piece).map_err(io::Error::other)?;
        self.at += to_u64(n);
        Ok(n)
    }
}
