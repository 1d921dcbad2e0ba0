//! What no copy has whole: persisted again from the filesystem, and gone on without.
//!
//! A tarball or a manifest that is damaged in every copy would keep all that follows from being
//! safe, for ever. What the filesystem has of it makes another snapshot; what it does not have
//! either is lost ranges from then on, and is told. A checkpoint follows, which states all that is
//! live without the objects that are lost, so that a restore need not read what they belonged to.
//!
//! **Order.** The snapshots of a repair take their marks back first; one that is made up for
//! unasked never had any. Then the inodes that lie in the lost tarballs are persisted again: of two
//! places of one version the later one counts. What still lies in a lost one afterwards nothing
//! has, and only then it is made lost in the index. Then comes the checkpoint, and at the end it is
//! recorded which objects are lost, and which checkpoint does without them. A crash between any two
//! of these leaves snapshots that are not safe, and the same objects to be found lost again.
//!
//! A snapshot is then uploaded without what it has lost, for what is left of it; it counts as safe
//! when that checkpoint does, or a later one. If all of these have lost objects themselves, there
//! must be another.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::AtomicBool;

use tier_index::TarballId;
use tier_log::{NetChanges, NetChangesOptions};
use tier_persist::{
    Archive, PersistError, Persister, SnapshotSummary, StepKind, StoredObject, check_object,
    is_known_kind, tarball_of,
};
use tier_status::{Event, Place, StatusSink};
use tier_types::{Call, ErrorKind, HasKind, Ino, ObjectName, PortError, SnapshotId, with_causes};

use super::checkpoint;
use super::context::{SafeFall, StageContext, header_of};
use super::persist::{Again, persist_again};
use super::ports::StorePorts;
use crate::AgentError;
use crate::archived_log::read_archived_log;
use crate::stages::LostAndFound;

/// What may keep a snapshot from being made up for, and pass, besides what may pass for any caller.
const KEPT_FROM: [ErrorKind; 2] = [ErrorKind::Cancelled, ErrorKind::NoSpace];

/// What is new of one snapshot.
struct Lost {
    summary: SnapshotSummary,
    /// Objects that no copy has. Without any all of them are known, or a checkpoint is missing that
    /// does without them.
    objects: Vec<StoredObject>,
    /// Objects that were lost, and that a copy has again.
    found: Vec<StoredObject>,
}

/// What of a snapshot went bad before the place that makes it safe had it; `None` if that is
/// nothing, or is for an operator: what was safe once may be whole in a copy that is not asked
/// here.
pub(super) fn rotted(
    context: &StageContext,
    snapshot: SnapshotId,
    stop: &AtomicBool,
) -> Result<Option<Looked>, AgentError> {
    if context.made_up_for.lock().contains(&snapshot) {
        return Ok(None);
    }
    let Some(place) = unless_it_was_safe(context, snapshot)? else { return Ok(None) };
    let all = look(context, &[snapshot], Asked::NotPushedTo(&place), stop)?;
    let index = context.ports.history.index();
    for object in all.iter().flat_map(|lost| &lost.objects) {
        // What a later version wrote may be worth more than can be told here; and what lay in a
        // tarball that the index does not know is not known either.
        let is_known = match tarball_of(&object.name) {
            Some(tarball) => index.tarball_row(tarball)?.is_some(),
            None => is_known_kind(&object.name),
        };
        if !is_known {
            return Ok(None);
        }
    }
    Ok(Some(Looked { place, all }).filter(|looked| !looked.all.is_empty()))
}

