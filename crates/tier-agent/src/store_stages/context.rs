//! The stages' context: ports, progress and priority, with the questions that several stages ask.
//!
//! What is *safe* is answered here, once: the snapshots up to the last one before which every
//! snapshot was verified in the place that counts. That is the configured cloud under its URL,
//! where there is one; what was verified in another cloud counts for nothing. A snapshot that is
//! verified behind one that is not is not safe: its manifest continues the other's, and a restore
//! would need both. What was taken over is safe from when a step of this store's own epoch is,
//! which continues it: until then another takeover may continue something else.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tier_persist::{Archive, NextStep, SnapshotSummary, StepKind};
use tier_status::{
    Event, Place, Progress, SnapshotStatus, StatusError, StatusHeader, StatusSink, StatusWriter,
};
use tier_types::{Epoch, ErrorKind, HasKind, ObjectStore, SnapshotId, with_causes};

use super::background::in_background;
use super::ports::StorePorts;
use super::safe_mark::SafeMark;
use crate::AgentError;
use crate::decide::may_be_away;

/// After an upload that failed, none is tried beside persisting for so long. No longer: where space
/// is short nothing can be persisted without.
const CLOUD_REST: Duration = Duration::from_secs(5);

pub(super) struct StageContext {
    pub(super) ports: StorePorts,
    pub(super) progress: Arc<dyn StatusSink>,
    /// As nice(1) counts it.
    pub(super) nice: u8,
    /// After a checkpoint failed: not again before doing without costs so many bytes.
    pub(super) no_checkpoint_before: AtomicU64,
    /// That the cloud has nothing of a later epoch, nor another claim on this one, was found out.
    pub(super) owns_epoch: AtomicBool,
    /// How far the history is known to be safe, so that no status log is read twice.
    known: Mutex<Known>,
    /// Held by an eviction pass, which goes by what is safe.
    pub(super) passes: RwLock<()>,
    /// Threads that are to take back that something is safe: a pass ends for them.
    pub(super) safe_falls: AtomicUsize,
    /// Up to which snapshot the local store was told what is spare.
    pub(super) told_spare: Mutex<Option<(Epoch, SnapshotId)>>,
    /// Snapshots of which something was persisted again without being asked for.
    pub(super) made_up_for: Mutex<BTreeSet<SnapshotId>>,
    /// The last snapshot was refused for what it could not read. The next one may be as well, and
    /// what goes up beside it may be for nothing; but without that it may have no room.
    pub(super) was_refused: AtomicBool,
    /// How the last upload failed, if it did.
    cloud_failed: Mutex<Option<CloudFailure>>,
}

/// An upload that failed.
struct CloudFailure {
    at: Instant,
    kind: ErrorKind,
    why: String,
}

#[derive(Default)]
struct Known {
    safe: KnownSafe,
    /// All up to this one are verified. It is ahead of what is safe while nothing of this epoch
    /// continues it.
    verified: Option<(Epoch, SnapshotId)>,
}

/// How far a history has got.
pub(super) struct HowFar {
    /// The last snapshot that is safe with all before it; `None` if none is.
    pub(super) safe: Option<SnapshotSummary>,
    /// The last one that is verified with all before it.
    pub(super) verified: Option<SnapshotId>,
}

/// What is known of the mark.
#[derive(Default)]
enum KnownSafe {
    /// The index was not asked yet.
    #[default]
    Unread,
    Nothing,
    UpTo(SafeMark),
}

impl KnownSafe {
    fn of(mark: Option<SafeMark>) -> Self {
        mark.map_or(Self::Nothing, Self::UpTo)
    }

    fn mark(&self) -> Option<&SafeMark> {
        match self {
            Self::Unread | Self::Nothing => None,
            Self::UpTo(mark) => Some(mark),
        }
    }
}

