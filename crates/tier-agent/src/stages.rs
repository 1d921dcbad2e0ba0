//! The stages port: what the agent has done, without knowing how.

use std::sync::atomic::AtomicBool;

use tier_evict::EvictReport;
use tier_types::SnapshotId;

use crate::decide::AgentState;
use crate::report::PersistedSnapshot;
use crate::{AgentError, SpaceGoal};

/// What a repair did with snapshots of which no copy had all objects.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LostAndFound {
    /// Those of which something is lost now: what the filesystem has of it is persisted again.
    pub lost: Vec<SnapshotId>,
    /// Those of which a copy has something again that was lost.
    pub found: Vec<SnapshotId>,
}

/// A snapshot is where it is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uploaded {
    /// Of some of its objects no copy was whole: what lay in them was persisted again, the last of
    /// it in this snapshot, and both are safe when that is.
    pub made_up_for_by: Option<SnapshotId>,
}

/// The work behind the steps. Every stage stops at its next safe point when its `stop` becomes
/// true, with an error of kind `Cancelled`, and can be called again afterwards. Each is called by
/// one thread at a time, those of different lanes at the same time.
pub trait Stages: Send + Sync {
    /// How far everything has got.
    fn state(&self) -> Result<AgentState, AgentError>;

    /// The newest persisted snapshot.
    fn last_snapshot(&self) -> Result<Option<SnapshotId>, AgentError>;

    /// Whether space is to be freed.
    fn is_low_on_space(&self) -> Result<bool, AgentError>;

    /// Finishes or undoes what a crash interrupted. Called once, first.
    fn recover(&self) -> Result<(), AgentError>;

    /// Publishes, and persists all that is not persisted, or a part of it; `None` if there is
    /// nothing.
    fn persist(&self, stop: &AtomicBool) -> Result<Option<PersistedSnapshot>, AgentError>;

    /// Uploads a snapshot to the tier that makes it safe, and verifies it there.
    fn upload(&self, snapshot: SnapshotId, stop: &AtomicBool) -> Result<Uploaded, AgentError>;

    /// Takes back that anything was verified in the place that makes it safe.
    fn forget_verified(&self) -> Result<(), AgentError>;

    /// Takes back that these snapshots are verified in the place that makes them safe, because
    /// objects of them are damaged there. The first error comes after all were tried.
    fn take_back(&self, snapshots: &[SnapshotId]) -> Result<(), AgentError>;

    /// Persists again what these snapshots have in objects that no copy has whole, and takes in
    /// again what one has that was lost.
    fn persist_lost(
        &self,
        snapshots: &[SnapshotId],
        stop: &AtomicBool,
    ) -> Result<LostAndFound, AgentError>;

    /// Evicts from what is safe.
    fn evict(&self, goal: SpaceGoal, stop: &AtomicBool) -> Result<EvictReport, AgentError>;

    /// Frees space down to the low mark, if it is low; `None` if it is not.
    fn make_room(&self, stop: &AtomicBool) -> Result<Option<EvictReport>, AgentError>;

    /// What [`evict`](Self::evict) would do.
    fn evict_dry_run(&self, goal: SpaceGoal, stop: &AtomicBool) -> Result<EvictReport, AgentError>;
}
