//! The stages of a filesystem with a local store and, perhaps, a cloud.

mod background;
mod changes;
mod checkpoint;
mod cloud_writer;
mod context;
mod early;
mod evict;
mod lost;
mod moot;
mod next_snapshot;
mod persist;
mod ports;
mod recovery;
mod safe_mark;
mod spare;
mod updates;
mod upload;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::RwLock;
use tier_evict::{EvictReport, Evicter};
use tier_persist::Persister;
use tier_status::StatusSink;
use tier_types::{HasKind, SnapshotId, Xid};

use crate::decide::AgentState;
use crate::report::PersistedSnapshot;
use crate::stages::{LostAndFound, Stages, Uploaded};
use crate::{AgentError, SpaceGoal};
use context::{HowFar, StageContext};

pub use ports::{Arrival, CloudPort, Floor, StorePorts};

/// [`Stages`] over a persister, an evicter and object stores.
pub struct StoreStages {
    context: StageContext,
    persister: Persister,
    evicter: Evicter,
    /// Held by what persists and uploads; alone by a repair, which makes snapshots do without what
    /// is lost while they must not go up.
    archive: RwLock<()>,
}

impl std::fmt::Debug for StoreStages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreStages").field("ports", &self.context.ports).finish_non_exhaustive()
    }
}

impl StoreStages {
    /// Stages of these parts. `progress` is given what the status logs are given, and how far a
    /// running step has got.
    pub fn new(
        ports: StorePorts,
        persister: Persister,
        evicter: Evicter,
        progress: Arc<dyn StatusSink>,
    ) -> Self {
        let context = StageContext::new(ports, progress, 0);
        Self { context, persister, evicter, archive: RwLock::new(()) }
    }

    /// Lets persisting and verifying yield to other threads, as nice(1) counts it: 19 most.
    #[must_use]
    pub fn with_nice(mut self, nice: u8) -> Self {
        self.context.nice = nice;
        self
    }
}

impl StoreStages {
    /// Persists again what went bad of a snapshot before it was uploaded.
    fn make_up_for(
        &self,
        snapshot: SnapshotId,
        stop: &AtomicBool,
    ) -> Result<Option<SnapshotId>, AgentError> {
        let rotted = {
            let _apart = self.archive.read();
            lost::rotted(&self.context, snapshot, stop)?
        };
        let Some(rotted) = rotted else { return Ok(None) };
        let _alone = self.archive.write();
        lost::make_up_for(&self.context, &self.persister, snapshot, &rotted, stop)
    }
}

impl Stages for StoreStages {
    fn state(&self) -> Result<AgentState, AgentError> {
        let archive = self.context.archive()?;
        let persisted = archive.snapshots().next_back();
        let HowFar { safe, verified } = self.context.how_far(&archive)?;
        // `None` is below every number: with nothing verified the oldest snapshot is the next one.
        let is_writer = self.context.ports.writer.is_some();
        let to_upload = self.context.next_to_upload(&archive, verified)?.filter(|_| is_writer);
        // Xid 0 is before the first transaction.
        let nothing = Xid::new(0);
        Ok(AgentState {
            last_xid: self.context.ports.log.last_xid(),
            // A snapshot of which a part is missing is not persisted yet.
            persisted_xid: next_snapshot::complete_xid(&archive),
            to_upload: to_upload.map(|summary| summary.snapshot),
            safe_xid: safe.map_or(nothing, |safe| safe.last_xid),
            is_new_epoch: persisted.is_some_and(|last| last.epoch < self.context.ports.epoch),
        })
    }

    fn last_snapshot(&self) -> Result<Option<SnapshotId>, AgentError> {
        Ok(self.context.archive()?.snapshots().next_back().map(|last| last.snapshot))
    }

    fn is_low_on_space(&self) -> Result<bool, AgentError> {
        let StorePorts { instance, marks, .. } = &self.context.ports;
        Ok(marks.is_low(&instance.usage()?.space))
    }

    fn recover(&self) -> Result<(), AgentError> {
        recovery::recover(&self.context, &self.persister)
    }

    fn persist(&self, stop: &AtomicBool) -> Result<Option<PersistedSnapshot>, AgentError> {
        let _apart = self.archive.read();
        persist::persist(&self.context, &self.persister, stop)
    }

    fn upload(&self, snapshot: SnapshotId, stop: &AtomicBool) -> Result<Uploaded, AgentError> {
        let upload = || {
            let _apart = self.archive.read();
            upload::upload(&self.context, snapshot, stop)
        };
        match upload() {
            Err(error) if error.kind().is_of_object() => {
                let made_up_for_by = self.make_up_for(snapshot, stop)?;
                if made_up_for_by.is_none() {
                    return Err(error);
                }
                upload()?;
                Ok(Uploaded { made_up_for_by })
            }
            uploaded => uploaded.map(|()| Uploaded::default()),
        }
    }

    fn forget_verified(&self) -> Result<(), AgentError> {
        upload::forget_verified(&self.context)
    }

    fn take_back(&self, snapshots: &[SnapshotId]) -> Result<(), AgentError> {
        upload::take_back(&self.context, snapshots)
    }

    fn persist_lost(
        &self,
        snapshots: &[SnapshotId],
        stop: &AtomicBool,
    ) -> Result<LostAndFound, AgentError> {
        let _alone = self.archive.write();
        lost::persist_lost(&self.context, &self.persister, snapshots, stop)
    }

    fn evict(&self, goal: SpaceGoal, stop: &AtomicBool) -> Result<EvictReport, AgentError> {
        evict::evict(&self.context, &self.evicter, goal, stop)
    }

    fn make_room(&self, stop: &AtomicBool) -> Result<Option<EvictReport>, AgentError> {
        evict::make_room(&self.context, &self.evicter, stop)
    }

    fn evict_dry_run(&self, goal: SpaceGoal, stop: &AtomicBool) -> Result<EvictReport, AgentError> {
        evict::evict_dry_run(&self.context, &self.evicter, goal, stop)
    }
}