impl StageContext {
    pub(super) fn new(ports: StorePorts, progress: Arc<dyn StatusSink>, nice: u8) -> Self {
        Self {
            ports,
            progress,
            nice,
            no_checkpoint_before: AtomicU64::new(0),
            owns_epoch: AtomicBool::new(false),
            known: Mutex::default(),
            passes: RwLock::new(()),
            safe_falls: AtomicUsize::new(0),
            told_spare: Mutex::default(),
            made_up_for: Mutex::default(),
            was_refused: AtomicBool::new(false),
            cloud_failed: Mutex::default(),
        }
    }

    /// An upload to the cloud worked, or failed.
    pub(super) fn note_cloud(&self, upload: Result<(), &AgentError>) {
        let failed = match upload {
            Ok(()) => None,
            // What is wrong with an object or a status log says nothing of the cloud, and a stop
            // is none of its errors.
            Err(AgentError::Status(_)) => return,
            Err(error) if error.kind().is_of_object() => return,
            Err(error) if error.kind() == ErrorKind::Cancelled => return,
            Err(error) => {
                let (kind, why) = (error.kind(), with_causes(error));
                Some(CloudFailure { at: Instant::now(), kind, why })
            }
        };
        *self.cloud_failed.lock() = failed;
    }

    /// Whether an upload is worth trying beside persisting: the cloud may take it, and what goes
    /// up is likely to be of use.
    pub(super) fn may_upload_early(&self) -> bool {
        let is_over = |failed: &CloudFailure| failed.at.elapsed() >= CLOUD_REST;
        !self.was_refused.load(Ordering::Relaxed)
            && self.cloud_failed.lock().as_ref().is_none_or(is_over)
    }

    /// An error of persisting that began at a time. What finds no room while the cloud is away
    /// waits for that: with it, each tarball makes room for the next.
    pub(super) fn or_awaits_cloud(&self, error: AgentError, began: Instant) -> AgentError {
        let failed = self.cloud_failed.lock();
        // In the attempt, or so short a time before that the cloud was not asked again.
        let is_recent = |failed: &&CloudFailure| failed.at + CLOUD_REST >= began;
        // A cloud that is full, or refuses, is not waited for.
        let counts = |failed: &&CloudFailure| may_be_away(failed.kind) && is_recent(failed);
        match failed.as_ref().filter(counts) {
            Some(CloudFailure { kind, why, .. }) if error.kind() == ErrorKind::NoSpace => {
                AgentError::AwaitsCloud { kind: *kind, why: why.clone() }
            }
            Some(_) | None => error,
        }
    }

