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

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tier_log::{NetChanges, NetChangesOptions};
use tier_persist::{PersistReport, PersistRequest, Persister, SnapshotSummary};
use tier_status::StatusHeader;
use tier_types::{
    Ino, LogService, MountedSnapshot, PortError, Publication, SnapshotId, Xid, XidRange,
    with_causes,
};

use super::context::{StageContext, StageSink};
use super::ports::Floor;
use super::updates::Updates;
use crate::AgentError;
use crate::stages::PersistedSnapshot;

/// Publishes, and persists all that is not persisted; `None` if there is nothing.
pub(super) fn persist(
    context: &StageContext,
    persister: &Persister,
    stop: &AtomicBool,
) -> Result<Option<PersistedSnapshot>, AgentError> {
    let archive = context.archive()?;
    // An attempt that failed after its manifest was durable left the index behind.
    archive.catch_up(&context.ports.index)?;
    let next = NextSnapshot::after(archive.snapshots().next_back(), context.ports.floor);
    let log = context.ports.log.as_ref();
    let Some(publication) = publish(log, next.first)? else { return Ok(None) };
    let snapshot = next.snapshot;
    // Nothing may return between here and the release.
    let persisted = Attempt { context, persister, publication, stop }.run(next);
    let released = log.release(&publication);
    let report = match persisted {
        Ok(report) => report,
        Err(error) => {
            if let Err(error) = released {
                tracing::warn!("cannot release a KVS snapshot: {}", with_causes(&error));
            }
            return Err(error);
        }
    };
    // The snapshot is committed and stays so, but one that stays pinned must not go unseen.
    released?;
    Ok(Some(PersistedSnapshot { snapshot, report }))
}

/// The snapshot that continues the archive.
struct NextSnapshot {
    snapshot: SnapshotId,
    /// Its first transaction.
    first: Xid,
    /// Inodes that the last one had to leave out.
    failed: Vec<Ino>,
}

impl NextSnapshot {
    fn after(last: Option<&SnapshotSummary>, floor: Floor) -> Self {
        let (after_floor, first) = (floor.snapshot.next(), floor.xid.next());
        match last {
            None => Self { snapshot: after_floor, first, failed: Vec::new() },
            Some(last) => Self {
                snapshot: last.snapshot.next().max(after_floor),
                first: last.range.end().max(first),
                failed: last.failed.clone(),
            },
        }
    }
}

/// The publication to persist: all since the last snapshot.
fn publish(log: &dyn LogService, first: Xid) -> Result<Option<Publication>, AgentError> {
    let published = match log.publish()? {
        // Only its end counts. It begins at the last publication, and a snapshot at the last one
        // that was persisted, which may lie further back.
        Some(publication) => Some(publication.range.last()),
        // Nothing was logged since, but an earlier publication may not be persisted.
        None => match XidRange::new(first, Xid::new(u64::MAX)) {
            Some(rest) => log.segments(rest)?.last().map(|segment| segment.range.last()),
            None => None,
        },
    };
    // Empty, and so `None`, if the newest segment is persisted already.
    let range = published.and_then(|last| XidRange::new(first, last.next()));
    Ok(range.map(|range| Publication { range }))
}

/// One attempt to persist a publication.
struct Attempt<'a> {
    context: &'a StageContext,
    persister: &'a Persister,
    publication: Publication,
    stop: &'a AtomicBool,
}

impl Attempt<'_> {
    fn run(&self, next: NextSnapshot) -> Result<PersistReport, AgentError> {
        let start = Instant::now();
        let range = self.publication.range;
        assert!(range.start() == next.first, "a snapshot continues where the last one ended");
        let NextSnapshot { snapshot, failed, .. } = next;
        // A snapshot that a crash lost is `Missing` once a writer has logged more: this attempt
        // fails, and the next one covers both ranges.
        let mounted = self.context.ports.instance.open_snapshot(&self.publication)?;
        let header = StatusHeader { epoch: self.context.ports.epoch, snapshot };
        let status = self.context.status_sink(header)?;
        tracing::info!(%snapshot, %range, n_failed_before = failed.len(), "persisting begins");
        let report = self.write(header, mounted.as_ref(), failed, &status);
        match &report {
            Ok(PersistReport { n_inodes, data_bytes, n_tarballs, tarball_bytes, failed }) => {
                let (n_failed, elapsed) = (failed.len(), start.elapsed());
                tracing::info!(
                    %snapshot, n_inodes, data_bytes, n_tarballs, tarball_bytes, n_failed, ?elapsed,
                    "snapshot persisted"
                );
            }
            Err(error) => status.record_failure("persist", error),
        }
        report
    }

    fn write(
        &self,
        header: StatusHeader,
        mounted: &dyn MountedSnapshot,
        failed: Vec<Ino>,
        status: &StageSink<'_>,
    ) -> Result<PersistReport, AgentError> {
        let ports = &self.context.ports;
        let range = self.publication.range;
        let options = NetChangesOptions::new(&ports.spill_dir);
        let log = ports.log.as_ref();
        // Folding reads every segment and persisting every chunk: both yield to the foreground. The
        // publication does not, because it holds locks that writers wait for.
        let folded = self.context.in_background(|| NetChanges::of_range(log, range, &options))?;
        let changes = folded.map_err(PortError::from)?;
        let persisted = self.context.in_background(|| {
            self.persister.persist(&mut PersistRequest {
                epoch: header.epoch,
                snapshot: header.snapshot,
                range,
                mounted,
                updates: &mut Updates::new(changes, failed),
                status,
                stop: self.stop,
            })
        })?;
        Ok(persisted?)
    }
}
