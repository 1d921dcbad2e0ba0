//! The persist stage: a publication becomes a persisted snapshot.
//!
//! A publication is the log segment and the KVS snapshot that describes it. The log crate folds the
//! segments since the last persisted snapshot into net changes, and the persister writes what the
//! KVS snapshot says of each inode. Between them lies nothing but file updates.
//!
//! The KVS snapshot is released when the attempt ends, however it ends. A failed attempt needs it
//! no more: the next publication covers the same transactions and describes a later state. Held on
//! to, every attempt that fails would pin all that was deleted or evicted since, on a disk that may
//! be failing because it is full.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tier_log::{NetChangesOptions, check_segment};
use tier_persist::{
    EpochBegin, OpenSegment, PartsSoFar, PersistError, PersistReport, PersistRequest, Persister,
    SnapshotSummary,
};
use tier_status::StatusHeader;
use tier_types::{
    ErrorKind, HasKind, Ino, LogReader, LogService, MountedSnapshot, PortError, Publication,
    SegmentInfo, SnapshotId, Xid, XidRange, with_causes,
};

use super::changes::{ChangeSource, Found, changes};
use super::checkpoint;
use super::context::{StageContext, StageSink};
use super::early;
use super::next_snapshot::NextSnapshot;
use super::updates::Updates;
use crate::AgentError;
use crate::decide::part_bounds;
use crate::report::PersistedSnapshot;

/// Publishes, and persists all that is not persisted; `None` if there is nothing.
pub(super) fn persist(
    context: &StageContext,
    persister: &Persister,
    stop: &AtomicBool,
) -> Result<Option<PersistedSnapshot>, AgentError> {
    let next = next_snapshot(context)?;
    let snapshot = next.snapshot;
    let Some(publication) = publish(context.ports.log.as_ref(), next.first)? else {
        // Nothing changed; a new epoch is shown in the archive all the same.
        let archive = context.archive()?;
        return match archive.snapshots().next_back() {
            Some(last) if last.epoch < context.ports.epoch => {
                begin_epoch(context, persister, last, snapshot)?;
                Ok(Some(PersistedSnapshot { snapshot, report: PersistReport::default() }))
            }
            Some(_) | None => Ok(None),
        };
    };
    let held = Held { log: context.ports.log.as_ref(), publication: Some(publication) };
    let attempt = Attempt { context, persister, publication, has_changes: true, stop };
    let report = attempt.run(next)?;
    checkpoint::take_if_due(context, persister, &publication, stop);
    // An error from here is told although the snapshot counts: it is in the archive, and the next
    // attempt goes on behind it.
    held.release()?;
    Ok(Some(PersistedSnapshot { snapshot, report }))
}

/// What is persisted although it is in the archive.
pub(super) struct Again<'a> {
    /// These, in order, as the filesystem has them.
    pub(super) inodes: Vec<Ino>,
    /// What is done then, before a checkpoint is written.
    pub(super) before_checkpoint: &'a dyn Fn() -> Result<(), AgentError>,
}

/// Persists inodes again, with what is not persisted yet, and writes a checkpoint, whose number it
/// returns.
pub(super) fn persist_again(
    context: &StageContext,
    persister: &Persister,
    again: &Again<'_>,
    stop: &AtomicBool,
) -> Result<SnapshotId, AgentError> {
    let log = context.ports.log.as_ref();
    let mut inodes: BTreeSet<Ino> = again.inodes.iter().copied().collect();
    loop {
        let mut next = next_snapshot(context)?;
        let published = publish(log, next.first)?;
        let has_changes = published.is_some();
        let publication = match published {
            Some(publication) => publication,
            // The present state, which the archive has: with no transactions of its own.
            None => {
                let last = next.first.get().saturating_sub(1);
                let range = XidRange::new(Xid::new(last), next.first);
                let nothing = || PersistError::Missing("anything that was persisted".into());
                next.first = Xid::new(last);
                next.part = Some(PartsSoFar { covered: Ino::new(0), last_xid: Xid::new(last) });
                Publication { range: range.ok_or_else(nothing)? }
            }
        };
        let held = Held { log, publication: Some(publication) };
        // What a part does not come to is in its manifest, and so with the next one.
        inodes.extend(std::mem::take(&mut next.failed));
        next.failed = std::mem::take(&mut inodes).into_iter().collect();
        let report = Attempt { context, persister, publication, has_changes, stop }.run(next)?;
        check_are_persisted(&again.inodes, &report)?;
        if report.covered.is_none() {
            (again.before_checkpoint)()?;
            // Nothing of an earlier one is trusted: some of that may be what is lost.
            let number = checkpoint::take(context, persister, &publication, &|_| false, stop)?;
            held.release()?;
            return Ok(number);
        }
        held.release()?;
    }
}