    /// The history that the index includes. A manifest that the local store has lost is read from
    /// the cloud, by its digest.
    pub(super) fn archive(&self) -> Result<Archive<'_>, AgentError> {
        let StorePorts { keys, filesystem, history, .. } = &self.ports;
        Ok(history.archive(self.stores(), keys, *filesystem)?)
    }

    /// The copies of the archive, the local one first.
    pub(super) fn stores(&self) -> Vec<&dyn ObjectStore> {
        let StorePorts { local, cloud, former_clouds, .. } = &self.ports;
        let local: &dyn ObjectStore = local.as_ref();
        let cloud = cloud.iter().map(|cloud| cloud.store.as_ref());
        let former = former_clouds.iter().map(AsRef::as_ref);
        std::iter::once(local).chain(cloud).chain(former).collect()
    }

    /// Brings the index up to what a crash, or an attempt that failed late, kept from it.
    pub(super) fn catch_up(&self, next: SnapshotId) -> Result<(), AgentError> {
        let StorePorts { keys, filesystem, history, .. } = &self.ports;
        Ok(history.catch_up(&self.stores(), keys, *filesystem, self.next_step(next))?)
    }

    /// The same, unless that is out of reach. Whether the index is up to date.
    pub(super) fn catch_up_if_within_reach(&self, next: SnapshotId) -> Result<bool, AgentError> {
        let StorePorts { keys, filesystem, history, .. } = &self.ports;
        let next = self.next_step(next);
        Ok(history.catch_up_if_within_reach(&self.stores(), keys, *filesystem, next)?)
    }

    fn next_step(&self, snapshot: SnapshotId) -> NextStep {
        NextStep { epoch: self.ports.epoch, snapshot, writer: self.ports.writer }
    }

    /// Where a snapshot must be verified before anything of it is evicted; `None` while that is not
    /// known, and nothing is safe.
    pub(super) fn safe_place(&self) -> Option<Place> {
        match &self.ports.cloud {
            Some(cloud) => cloud.place().map(Place::Cloud),
            None => Some(Place::Local),
        }
    }

    /// How far the history is verified, and safe.
    pub(super) fn how_far(&self, archive: &Archive<'_>) -> Result<HowFar, AgentError> {
        let Some(place) = self.safe_place() else {
            return Ok(HowFar { safe: None, verified: None });
        };
        let mut known = self.known.lock();
        if matches!(known.safe, KnownSafe::Unread) {
            known.safe = KnownSafe::of(self.read_mark(archive, &place)?);
        }
        // A mark of another history says nothing.
        let mark = known.safe.mark().map(SafeMark::snapshot);
        let is_here = |(epoch, snapshot)| archive.snapshot(snapshot).filter(|s| s.epoch == epoch);
        let marked = mark.and_then(is_here).cloned();
        let before = known.verified.and_then(is_here);
        let mut reached =
            before.into_iter().chain(marked.as_ref()).max_by_key(|summary| summary.snapshot);
        let verified = Verified::new(self, archive, &place);
        for summary in archive.after(reached.map(|reached| reached.snapshot)) {
            // While less becomes safe the logs may not say so yet.
            if self.safe_falls.load(Ordering::SeqCst) > 0 || !verified.has(summary)? {
                break;
            }
            reached = Some(summary);
        }
        known.verified = reached.map(|reached| (reached.epoch, reached.snapshot));
        // Another store may take over from a step that is not among these, as long as nothing of
        // this epoch names them as what it continues.
        let is_anchored = |summary: &&SnapshotSummary| summary.epoch == self.ports.epoch;
        let safe = reached.filter(is_anchored).cloned().or_else(|| marked.clone());
        if let Some(safe) = safe.as_ref().filter(|safe| Some(*safe) != marked.as_ref()) {
            let mark = SafeMark::new(&place, safe.epoch, safe.snapshot);
            self.ports.history.index().remember_safe(&mark.to_bytes(), false)?;
            known.safe = KnownSafe::UpTo(mark);
        }
        Ok(HowFar { safe, verified: reached.map(|reached| reached.snapshot) })
    }

    /// The oldest snapshot behind this one that is not uploaded and verified. While one that
    /// has lost objects waits for a checkpoint, those behind it may be verified and not safe.
    pub(super) fn next_to_upload<'s>(
        &self,
        archive: &'s Archive<'_>,
        verified: Option<SnapshotId>,
    ) -> Result<Option<&'s SnapshotSummary>, AgentError> {
        let place = self.safe_place();
        for summary in archive.after(verified).filter(|summary| !summary.is_lost) {
            let is_done = |status: SnapshotStatus| {
                place.as_ref().is_some_and(|place| status.is_verified_in(place))
            };
            if !self.status(summary)?.is_some_and(is_done) {
                return Ok(Some(summary));
            }
        }
        Ok(None)
    }

    /// The mark that the index has. One for another place says nothing, and neither does one whose
    /// snapshot has lost its log, as if an operator had moved it away: then all logs are read.
    fn read_mark(
        &self,
        archive: &Archive<'_>,
        place: &Place,
    ) -> Result<Option<SafeMark>, AgentError> {
        let bytes = self.ports.history.index().safe()?;
        let mark = bytes.as_deref().and_then(SafeMark::from_bytes);
        let Some(mark) = mark.filter(|mark| mark.is_for(place)) else { return Ok(None) };
        let Some(summary) = archive.snapshot(mark.snapshot().1) else { return Ok(None) };
        let verified = Verified::new(self, archive, place);
        Ok(verified.has(summary)?.then_some(mark))
    }

    /// From a snapshot on nothing is known to be safe any more. A pass that goes by the contrary
    /// ends first, and what was spare is not. As long as the answer is held nothing becomes safe:
    /// the caller records meanwhile why less is, and until then the logs say the contrary.
    pub(super) fn lower_safe(&self, snapshot: SnapshotId) -> Result<SafeFall<'_>, AgentError> {
        let fall = SafeFall::new(self);
        let passes = self.passes.write();
        let lowered = self.lower_safe_alone(snapshot);
        // Only now: told before, it could be told again by what was safe.
        *self.told_spare.lock() = None;
        self.ports.local.keep_all();
        drop(passes);
        lowered.map(|()| fall)
    }

    fn lower_safe_alone(&self, snapshot: SnapshotId) -> Result<(), AgentError> {
        let Some(place) = self.safe_place() else { return Ok(()) };
        let archive = self.archive()?;
        let mut known = self.known.lock();
        if matches!(known.safe, KnownSafe::Unread) {
            known.safe = KnownSafe::of(self.read_mark(&archive, &place)?);
        }
        // Found again from what is safe.
        known.verified = None;
        if known.safe.mark().is_none_or(|mark| mark.snapshot().1 < snapshot) {
            return Ok(());
        }
        let before = archive.before(snapshot).next();
        let lower = before.map(|before| SafeMark::new(&place, before.epoch, before.snapshot));
        // Durable before it is recorded that the snapshot is not verified: a mark that came back
        // after a crash would say that it is.
        let bytes = lower.as_ref().map(SafeMark::to_bytes).unwrap_or_default();
        self.ports.history.index().remember_safe(&bytes, true)?;
        known.safe = KnownSafe::of(lower);
        let is_lower = known.safe.mark().is_none_or(|mark| mark.snapshot().1 < snapshot);
        assert!(is_lower, "nothing from {snapshot} on is safe any more");
        Ok(())
    }

    /// Whether the store was restored from there by a later checkpoint.
    pub(super) fn came_with_restore(
        &self,
        archive: &Archive<'_>,
        place: &Place,
        summary: &SnapshotSummary,
    ) -> Result<bool, AgentError> {
        Ok(Verified::new(self, archive, place).restored_by()? > Some(summary.snapshot))
    }

    /// What the status log says of a snapshot; `None` without one.
    pub(super) fn status(
        &self,
        summary: &SnapshotSummary,
    ) -> Result<Option<SnapshotStatus>, AgentError> {
        Ok(self.ports.book.status(header_of(summary))?)
    }

    /// Objects of a snapshot that no copy has, as far as that was recorded. A snapshot from before
    /// a restore has no log, and nothing was recorded of it.
    pub(super) fn lost_objects(
        &self,
        summary: &SnapshotSummary,
    ) -> Result<BTreeMap<String, Option<SnapshotId>>, AgentError> {
        let status = self.status(summary)?;
        Ok(status.map_or_else(BTreeMap::new, |status| status.lost_objects))
    }

    /// Where the events of a snapshot go.
    pub(super) fn status_sink(&self, header: StatusHeader) -> Result<StageSink<'_>, AgentError> {
        let log = self.ports.book.writer(header)?;
        Ok(StageSink { context: self, header, log })
    }

    /// Has work done that yields to the foreground.
    pub(super) fn in_background<T: Send>(
        &self,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, AgentError> {
        in_background(self.nice, work)
    }
}

