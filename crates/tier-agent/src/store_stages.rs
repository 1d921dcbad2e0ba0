//! The stages of a filesystem with a local store and, perhaps, a cloud.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tier_evict::{EvictReport, EvictRequest, Evicter, PassGoal};
use tier_index::Index;
use tier_log::{NetChanges, NetChangesOptions};
use tier_persist::{
    Archive, FilesystemId, Keys, PersistError, PersistReport, PersistRequest, Persister,
    SnapshotSummary, StoredObject,
};
use tier_status::{Event, NullSink, SnapshotStatus, Stage, StatusHeader, StatusSink, Tier};
use tier_types::{
    Epoch, ErrorKind, HasKind, Ino, LogService, MountedInstance, MountedSnapshot, ObjectStore,
    Publication, SnapshotId, StagingStore, Xid, XidRange, with_causes,
};

use crate::background::in_background;
use crate::push::{push, read_back};
use crate::stages::{Persisted, Stages};
use crate::updates::Updates;
use crate::{AgentError, AgentState, StatusBook};

/// The parts that the stages work with.
pub struct StorePorts {
    /// Which filesystem.
    pub filesystem: FilesystemId,
    /// The writer's reign.
    pub epoch: Epoch,
    /// Where a restored filesystem begins: no transaction and no snapshot up to these is its own.
    pub floor: (Xid, SnapshotId),
    /// Its operation log.
    pub log: Arc<dyn LogService>,
    /// The live filesystem.
    pub instance: Arc<dyn MountedInstance>,
    /// Where tarballs are written.
    pub local: Arc<dyn StagingStore>,
    /// Where they are pushed to.
    pub cloud: Option<Arc<dyn ObjectStore>>,
    /// Its keys.
    pub keys: Arc<Keys>,
    /// Its index.
    pub index: Arc<Index>,
    /// Its status logs.
    pub book: Arc<StatusBook>,
    /// Where temporary files go.
    pub spill_dir: PathBuf,
}

impl std::fmt::Debug for StorePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorePorts").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}

/// [`Stages`] over a persister, an evicter and object stores.
pub struct StoreStages {
    ports: StorePorts,
    persister: Persister,
    evicter: Evicter,
    progress: Arc<dyn StatusSink>,
    nice: u8,
}

impl std::fmt::Debug for StoreStages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreStages").field("ports", &self.ports).finish_non_exhaustive()
    }
}

impl StoreStages {
    /// Stages of these parts. `progress` hears what the status logs hear, and more often.
    pub fn new(
        ports: StorePorts,
        persister: Persister,
        evicter: Evicter,
        progress: Arc<dyn StatusSink>,
    ) -> Self {
        Self { ports, persister, evicter, progress, nice: 0 }
    }

    /// Lets persisting and reading back give way to others, as nice(1) counts it: 19 most.
    #[must_use]
    pub fn with_nice(self, nice: u8) -> Self {
        Self { nice, ..self }
    }

