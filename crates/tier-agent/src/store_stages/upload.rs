//! The upload stage: a persisted snapshot is copied to the cloud and verified there.
//!
//! Only what was read back and compared counts. A store may say that a put worked and have nothing,
//! so that each object is checked after it was put, and one event says at the end that all were: it
//! is what makes the snapshot safe. An upload that was interrupted goes on behind the objects that
//! were put and checked. Without a cloud the local objects are read back in the same way.
//!
//! **What else must hold.** A restore needs all that a snapshot continues: before its manifest goes
//! up its parent's must be there, and a gap is filled first. The manifest is created and not put:
//! if its name has other bytes, two stores write to one archive. And a store that another one has
//! replaced must learn that before it evicts anything: it puts its manifest and *then* looks for a
//! later claim ([`Claims`](tier_persist::Claims)). In this order a snapshot is either seen by the
//! store that takes over, or never counted as safe by the one that is replaced.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tier_persist::{
    Archive, Fenced, PersistError, SnapshotSummary, StepKind, StoredObject, check_object,
};
use tier_status::{Event, Place, StatusSink};
use tier_types::{
    Call, Created, ErrorKind, HasKind, PortError, SnapshotId, StoredContent, with_causes,
};

use super::cloud_writer::{CloudWriter, check_stop};
use super::context::{StageContext, StageSink, header_of};
use super::lost::{is_anywhere, report_lost};
use super::{moot, spare};
use crate::AgentError;

/// Uploads a snapshot to the place that makes it safe, and verifies it there. A stop is an error of
/// kind `Cancelled`.
pub(super) fn upload(
    context: &StageContext,
    snapshot: SnapshotId,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    if context.ports.writer.is_none() {
        return Err(AgentError::Follower);
    }
    let archive = context.archive()?;
    let summary = archive
        .snapshot(snapshot)
        .ok_or_else(|| PersistError::Missing(format!("the manifest of snapshot {snapshot}")))?;
    let uploaded = context.in_background(|| match CloudUpload::new(context, &archive, stop) {
        Some(cloud) => {
            let uploaded = cloud.fill_up_to(summary);
            context.note_cloud(uploaded.as_ref().copied());
            uploaded
        }
        None => verify_here(context, &archive, summary, stop),
    })?;
    // Wherever the stop was noticed, in this crate or in a store.
    let is_stop = |error: &AgentError| error.kind() == ErrorKind::Cancelled;
    uploaded.map_err(|error| if is_stop(&error) { AgentError::Stopped } else { error })?;
    // The snapshot is verified. What else there is to do is done again by the next upload, or by
    // an eviction, and must not hide that.
    let dropped = spare::tell(context)
        .and_then(|()| context.ports.local.drop_excess().map_err(AgentError::from));
    match dropped {
        Ok(dropped) => tracing::debug!(?dropped, "the local store has dropped its excess"),
        Err(error) => tracing::warn!("local copies are not dropped: {}", with_causes(&error)),
    }
    if let Some(writer) = CloudWriter::new(context, stop) {
        moot::delete_due(&writer, &archive);
    }
    Ok(())
}

/// Takes back that anything was verified in the place that makes it safe.
pub(super) fn forget_verified(context: &StageContext) -> Result<(), AgentError> {
    let Some(place) = context.safe_place() else { return Ok(()) };
    let archive = context.archive()?;
    let first = archive.snapshots().next();
    let _fall = first.map(|first| context.lower_safe(first.snapshot)).transpose()?;
    for summary in archive.snapshots().filter(|summary| !summary.is_lost) {
        // Also of one that has no log, because the store was restored by a later checkpoint.
        let status = context.status(summary)?;
        if status.is_none_or(|status| status.is_verified_in(&place)) {
            let status = context.status_sink(header_of(summary))?;
            status.take_back(place.clone(), "to be compared again")?;
        }
    }
    Ok(())
}

/// Takes back that these snapshots are verified in the place that makes them safe. One whose log
/// cannot be written keeps none of the others from it.
pub(super) fn take_back(
    context: &StageContext,
    snapshots: &[SnapshotId],
) -> Result<(), AgentError> {
    let Some(place) = context.safe_place() else { return Ok(()) };
    let archive = context.archive()?;
    let mut failed = None;
    for summary in snapshots.iter().filter_map(|snapshot| archive.snapshot(*snapshot)) {
        let status = context.status_sink(header_of(summary));
        let problem = "an object of it is damaged or missing there";
        let taken = status.and_then(|status| status.take_back(place.clone(), problem));
        failed = failed.or(taken.err());
    }
    failed.map_or(Ok(()), Err)
}