/// Less becomes safe. Held until it is recorded why.
#[must_use]
pub(super) struct SafeFall<'a>(&'a StageContext);

impl<'a> SafeFall<'a> {
    fn new(context: &'a StageContext) -> Self {
        context.safe_falls.fetch_add(1, Ordering::SeqCst);
        Self(context)
    }
}

impl Drop for SafeFall<'_> {
    fn drop(&mut self) {
        self.0.safe_falls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is verified in a place, as the status logs say.
struct Verified<'a> {
    context: &'a StageContext,
    archive: &'a Archive<'a>,
    place: &'a Place,
    // Looked for once, if they are asked for.
    restored_by: OnceCell<Option<SnapshotId>>,
    newest_checkpoint: OnceCell<Option<SnapshotId>>,
}

impl<'a> Verified<'a> {
    fn new(context: &'a StageContext, archive: &'a Archive<'a>, place: &'a Place) -> Self {
        let (restored_by, newest_checkpoint) = Default::default();
        Self { context, archive, place, restored_by, newest_checkpoint }
    }
}

impl Verified<'_> {
    fn has(&self, summary: &SnapshotSummary) -> Result<bool, AgentError> {
        // One whose manifest is lost holds nothing that is in the index, and keeps nothing from
        // being safe.
        if summary.is_lost {
            return Ok(true);
        }
        let Some(status) = self.context.status(summary)? else {
            // A store that was restored by a checkpoint has no logs of what came before that. Any
            // other snapshot without a log was never verified.
            return Ok(self.restored_by()? > Some(summary.snapshot));
        };
        // What a checkpoint has lost another one says, or the tarballs; what a snapshot has lost
        // the checkpoint does without that was made for it.
        let needed = status.needs_checkpoint().filter(|_| summary.kind != StepKind::Checkpoint);
        Ok(status.is_verified_in(self.place)
            && (needed.is_none() || self.newest_checkpoint()? >= needed))
    }

    /// The checkpoint by which the store was restored from this place.
    fn restored_by(&self) -> Result<Option<SnapshotId>, AgentError> {
        let is_it = |status: &SnapshotStatus| status.restored_from.as_ref() == Some(self.place);
        self.find_checkpoint(&self.restored_by, &is_it)
    }

    /// The newest checkpoint that is whole there.
    fn newest_checkpoint(&self) -> Result<Option<SnapshotId>, AgentError> {
        let is_it = |status: &SnapshotStatus| {
            status.is_verified_in(self.place) && status.lost_objects.is_empty()
        };
        self.find_checkpoint(&self.newest_checkpoint, &is_it)
    }

    fn find_checkpoint(
        &self,
        found: &OnceCell<Option<SnapshotId>>,
        is_it: &dyn Fn(&SnapshotStatus) -> bool,
    ) -> Result<Option<SnapshotId>, AgentError> {
        if let Some(found) = found.get() {
            return Ok(*found);
        }
        let is_checkpoint = |summary: &&SnapshotSummary| summary.kind == StepKind::Checkpoint;
        let mut newest = None;
        for checkpoint in self.archive.snapshots().rev().filter(is_checkpoint) {
            if self.context.status(checkpoint)?.as_ref().is_some_and(is_it) {
                newest = Some(checkpoint.snapshot);
                break;
            }
        }
        Ok(*found.get_or_init(|| newest))
    }
}