    fn archive(&self) -> Result<Archive<'_>, AgentError> {
        let StorePorts { local, keys, filesystem, .. } = &self.ports;
        Ok(Archive::open(local.as_ref(), keys, *filesystem)?)
    }

    /// The tier from which a snapshot must have been read back before anything of it is evicted.
    fn safe_tier(&self) -> Tier {
        if self.ports.cloud.is_some() { Tier::Cloud } else { Tier::Local }
    }

    fn status(&self, summary: &SnapshotSummary) -> Result<Option<SnapshotStatus>, AgentError> {
        Ok(self.ports.book.status(header(summary))?)
    }

    /// The snapshots up to the last one before which all are safe.
    fn safe_snapshot(&self, archive: &Archive<'_>) -> Result<Option<SnapshotSummary>, AgentError> {
        let mut safe = None;
        for summary in archive.snapshots() {
            let verified = self.status(summary)?.and_then(|status| status.verified);
            if verified < Some(self.safe_tier()) {
                break;
            }
            safe = Some(summary.clone());
        }
        Ok(safe)
    }

    /// The publication to persist: all since the last snapshot.
    fn publish(&self, first: Xid) -> Result<Option<Publication>, AgentError> {
        let published = match self.ports.log.publish()? {
            Some(publication) => Some(publication.range.last()),
            // Published earlier, but not persisted.
            None => match XidRange::new(first, Xid::new(u64::MAX)) {
                Some(rest) => self.ports.log.segments(rest)?.last().map(|info| info.range.last()),
                None => None,
            },
        };
        let range = published.and_then(|last| XidRange::new(first, last.next()));
        Ok(range.map(|range| Publication { range }))
    }

    /// Every snapshot that was ever committed still has its manifest. Without it nobody may take its
    /// tarballs for leftovers, or give its number to another snapshot.
    fn check_nothing_is_lost(&self, archive: &Archive<'_>) -> Result<(), AgentError> {
        for status in self.ports.book.all()? {
            let there = |s: &SnapshotSummary| header(s) == status.header;
            if status.stage >= Stage::Committed && !archive.snapshots().any(there) {
                let StatusHeader { epoch, snapshot } = status.header;
                let what = format!(
                    "the manifest of snapshot {snapshot} (epoch {epoch}), which was committed, \
                     is not in the local store; copy it back from the cloud. It"
                );
                return Err(PersistError::Missing(what).into());
            }
        }
        Ok(())
    }

    fn persist_publication(
        &self,
        publication: &Publication,
        snapshot: SnapshotId,
        failed: Vec<Ino>,
        stop: &AtomicBool,
    ) -> Result<PersistReport, AgentError> {
        let mounted = self.ports.instance.open_snapshot(publication)?;
        let (epoch, range) = (self.ports.epoch, publication.range);
        let status = self.tee(StatusHeader { epoch, snapshot })?;
        let report =
            self.write_snapshot((snapshot, range), mounted.as_ref(), failed, (&status, stop));
        if let Err(error) = &report
            && error.kind() != ErrorKind::Cancelled
        {
            status.report(Event::Failed { step: "persist".into(), error: with_causes(error) })?;
        }
        report
    }

    fn write_snapshot(
        &self,
        (snapshot, range): (SnapshotId, XidRange),
        mounted: &dyn MountedSnapshot,
        failed: Vec<Ino>,
        (status, stop): (&Tee<'_>, &AtomicBool),
    ) -> Result<PersistReport, AgentError> {
        let options = NetChangesOptions::new(&self.ports.spill_dir);
        let log = self.ports.log.as_ref();
        let changes = in_background(self.nice, || NetChanges::of_range(log, range, &options))?;
        let changes = changes.map_err(tier_types::PortError::from)?;
        let report = in_background(self.nice, || {
            self.persister.persist(&mut PersistRequest {
                epoch: self.ports.epoch,
                snapshot,
                range,
                mounted,
                updates: &mut Updates::new(changes, failed),
                status,
                stop,
            })
        })?;
        Ok(report?)
    }

    fn tee(&self, header: StatusHeader) -> Result<Tee<'_>, AgentError> {
        Ok(Tee { log: self.ports.book.writer(header)?, progress: self.progress.as_ref() })
    }

    fn secure_objects(
        &self,
        objects: &[StoredObject],
        status: &dyn StatusSink,
        stop: &AtomicBool,
    ) -> Result<(), AgentError> {
        let StorePorts { local, cloud, .. } = &self.ports;
        match cloud {
            None => {
                read_back(objects, local.as_ref(), stop)?;
                status.report(Event::Verified { tier: Tier::Local })?;
            }
            Some(cloud) => {
                push(objects, local.as_ref(), cloud.as_ref(), status, stop)?;
                status.report(Event::Verified { tier: Tier::Cloud })?;
            }
        }
        Ok(())
    }

    fn evict_request<'a>(
        &'a self,
        safe: Xid,
        goal: PassGoal,
        (persisted, status): (&'a dyn tier_types::Persisted, &'a dyn StatusSink),
        stop: &'a AtomicBool,
    ) -> EvictRequest<'a> {
        let (log, instance) = (self.ports.log.as_ref(), self.ports.instance.as_ref());
        let first = self.ports.floor.0.next();
        EvictRequest { first, safe, goal, log, instance, persisted, status, stop }
    }
}

impl Stages for StoreStages {
    fn state(&self) -> Result<AgentState, AgentError> {
        let archive = self.archive()?;
        let persisted = archive.snapshots().next_back().map(|last| last.range.last());
        let safe = self.safe_snapshot(&archive)?;
        let safe_id = safe.as_ref().map(|safe| safe.snapshot);
        let to_secure = archive.snapshots().find(|summary| Some(summary.snapshot) > safe_id);
        Ok(AgentState {
            last_xid: self.ports.log.last_xid(),
            persisted_xid: persisted.unwrap_or_default(),
            to_secure: to_secure.map(|summary| summary.snapshot),
            safe_xid: safe.map(|safe| safe.range.last()).unwrap_or_default(),
            snapshot_wanted: None,
            eviction_wanted: None,
        })
    }

