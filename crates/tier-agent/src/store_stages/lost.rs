//! What no copy has whole: persisted again from the filesystem, and gone on without.
//!
//! A tarball or a manifest that is damaged in every copy would keep all that follows from being
//! safe, for ever. What the filesystem has of it makes another snapshot; what it does not have
//! either is lost ranges from then on, and is told. A checkpoint follows, which states all that is
//! live without the objects that are lost, so that a restore need not read what they belonged to.
//!
//! **Order.** The snapshots take their marks back first. Then the inodes that lie in the lost
//! tarballs are persisted again: of two places of one version the later one counts. What still lies
//! in a lost one afterwards nothing has, and only then it is made lost in the index. Then comes the
//! checkpoint, and at the end it is recorded which objects are lost, and which checkpoint does
//! without them. A crash between any two of these leaves snapshots that are not safe, and the same
//! objects to be found lost again.
//!
//! A snapshot is then uploaded without what it has lost, for what is left of it; it counts as safe
//! when that checkpoint does, or a later one. If all of these have lost objects themselves, there
//! must be another.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use tier_index::TarballId;
use tier_persist::{
    Archive, PersistError, Persister, SnapshotSummary, StepKind, StoredObject, check_object,
    tarball_of,
};
use tier_status::{Event, Place, StatusSink};
use tier_types::{Call, ErrorKind, HasKind, PortError, SnapshotId};

use super::checkpoint;
use super::context::{StageContext, header_of};
use super::persist::{Again, persist_again};
use crate::AgentError;

/// What no copy has of one snapshot.
struct Lost {
    summary: SnapshotSummary,
    /// None if all of it is known, and only a checkpoint is missing that does without it.
    objects: Vec<StoredObject>,
}

/// Persists again what these snapshots have in objects that no copy has whole. Returns those of
/// which something was lost.
pub(super) fn persist_lost(
    context: &StageContext,
    persister: &Persister,
    snapshots: &[SnapshotId],
    stop: &AtomicBool,
) -> Result<Vec<SnapshotId>, AgentError> {
    if context.ports.writer.is_none() {
        return Err(AgentError::Follower);
    }
    let unknown = "what is lost cannot be told while the identity of the cloud is not known: set \
                   cloud_id in tier.toml to what its object tier-cloud says";
    let unknown = || PortError::new(ErrorKind::Denied, unknown);
    let place = context.safe_place().ok_or_else(unknown)?;
    let lost = look(context, &place, snapshots, stop)?;
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    for Lost { summary, objects } in &lost {
        let snapshot = summary.snapshot;
        tracing::warn!(%snapshot, n_lost = objects.len(), "no copy has all objects of a snapshot");
        let status = context.status_sink(header_of(summary))?;
        status.take_back(place.clone(), "an object of it is lost in every copy")?;
    }
    let objects = lost.iter().flat_map(|lost| &lost.objects);
    let tarballs: BTreeSet<TarballId> = objects.filter_map(|o| tarball_of(&o.name)).collect();
    let index = context.ports.history.index();
    let forget = || Ok(index.writer().lose(&tarballs)?);
    let again = Again { inodes: index.inodes_in(&tarballs)?, before_checkpoint: &forget };
    let checkpoint = persist_again(context, persister, &again, stop)?;
    // Last of all: until then all of this is done again.
    let archive = context.archive()?;
    for Lost { summary, objects } in &lost {
        let without = (summary.kind != StepKind::Checkpoint).then_some(checkpoint);
        let status = context.status_sink(header_of(summary))?;
        for object in objects {
            report_lost(context, &archive, summary, object, without, &status)?;
        }
    }
    Ok(lost.into_iter().map(|lost| lost.summary.snapshot).collect())
}

/// What no copy has of these snapshots, where that is not known, or no checkpoint does without it.
fn look(
    context: &StageContext,
    place: &Place,
    snapshots: &[SnapshotId],
    stop: &AtomicBool,
) -> Result<Vec<Lost>, AgentError> {
    let archive = context.archive()?;
    let mut all = Vec::new();
    for snapshot in snapshots {
        let missing = || PersistError::Missing(format!("snapshot {snapshot}"));
        let summary = archive.snapshot(*snapshot).ok_or_else(missing)?;
        let known = context.status(summary)?.map(|status| status.lost_objects).unwrap_or_default();
        let (mut lost, mut found) = (Vec::new(), Vec::new());
        for object in objects_left(context, &archive, summary)? {
            let is_known = known.contains_key(object.name.as_str());
            match is_anywhere(context, &object, stop)? {
                false if !is_known => lost.push(object),
                true if is_known => found.push(object),
                true | false => {}
            }
        }
        if !found.is_empty() {
            let status = context.status_sink(header_of(summary))?;
            status.take_back(place.clone(), "a copy has an object again that was lost")?;
            for object in found {
                status.report(Event::ObjectFound { name: object.name.to_string() })?;
            }
        }
        if !lost.is_empty() || checkpoint::is_missing(context, &archive, summary)? {
            all.push(Lost { summary: summary.clone(), objects: lost });
        }
    }
    Ok(all)
}

/// Records that no copy has an object: in the log of its snapshot, which `status` writes, and for
/// every later checkpoint that names it.
pub(super) fn report_lost(
    context: &StageContext,
    archive: &Archive<'_>,
    summary: &SnapshotSummary,
    object: &StoredObject,
    checkpoint: Option<SnapshotId>,
    status: &dyn StatusSink,
) -> Result<(), AgentError> {
    let name = object.name.to_string();
    let later = archive.after(Some(summary.snapshot));
    let is_named_by = |later: &SnapshotSummary| -> Result<bool, AgentError> {
        if summary.kind != StepKind::Checkpoint || later.kind != StepKind::Checkpoint {
            return Ok(false);
        }
        match archive.objects(later.snapshot) {
            Ok(objects) => Ok(objects.earlier.contains(object)),
            Err(error) if is_lost(error.kind()) => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    for later in later {
        if is_named_by(later)? {
            let later = context.status_sink(header_of(later))?;
            later.report(Event::ObjectLost { name: name.clone(), checkpoint })?;
        }
    }
    Ok(status.report(Event::ObjectLost { name, checkpoint })?)
}

pub(super) fn is_lost(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Missing | ErrorKind::Damaged)
}

/// What a snapshot wrote. If its manifest is lost, that and the tarballs that the index knows.
fn objects_left(
    context: &StageContext,
    archive: &Archive<'_>,
    summary: &SnapshotSummary,
) -> Result<Vec<StoredObject>, AgentError> {
    match archive.objects(summary.snapshot) {
        Ok(objects) => Ok(objects.own().cloned().collect()),
        Err(error) if is_lost(error.kind()) => {
            let index = context.ports.history.index();
            let mut objects = archive.indexed_tarballs(index, summary.snapshot)?;
            objects.push(archive.manifest_object(summary.snapshot)?);
            Ok(objects)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether any copy has an object whole. A copy that is away may have it: that is an error.
pub(super) fn is_anywhere(
    context: &StageContext,
    object: &StoredObject,
    stop: &AtomicBool,
) -> Result<bool, AgentError> {
    let call = Call::bulk().cancelled_by(stop);
    for store in context.stores() {
        match check_object(&call, store, object) {
            Ok(()) => return Ok(true),
            Err(error) if is_lost(error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