/// Does the work of one snapshot, and records in its log why it failed.
fn recorded(
    context: &StageContext,
    summary: &SnapshotSummary,
    work: impl FnOnce(&StageSink<'_>) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    let start = Instant::now();
    let status = context.status_sink(header_of(summary))?;
    let done = work(&status);
    let snapshot = summary.snapshot;
    match &done {
        Ok(()) => tracing::info!(%snapshot, elapsed = ?start.elapsed(), "snapshot verified"),
        Err(error) => status.record_failure("push", error),
    }
    done
}

/// Compares the local objects of a snapshot with what they must be: all there is, without a cloud.
fn verify_here(
    context: &StageContext,
    archive: &Archive<'_>,
    summary: &SnapshotSummary,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    let call = Call::bulk().cancelled_by(stop);
    recorded(context, summary, |status| {
        let Left { data, manifest } = Left::of(context, archive, summary)?;
        for object in data.iter().chain(&manifest) {
            check_stop(stop)?;
            let checked = check_object(&call, context.ports.local.as_ref(), object);
            let checked = checked.map_err(AgentError::from);
            DoneWithout { context, archive, summary, status, stop }.or(object, checked)?;
        }
        Ok(status.report(Event::Verified { place: Place::Local })?)
    })
}

/// What there is of a snapshot: what it wrote, without what no copy has.
struct Left {
    data: Vec<StoredObject>,
    manifest: Option<StoredObject>,
}

impl Left {
    fn of(
        context: &StageContext,
        archive: &Archive<'_>,
        summary: &SnapshotSummary,
    ) -> Result<Self, AgentError> {
        let lost = context.lost_objects(summary)?;
        let is_left = |object: &StoredObject| !lost.contains_key(object.name.as_str());
        let manifest = Some(archive.manifest_object(summary.snapshot)?).filter(is_left);
        let mut data = match manifest {
            Some(_) => archive.objects(summary.snapshot)?.data,
            None => archive.indexed_tarballs(context.ports.history.index(), summary.snapshot)?,
        };
        data.retain(is_left);
        Ok(Self { data, manifest })
    }
}

/// Uploads to one cloud.
struct CloudUpload<'a> {
    writer: CloudWriter<'a>,
    archive: &'a Archive<'a>,
}

impl<'a> CloudUpload<'a> {
    /// `None` if there is no cloud.
    fn new(
        context: &'a StageContext,
        archive: &'a Archive<'a>,
        stop: &'a AtomicBool,
    ) -> Option<Self> {
        Some(Self { writer: CloudWriter::new(context, stop)?, archive })
    }

    /// Uploads a snapshot, and before it those of its ancestors whose manifests are not there any
    /// more.
    fn fill_up_to(&self, summary: &SnapshotSummary) -> Result<(), AgentError> {
        // Before anything goes up: a store that was replaced leaves no objects that nothing needs.
        let missing = recorded_gap(self.writer.context, summary, || {
            self.writer.check_not_fenced()?;
            self.missing_ancestors(summary)
        })?;
        missing.into_iter().rev().chain([summary]).try_for_each(|summary| {
            recorded(self.writer.context, summary, |status| self.upload(summary, status))
        })
    }