/// Reports to the status log, and to the sink that shows progress.
pub(super) struct StageSink<'a> {
    context: &'a StageContext,
    header: StatusHeader,
    log: Arc<StatusWriter>,
}

impl StageSink<'_> {
    pub(super) fn snapshot(&self) -> SnapshotId {
        self.header.snapshot
    }

    /// Takes back that the snapshot is verified somewhere: neither it nor a later one is safe.
    pub(super) fn take_back(&self, place: Place, problem: &str) -> Result<(), AgentError> {
        let _fall = self.context.lower_safe(self.header.snapshot)?;
        Ok(self.report(Event::Unverified { place, problem: problem.into() })?)
    }

    /// Records why a step failed; a stop on request is no failure. The error that matters is the
    /// step's, so that one of the status log is only logged.
    pub(super) fn record_failure(&self, step: &str, error: &AgentError) {
        if error.kind() == ErrorKind::Cancelled {
            tracing::debug!(step, %error, "a stop is not recorded as a failure");
            return;
        }
        let failed = Event::Failed { step: step.into(), error: with_causes(error) };
        if let Err(error) = self.report(failed) {
            tracing::warn!("cannot record that a step failed: {}", with_causes(&error));
        }
    }
}

impl StatusSink for StageSink<'_> {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        // The durable one first: nothing is shown as done that was not recorded.
        self.log.report(event.clone())?;
        self.context.progress.report(event)
    }

    fn progress(&self, progress: Progress) {
        self.context.progress.progress(progress);
    }
}

/// The head of a snapshot's status log.
pub(super) fn header_of(summary: &SnapshotSummary) -> StatusHeader {
    StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot }
}
