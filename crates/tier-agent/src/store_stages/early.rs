//! Uploading beside persisting: each tarball goes up as soon as it is sealed, while the next one is
//! written.
//!
//! What is put this way is put, compared and recorded like all other objects of the snapshot, whose
//! upload finds it done. As long as the attempt lasts its local copy may be dropped, before the
//! snapshot is even committed: that is how a part may have more data than the disk has room for.
//! Should the attempt fail, what went up is of no use, and no manifest names it; nothing was
//! evicted that lies in it. It goes into the deletion queue when a later attempt has come through.
//!
//! This is worth having and never needed. The first failure ends it for the attempt, whose snapshot
//! is uploaded later as ever. None begins while the cloud is known to fail, nor after a snapshot
//! that was refused for what it could not read, as the next one may be, until an attempt finds no
//! room.

use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use tier_persist::StoredObject;
use tier_status::StatusSink;
use tier_types::{CacheStore, ErrorKind, HasKind, ObjectName, PortError, SnapshotId, with_causes};

use super::cloud_writer::CloudWriter;
use super::context::{StageContext, StageSink};
use crate::AgentError;

/// Is told of each tarball that is sealed.
pub(super) type OnSealed<'a> = &'a (dyn Fn(&StoredObject) + Sync);

/// Does work that seals tarballs of one snapshot, which are uploaded meanwhile.
pub(super) fn beside<T>(
    context: &StageContext,
    status: &StageSink<'_>,
    stop: &AtomicBool,
    work: impl FnOnce(OnSealed<'_>) -> Result<T, AgentError>,
) -> Result<T, AgentError> {
    let writer = CloudWriter::new(context, stop).filter(|writer| writer.place.is_some());
    let Some(writer) = writer.filter(|_| context.may_upload_early()) else {
        return work(&|_| {});
    };
    let (sealed, objects) = unbounded::<Copying<'_>>();
    let local = context.ports.local.as_ref();
    thread::scope(|scope| {
        let upload = move || upload(&writer, status, &objects);
        let builder = thread::Builder::new().name("tier-upload".into());
        let uploading = builder.spawn_scoped(scope, upload).map_err(|source| {
            PortError::new(ErrorKind::Failed, "cannot start a thread").with_source(source)
        })?;
        // The thread takes objects until this function ends; one that it does not take is dropped.
        let done = work(&|object| drop(sealed.send(Copying::new(local, object))));
        drop(sealed);
        if uploading.join().is_err() {
            tracing::error!("a thread that uploads has panicked");
        }
        done
    })
}

/// An object that is being copied, as the local store counts it. Dropped, whatever became of it, it
/// is no more: a writer may wait for its room.
struct Copying<'a> {
    local: &'a dyn CacheStore,
    object: StoredObject,
}

impl<'a> Copying<'a> {
    fn new(local: &'a dyn CacheStore, object: &StoredObject) -> Self {
        local.copy_begins();
        Self { local, object: object.clone() }
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.local.copy_ends();
    }
}

/// What was uploaded while its snapshot was not committed. Dropped, it is spare no more, but for
/// what is safe by then.
struct SpareForNow<'a> {
    context: &'a StageContext,
    snapshot: SnapshotId,
    names: Vec<ObjectName>,
}

impl Drop for SpareForNow<'_> {
    fn drop(&mut self) {
        let told = self.context.told_spare.lock();
        if told.is_none_or(|(_, told)| told < self.snapshot) {
            for name in &self.names {
                self.context.ports.local.keep(name);
            }
        }
    }
}

/// Uploads what is sealed, in order, until nothing more comes.
fn upload(writer: &CloudWriter<'_>, status: &StageSink<'_>, objects: &Receiver<Copying<'_>>) {
    let context = writer.context;
    let snapshot = status.snapshot();
    let mut uploaded = SpareForNow { context, snapshot, names: Vec::new() };
    let mut has_failed = false;
    for copying in objects {
        if has_failed {
            continue;
        }
        let object = &copying.object;
        match upload_one(writer, status, object) {
            Ok(()) => {
                context.note_cloud(Ok(()));
                copying.local.spare(&object.name, object.content.len_bytes);
                uploaded.names.push(object.name.clone());
            }
            Err(error) => {
                has_failed = true;
                context.note_cloud(Err(&error));
                if error.kind() != ErrorKind::Cancelled {
                    let (name, error) = (&object.name, with_causes(&error));
                    tracing::info!(%name, "not uploaded while persisting: {error}");
                }
            }
        }
    }
}

fn upload_one(
    writer: &CloudWriter<'_>,
    status: &dyn StatusSink,
    object: &StoredObject,
) -> Result<(), AgentError> {
    // Before anything goes up: a store that was replaced leaves no objects that nothing needs.
    writer.check_not_fenced()?;
    writer.put(object)?;
    writer.report_pushed(object, status)
}