    /// The ancestors from the parent back to the last one whose manifest is there, without that.
    fn missing_ancestors(
        &self,
        summary: &SnapshotSummary,
    ) -> Result<Vec<&'a SnapshotSummary>, AgentError> {
        let mut missing = Vec::new();
        let ancestors = self.archive.before(summary.snapshot);
        for ancestor in ancestors.filter(|ancestor| !ancestor.is_lost) {
            let manifest = self.archive.manifest_object(ancestor.snapshot)?;
            let status = self.writer.context.status(ancestor)?;
            // One that no copy has is no gap that could be filled.
            if status.is_some_and(|s| s.lost_objects.contains_key(manifest.name.as_str())) {
                continue;
            }
            if self.has(&manifest, ancestor)? {
                break;
            }
            let snapshot = ancestor.snapshot;
            tracing::warn!(%snapshot, "the cloud lacks a manifest that was there; filling the gap");
            if let Some(place) = self.writer.place.clone().map(Place::Cloud) {
                let status = self.writer.context.status_sink(header_of(ancestor))?;
                status.take_back(place, "its manifest is not there any more")?;
            }
            missing.push(ancestor);
        }
        Ok(missing)
    }

    /// Whether the manifest of a snapshot is in the cloud.
    fn has(&self, manifest: &StoredObject, summary: &SnapshotSummary) -> Result<bool, AgentError> {
        let call = self.writer.call();
        match check_object(&call, self.writer.cloud, manifest) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Missing => Ok(false),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                if self.writer.claims().is_manifest(&call, &manifest.name)? {
                    return Err(fenced_by_manifest(summary));
                }
                // This store's own, and damaged since, if it was once compared there. Otherwise it
                // may be anything, and is not for this store to remove.
                if self.was_verified(summary)? { Ok(false) } else { Err(unreadable(manifest)) }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn upload(&self, summary: &SnapshotSummary, status: &dyn StatusSink) -> Result<(), AgentError> {
        let Left { data, manifest } = Left::of(self.writer.context, self.archive, summary)?;
        let snapshot = summary.snapshot;
        let n_objects = data.len() + manifest.iter().len();
        let bytes: u64 = data.iter().map(|object| object.content.len_bytes).sum();
        tracing::info!(%snapshot, cloud = self.writer.cloud.url(), n_objects, bytes, "upload begins");
        let pushed = self.pushed(summary)?;
        let CloudWriter { context, stop, .. } = self.writer;
        let done_without = DoneWithout { context, archive: self.archive, summary, status, stop };
        let left = data.iter().filter(|object| !pushed.contains(object.name.as_str()));
        self.writer.each(left, &|object| {
            let put = self.writer.put(object);
            done_without.or(object, put.and_then(|()| self.writer.report_pushed(object, status)))
        })?;
        check_stop(self.writer.stop)?;
        if let Some(manifest) = &manifest {
            self.create_manifest(manifest, summary)?;
        }
        // Only now, and not before the manifest was there: see the head of this file.
        self.writer.check_not_fenced()?;
        moot::enqueue(&self.writer, self.archive, summary);
        let Some(place) = self.writer.place.clone() else { return Ok(()) };
        // An error of the status log fails the upload: a snapshot whose verification is not
        // recorded stays unsafe, and the next task checks its objects again.
        Ok(status.report(Event::Verified { place: Place::Cloud(place) })?)
    }

    /// Whether a snapshot was once verified in the cloud, or restored from it.
    fn was_verified(&self, summary: &SnapshotSummary) -> Result<bool, AgentError> {
        let Some(place) = self.writer.place.clone().map(Place::Cloud) else { return Ok(false) };
        let status = self.writer.context.status(summary)?;
        Ok(status.is_some_and(|status| status.was_verified.contains(&place))
            || self.writer.context.came_with_restore(self.archive, &place, summary)?)
    }

    /// Objects that were put and compared before.
    fn pushed(&self, summary: &SnapshotSummary) -> Result<HashSet<String>, AgentError> {
        let Some(place) = self.writer.place.clone().map(Place::Cloud) else {
            return Ok(HashSet::new());
        };
        let status = self.writer.context.status(summary)?;
        let pushed = status.as_ref().map(|status| status.pushed_to(&place)).unwrap_or_default();
        Ok(pushed.into_iter().map(str::to_owned).collect())
    }

    /// Creates the manifest, once.
    fn create_manifest(
        &self,
        manifest: &StoredObject,
        summary: &SnapshotSummary,
    ) -> Result<(), AgentError> {
        let call = self.writer.call();
        let StoredObject { name, content } = manifest;
        let from = match self.writer.source_of(manifest) {
            // One from before a restore is in the cloud alone.
            Err(error) if error.kind() == ErrorKind::Missing && self.has(manifest, summary)? => {
                return Ok(());
            }
            from => from?,
        };
        let content = StoredContent { store: from, name, len_bytes: content.len_bytes };
        if let Created::Exists(found) = self.writer.cloud.create(&call, name, &content)? {
            // Equal bytes are this store's own, of which an acknowledgement was lost.
            if self.has(manifest, summary)? {
                return Ok(());
            }
            tracing::warn!(%name, "a manifest is damaged in the cloud; replacing it");
            self.writer.cloud.delete(&call, name, Some(&found.version))?;
            self.writer.cloud.create(&call, name, &content)?;
        }
        Ok(check_object(&call, self.writer.cloud, manifest)?)
    }
}

/// What is done without: objects of a checkpoint that no copy has. Another checkpoint says it as
/// well, or the tarballs, and nothing waits for it.
struct DoneWithout<'a> {
    context: &'a StageContext,
    archive: &'a Archive<'a>,
    summary: &'a SnapshotSummary,
    status: &'a dyn StatusSink,
    stop: &'a AtomicBool,
}

impl DoneWithout<'_> {
    /// What was done with an object, or that it is lost.
    fn or(&self, object: &StoredObject, done: Result<(), AgentError>) -> Result<(), AgentError> {
        let Self { context, archive, summary, status, stop } = *self;
        match done {
            Err(error) if summary.kind == StepKind::Checkpoint && error.kind().is_of_object() => {
                // A store may answer wrongly once: it is tried again then.
                if is_anywhere(context, object, stop)? {
                    return Err(error);
                }
                let name = &object.name;
                tracing::warn!(%name, "no copy has an object of a checkpoint: {error}");
                report_lost(context, archive, summary, object, None, status)
            }
            done => done,
        }
    }
}

/// Looks for what is to be uploaded, and records in the log of the snapshot that is wanted why that
/// cannot be told.
fn recorded_gap<T>(
    context: &StageContext,
    summary: &SnapshotSummary,
    look: impl FnOnce() -> Result<T, AgentError>,
) -> Result<T, AgentError> {
    let found = look();
    if let Err(error) = &found {
        context.status_sink(header_of(summary))?.record_failure("push", error);
    }
    found
}

fn fenced_by_manifest(summary: &SnapshotSummary) -> AgentError {
    let SnapshotSummary { epoch, snapshot, .. } = *summary;
    AgentError::Fenced(Fenced::ByManifest { epoch, snapshot })
}

fn unreadable(manifest: &StoredObject) -> AgentError {
    let problem = format!(
        "{} in the cloud is damaged, or was put there by something else: it cannot be read. If \
         nothing but this store writes to the archive, remove it, and push again",
        manifest.name
    );
    PortError::new(ErrorKind::Damaged, problem).into()
}