    fn recover(&mut self) -> Result<(), AgentError> {
        let archive = self.archive()?;
        self.check_nothing_is_lost(&archive)?;
        archive.catch_up(&self.ports.index)?;
        let last = archive.snapshots().next_back().map(|last| last.snapshot);
        self.persister.discard_uncommitted(last.unwrap_or_default())?;
        for summary in archive.snapshots() {
            // A crash came between the manifest and the event that says so.
            if self.status(summary)?.is_none_or(|status| status.stage < Stage::Indexed) {
                let status = self.tee(header(summary))?;
                status.report(Event::Resumed)?;
                status.report(committed(summary))?;
                status.report(Event::Indexed)?;
            }
        }
        Ok(())
    }

    fn persist(&mut self, stop: &AtomicBool) -> Result<Option<Persisted>, AgentError> {
        let archive = self.archive()?;
        // An attempt that failed after its manifest was durable left the index behind.
        archive.catch_up(&self.ports.index)?;
        let last = archive.snapshots().next_back();
        let first = last.map_or(Xid::new(1), |last| last.range.end());
        let first = first.max(self.ports.floor.0.next());
        let snapshot = last.map_or(SnapshotId::new(1), |last| last.snapshot.next());
        let snapshot = snapshot.max(self.ports.floor.1.next());
        let failed = last.map(|last| last.failed.clone()).unwrap_or_default();
        let Some(publication) = self.publish(first)? else { return Ok(None) };
        let persisted = self.persist_publication(&publication, snapshot, failed, stop);
        // Also after a failure: the next publication covers this one, and a KVS snapshot that is
        // held keeps all that was deleted since on the disk.
        self.ports.log.release(&publication)?;
        Ok(Some(Persisted { snapshot, report: persisted? }))
    }

    fn secure(&mut self, snapshot: SnapshotId, stop: &AtomicBool) -> Result<(), AgentError> {
        let archive = self.archive()?;
        let summary = archive.snapshots().find(|summary| summary.snapshot == snapshot);
        let Some(summary) = summary else { return Ok(()) };
        let status = self.tee(header(summary))?;
        let objects = archive.objects(snapshot)?;
        let secured = in_background(self.nice, || self.secure_objects(&objects, &status, stop))?;
        if let Err(error) = &secured
            && error.kind() != ErrorKind::Cancelled
        {
            status.report(Event::Failed { step: "push".into(), error: with_causes(error) })?;
        }
        secured
    }

    fn evict(
        &mut self,
        safe: Xid,
        goal: PassGoal,
        stop: &AtomicBool,
    ) -> Result<EvictReport, AgentError> {
        let archive = self.archive()?;
        let Some(summary) = self.safe_snapshot(&archive)? else {
            return Ok(EvictReport::default());
        };
        let status = self.tee(header(&summary))?;
        let persisted = self.ports.index.persisted_until(summary.snapshot);
        let request = self.evict_request(safe, goal, (&persisted, &status), stop);
        let report = self.evicter.evict(&request)?;
        if report.bytes > 0 {
            self.ports.instance.reclaim()?;
        }
        Ok(report)
    }

    fn evict_dry_run(&self, safe: Xid, goal: PassGoal) -> Result<EvictReport, AgentError> {
        let archive = self.archive()?;
        let Some(summary) = self.safe_snapshot(&archive)? else {
            return Ok(EvictReport::default());
        };
        let persisted = self.ports.index.persisted_until(summary.snapshot);
        let stop = AtomicBool::new(false);
        let request = self.evict_request(safe, goal, (&persisted, &NullSink), &stop);
        Ok(self.evicter.dry_run(&request)?)
    }
}

/// Reports to the status log, and to whoever looks on.
struct Tee<'a> {
    log: tier_status::StatusWriter,
    progress: &'a dyn StatusSink,
}

impl StatusSink for Tee<'_> {
    fn report(&self, event: Event) -> Result<(), tier_status::StatusError> {
        self.log.report(event.clone())?;
        self.progress.report(event)
    }

    fn progress(&self, progress: tier_status::Progress) {
        self.progress.progress(progress);
    }
}

fn header(summary: &SnapshotSummary) -> StatusHeader {
    StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot }
}

fn committed(summary: &SnapshotSummary) -> Event {
    Event::Committed {
        manifest: format!("snapshot {}", summary.snapshot),
        n_tarballs: summary.n_tarballs,
        n_inodes: summary.n_inodes,
        data_bytes: summary.data_bytes,
        tarball_bytes: summary.tarball_bytes,
    }
}