/// An error if one of these could not be read in full: what the filesystem has of it may be there
/// the next time, and must not become lost.
fn check_are_persisted(inodes: &[Ino], report: &PersistReport) -> Result<(), AgentError> {
    // Of what is damaged nothing will be there the next time either.
    let may_come = |ino: &&Ino| inodes.contains(ino) && !report.unreadable.contains(ino);
    let Some(failed) = report.failed.iter().find(may_come) else { return Ok(()) };
    let problem = format!(
        "inode {failed}, which lies in an object that no copy has, could not be read in full: \
         nothing is given up; see why (tier status), and repeat the repair"
    );
    Err(PortError::new(ErrorKind::Failed, problem).into())
}

/// Where the archive goes on, when the index includes all of it.
fn next_snapshot(context: &StageContext) -> Result<NextSnapshot, AgentError> {
    let floor = context.ports.floor;
    let next = NextSnapshot::after(&context.archive()?, floor).snapshot;
    // An attempt that failed after its manifest was durable left the index behind.
    context.catch_up(next)?;
    Ok(NextSnapshot::after(&context.archive()?, floor))
}

/// Commits the first step of an epoch in which nothing has changed yet.
fn begin_epoch(
    context: &StageContext,
    persister: &Persister,
    last: &SnapshotSummary,
    snapshot: SnapshotId,
) -> Result<(), AgentError> {
    let epoch = context.ports.epoch;
    let writer = context.ports.writer.ok_or(AgentError::Follower)?;
    let status = context.status_sink(StatusHeader { epoch, snapshot })?;
    // Transactions up to the floor were used by histories that are not continued.
    let last_xid = last.last_xid.max(context.ports.floor.xid);
    let failed = last.failed.as_slice();
    let covered = last.covered;
    let begin = EpochBegin { epoch, writer, snapshot, last_xid, covered, failed, status: &status };
    Ok(persister.begin_epoch(&begin)?)
}

/// A publication whose KVS snapshot is held. Dropped by an attempt that fails or panics, it is
/// released too; the attempt's own error is the one that is told.
struct Held<'a> {
    log: &'a dyn LogService,
    publication: Option<Publication>,
}

impl Held<'_> {
    fn release(mut self) -> Result<(), PortError> {
        self.publication.take().map_or(Ok(()), |publication| self.log.release(&publication))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(publication) = self.publication.take()
            && let Err(error) = self.log.release(&publication)
        {
            tracing::warn!("cannot release a KVS snapshot: {}", with_causes(&error));
        }
    }
}

/// The publication to persist: all since the last snapshot.
fn publish(log: &dyn LogService, first: Xid) -> Result<Option<Publication>, AgentError> {
    let published = match log.publish()? {
        Some(publication) if publication.range.last() < first => {
            // A loss of power undid the record of a publication that had been persisted; this is
            // the same one again, and nothing may be held.
            log.release(&publication)?;
            return Ok(None);
        }
        Some(publication) => Some(publication.range.last()),
        // Nothing was logged since, but an earlier publication may not be persisted.
        None => match XidRange::new(first, Xid::new(u64::MAX)) {
            Some(rest) => log.segments(rest)?.last().map(|segment| segment.range.last()),
            None => None,
        },
    };
    let range = published.and_then(|last| XidRange::new(first, last.next()));
    Ok(range.map(|range| Publication { range }))
}

/// What a snapshot is persisted from.
struct Input<'a> {
    mounted: &'a dyn MountedSnapshot,
    part: Option<PartsSoFar>,
    failed: Vec<Ino>,
}

/// The segments with the transactions that earlier parts do not bring. Each is read to its end
/// first if `may_be_damaged`: what is not whole is no history.
fn segments(
    log: &dyn LogReader,
    range: XidRange,
    part: Option<PartsSoFar>,
    may_be_damaged: bool,
) -> Result<impl Iterator<Item = Result<OpenSegment, PortError>> + '_, PortError> {
    let start = part.map_or(range.start(), |part| part.last_xid.next());
    let own = XidRange::new(start, range.end());
    let segments = own.map_or_else(|| Ok(Vec::new()), |own| log.segments(own))?;
    Ok(segments.into_iter().filter_map(move |segment| {
        if may_be_damaged && let Err(error) = check_segment(log, &segment) {
            if !error.is_of_segment() {
                return Some(Err(error.into()));
            }
            // What it said is lost; what came of it is in the filesystem.
            let (range, error) = (segment.range, with_causes(&error));
            tracing::warn!(%range, "a log segment is not archived: {error}");
            return None;
        }
        let bytes = log.open_segment(&segment);
        let SegmentInfo { range, name, .. } = segment;
        Some(bytes.map(|bytes| OpenSegment { range, name, bytes }))
    }))
}