/// Persists that again, and says with which snapshot it is complete; `None` if the filesystem does
/// not have all of it. Tried once for each snapshot, unless what kept it from being done may pass.
pub(super) fn make_up_for(
    context: &StageContext,
    persister: &Persister,
    snapshot: SnapshotId,
    rotted: &Looked,
    stop: &AtomicBool,
) -> Result<Option<SnapshotId>, AgentError> {
    let made_up = persist_all(context, persister, rotted, MayLose::Nothing, stop);
    let is_over = made_up.as_ref().map_or_else(
        |error| !error.kind().may_pass() && !KEPT_FROM.contains(&error.kind()),
        |_| true,
    );
    if is_over {
        context.made_up_for.lock().insert(snapshot);
    }
    match made_up {
        Ok(_) => {}
        // Of the filesystem's own damage an operator hears where that is persisted.
        Err(error) if error.kind().is_of_object() => {
            let error = with_causes(&error);
            tracing::warn!(%snapshot, "what went bad of a snapshot is not made up for: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let made_up_for_by = context.archive()?.snapshots().next_back().map(|last| last.snapshot);
    tracing::warn!(
        %snapshot, ?made_up_for_by,
        "what went bad of a snapshot before it was uploaded is persisted again"
    );
    Ok(made_up_for_by)
}

/// The place that makes a snapshot safe; `None` if it is not this store's own, or if it once was
/// safe anywhere.
fn unless_it_was_safe(
    context: &StageContext,
    snapshot: SnapshotId,
) -> Result<Option<Place>, AgentError> {
    let archive = context.archive()?;
    let (Some(summary), Some(place), Some(_)) =
        (archive.snapshot(snapshot), context.safe_place(), context.ports.writer)
    else {
        return Ok(None);
    };
    let status = context.status(summary)?;
    let was_safe = status.is_none_or(|status| !status.was_verified.is_empty())
        || context.came_with_restore(&archive, &place, summary)?;
    Ok(Some(place).filter(|_| !was_safe))
}

/// What is lost, and of what place a repair takes that back.
pub(super) struct Looked {
    place: Place,
    all: Vec<Lost>,
}

/// Whether data may become lost for which neither a copy of the archive nor the filesystem is left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MayLose {
    Nothing,
    Anything,
}

fn tarballs_of(all: &[Lost]) -> BTreeSet<TarballId> {
    all.iter().flat_map(|lost| &lost.objects).filter_map(|o| tarball_of(&o.name)).collect()
}

/// Persists again what these snapshots have in objects that no copy has whole, and takes in again
/// what one has that was lost.
pub(super) fn persist_lost(
    context: &StageContext,
    persister: &Persister,
    snapshots: &[SnapshotId],
    stop: &AtomicBool,
) -> Result<LostAndFound, AgentError> {
    if context.ports.writer.is_none() {
        return Err(AgentError::Follower);
    }
    let unknown = "what is lost cannot be told while the identity of the cloud is not known: set \
                   cloud_id in tier.toml to what its object tier-cloud says";
    let unknown = || PortError::new(ErrorKind::Denied, unknown);
    let place = context.safe_place().ok_or_else(unknown)?;
    let all = look(context, snapshots, Asked::All, stop)?;
    if all.is_empty() {
        return Ok(LostAndFound::default());
    }
    persist_all(context, persister, &Looked { place, all }, MayLose::Anything, stop)
}

/// The same when it is known what is new.
fn persist_all(
    context: &StageContext,
    persister: &Persister,
    Looked { place, all }: &Looked,
    may_lose: MayLose,
    stop: &AtomicBool,
) -> Result<LostAndFound, AgentError> {
    for Lost { summary, objects, found } in all {
        let (snapshot, n_lost, n_found) = (summary.snapshot, objects.len(), found.len());
        tracing::warn!(%snapshot, n_lost, n_found, "no copy had all objects of a snapshot");
        // What was never safe has nothing to be taken back, and goes on with what was uploaded.
        if may_lose == MayLose::Anything {
            let status = context.status_sink(header_of(summary))?;
            status.take_back(place.clone(), "an object of it is lost in every copy, or was")?;
        }
    }
    let tarballs = tarballs_of(all);
    let inodes = what_lay_in(context, all, &tarballs)?;
    let index = context.ports.history.index();
    let forget = || {
        if may_lose == MayLose::Nothing
            && let Some(ino) = index.inodes_in(&tarballs)?.first()
        {
            return Err(not_resident(*ino));
        }
        Ok(index.writer().lose(&tarballs)?)
    };
    let again = Again { inodes, before_checkpoint: &forget };
    let checkpoint = persist_again(context, persister, &again, stop)?;
    let is_behind = |lost: &Lost| lost.summary.snapshot < checkpoint;
    assert!(all.iter().all(is_behind), "a checkpoint does without what is before it");
    // Last of all: until then all of this is done again.
    record(context, all, checkpoint)?;
    let of = |is_it: &dyn Fn(&Lost) -> bool| {
        all.iter().filter(|lost| is_it(lost)).map(|lost| lost.summary.snapshot).collect()
    };
    // One that only lacked its checkpoint has lost no less than before.
    let has_lost = |lost: &Lost| !lost.objects.is_empty() || lost.found.is_empty();
    Ok(LostAndFound { lost: of(&has_lost), found: of(&|lost| !lost.found.is_empty()) })
}

/// What was persisted again has another place by now, so that what has none is nowhere else.
fn not_resident(ino: Ino) -> AgentError {
    let problem = format!(
        "inode {ino} has data in a tarball that no copy has whole, and the filesystem does not have \
         it any more: look for another copy, or run tier repair"
    );
    PortError::new(ErrorKind::Damaged, problem).into()
}

/// The inodes that are to be persisted again. What a copy has again is taken into the index first.
fn what_lay_in(
    context: &StageContext,
    all: &[Lost],
    tarballs: &BTreeSet<TarballId>,
) -> Result<Vec<Ino>, AgentError> {
    let index = context.ports.history.index();
    let archive = context.archive()?;
    let mut inodes: BTreeSet<Ino> = index.inodes_in(tarballs)?.into_iter().collect();
    for Lost { summary, objects, found } in all {
        let snapshot = summary.snapshot;
        if !found.is_empty() {
            let known = context.lost_objects(summary)?;
            let is_found = |name: &ObjectName| found.iter().any(|found| found.name == *name);
            let is_lost = |name: &ObjectName| {
                known.contains_key(name.as_str()) && !is_found(name)
                    || objects.iter().any(|lost| lost.name == *name)
            };
            archive.take_in_again(index, snapshot, &is_lost)?;
        }
        // An index that was made when the tarball was lost already has nothing of it, and the log
        // tells what that was. Of a step whose manifest was lost by then it was told in the
        // restore.
        let is_unknown =
            |id: TarballId| -> Result<bool, AgentError> { Ok(index.tarball_row(id)?.is_none()) };
        let mut of_it = objects.iter().filter_map(|object| tarball_of(&object.name));
        let has_unknown = of_it.try_fold(false, |any, id| is_unknown(id).map(|is| any || is))?;
        if has_unknown && !summary.is_lost {
            inodes.extend(changed_in(context, &archive, snapshot)?);
        }
    }
    Ok(inodes.into_iter().collect())
}

/// The inodes that a snapshot persisted, as the log has it: this store's own, or the archive's.
fn changed_in(
    context: &StageContext,
    archive: &Archive<'_>,
    snapshot: SnapshotId,
) -> Result<Vec<Ino>, AgentError> {
    let StorePorts { log, spill_dir, .. } = &context.ports;
    let options = NetChangesOptions::new(spill_dir);
    let inodes = archive.inodes_of(snapshot, &|segments, range, show| {
        let own = NetChanges::of_range(log.as_ref(), range, &options);
        let Ok(changes) = own else {
            return read_archived_log(spill_dir, segments, range, show);
        };
        for update in changes {
            show(update?);
        }
        Ok(())
    })?;
    let problem = "neither the index nor a log says what lay in a tarball that no copy has, so that \
                   nothing is given up: look for another copy of it, or of its log segment";
    let unknown = || PortError::new(ErrorKind::Damaged, format!("snapshot {snapshot}: {problem}"));
    Ok(inodes.ok_or_else(unknown)?)
}

fn record(context: &StageContext, all: &[Lost], checkpoint: SnapshotId) -> Result<(), AgentError> {
    let archive = context.archive()?;
    for Lost { summary, objects, found } in all {
        let without = (summary.kind != StepKind::Checkpoint).then_some(checkpoint);
        let status = context.status_sink(header_of(summary))?;
        for object in objects {
            report_lost(context, &archive, summary, object, without, &status)?;
        }
        for object in found {
            status.report(Event::ObjectFound { name: object.name.to_string() })?;
        }
    }
    Ok(())
}

/// Which objects are looked at.
#[derive(Clone, Copy)]
enum Asked<'a> {
    All,
    /// Those that are not known to be there.
    NotPushedTo(&'a Place),
}

/// What is new of these snapshots, each of which has something.
fn look(
    context: &StageContext,
    snapshots: &[SnapshotId],
    asked: Asked<'_>,
    stop: &AtomicBool,
) -> Result<Vec<Lost>, AgentError> {
    let archive = context.archive()?;
    let mut all = Vec::new();
    for snapshot in snapshots {
        let missing = || PersistError::Missing(format!("snapshot {snapshot}"));
        let summary = archive.snapshot(*snapshot).ok_or_else(missing)?;
        let known = context.lost_objects(summary)?;
        let status = context.status(summary)?;
        let pushed = match (asked, &status) {
            (Asked::NotPushedTo(place), Some(status)) => status.pushed_to(place),
            (Asked::All, _) | (_, None) => HashSet::new(),
        };
        let (mut objects, mut found) = (Vec::new(), Vec::new());
        for object in archive.own_objects(context.ports.history.index(), summary.snapshot)? {
            if pushed.contains(object.name.as_str()) {
                continue;
            }
            let is_known = known.contains_key(object.name.as_str());
            match is_anywhere(context, &object, stop)? {
                false if !is_known => objects.push(object),
                true if is_known => found.push(object),
                true | false => {}
            }
        }
        let is_new = !objects.is_empty() || !found.is_empty();
        if is_new || checkpoint::is_missing(context, &archive, summary)? {
            all.push(Lost { summary: summary.clone(), objects, found });
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
    let _fall = match summary.kind {
        StepKind::Checkpoint => lower_what_needs_checkpoints(context, archive)?,
        StepKind::Snapshot => None,
    };
    let name = object.name.to_string();
    let later = archive.after(Some(summary.snapshot));
    let is_named_by = |later: &SnapshotSummary| -> Result<bool, AgentError> {
        if summary.kind != StepKind::Checkpoint || later.kind != StepKind::Checkpoint {
            return Ok(false);
        }
        match archive.objects(later.snapshot) {
            Ok(objects) => Ok(objects.earlier.contains(object)),
            Err(error) if error.kind().is_of_object() => Ok(false),
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

/// What does without lost objects is safe by a checkpoint. When one loses an object itself, it has
/// to be asked again by which of them: from the first such snapshot on nothing is known to be safe.
fn lower_what_needs_checkpoints<'a>(
    context: &'a StageContext,
    archive: &Archive<'_>,
) -> Result<Option<SafeFall<'a>>, AgentError> {
    for summary in archive.snapshots().filter(|summary| summary.kind != StepKind::Checkpoint) {
        let status = context.status(summary)?;
        if status.is_some_and(|status| status.needs_checkpoint().is_some()) {
            return context.lower_safe(summary.snapshot).map(Some);
        }
    }
    Ok(None)
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
            Err(error) if error.kind().is_of_object() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