/// One attempt to persist a publication.
struct Attempt<'a> {
    context: &'a StageContext,
    persister: &'a Persister,
    publication: Publication,
    /// Otherwise the log need not be asked, which may have nothing of that time.
    has_changes: bool,
    stop: &'a AtomicBool,
}

impl Attempt<'_> {
    fn run(&self, next: NextSnapshot) -> Result<PersistReport, AgentError> {
        let start = Instant::now();
        let range = self.publication.range;
        assert!(range.start() == next.first, "a snapshot continues where the last one ended");
        let NextSnapshot { snapshot, part, failed, .. } = next;
        let mounted = self.context.ports.instance.open_snapshot(&self.publication)?;
        let header = StatusHeader { epoch: self.context.ports.epoch, snapshot };
        let status = self.context.status_sink(header)?;
        tracing::info!(%snapshot, %range, n_failed_before = failed.len(), "persisting begins");
        let input = Input { mounted: mounted.as_ref(), part, failed };
        let report = self.write(header, input, &status);
        let report = report.map_err(|error| self.context.or_awaits_cloud(error, start));
        let refused = &self.context.was_refused;
        match &report {
            Ok(_) => refused.store(false, Ordering::Relaxed),
            Err(AgentError::Persist(PersistError::TooMuchUnread { .. })) => {
                refused.store(true, Ordering::Relaxed);
            }
            // The next attempt has room if it goes up as it is written.
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                refused.store(false, Ordering::Relaxed);
            }
            // That says nothing of what can be read.
            Err(_) => {}
        }
        match &report {
            Ok(PersistReport {
                n_inodes,
                data_bytes,
                n_tarballs,
                tarball_bytes,
                failed,
                lost,
                ..
            }) => {
                let (n_failed, elapsed) = (failed.len(), start.elapsed());
                let lost_bytes = lost.n_bytes();
                tracing::info!(
                    %snapshot, n_inodes, data_bytes, n_tarballs, tarball_bytes, n_failed,
                    lost_bytes, ?elapsed, "snapshot persisted"
                );
            }
            Err(error) => status.record_failure("persist", error),
        }
        report
    }

    fn write(
        &self,
        header: StatusHeader,
        input: Input<'_>,
        status: &StageSink<'_>,
    ) -> Result<PersistReport, AgentError> {
        let Input { mounted, part, failed } = input;
        let ports = &self.context.ports;
        let writer = ports.writer.ok_or(AgentError::Follower)?;
        let range = self.publication.range;
        let options = NetChangesOptions::new(&ports.spill_dir);
        let log = ports.log.as_ref();
        // Folding reads every segment and persisting every chunk: both yield to the foreground. The
        // publication does not, because it holds locks that writers wait for.
        let folded = self.context.in_background(|| -> Result<Found<'_>, PortError> {
            if !self.has_changes {
                let changes = Box::new(std::iter::empty());
                return Ok(Found { changes, are_looked_at: false });
            }
            let source =
                ChangeSource { log, mounted, index: ports.history.index(), stop: self.stop };
            changes(&source, range, part, &options)
        })?;
        let Found { changes, are_looked_at } = folded?;
        let n_looked_at = if are_looked_at { ports.instance.usage()?.n_inodes } else { 0 };
        // A log that was folded has been read to its end.
        let mut segments = segments(log, range, part, are_looked_at)?;
        // What is free now: the rest of the store grows meanwhile, and a part must still fit.
        let bounds = part_bounds(&ports.instance.usage()?.space);
        early::beside(self.context, status, self.stop, |on_sealed| {
            let persisted = self.context.in_background(|| {
                self.persister.persist(&mut PersistRequest {
                    epoch: header.epoch,
                    writer,
                    snapshot: header.snapshot,
                    range,
                    part,
                    failed_before: &failed,
                    n_looked_at,
                    mounted,
                    updates: &mut Updates::new(changes, failed.iter().copied()),
                    segments: &mut segments,
                    bounds,
                    on_sealed,
                    status,
                    stop: self.stop,
                })
            })?;
            Ok(persisted?)
        })
    }
}
