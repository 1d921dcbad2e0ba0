//! What the agent can have done, without knowing how.

use std::sync::atomic::AtomicBool;

use tier_evict::{EvictReport, PassGoal};
use tier_persist::PersistReport;
use tier_types::{SnapshotId, Xid};

use crate::{AgentError, AgentState};

/// A snapshot that was persisted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persisted {
    /// Its number.
    pub snapshot: SnapshotId,
    /// What is in it.
    pub report: PersistReport,
}

/// The work behind the steps.
pub trait Stages: Send {
    /// Where things stand; what is wanted is left empty.
    fn state(&self) -> Result<AgentState, AgentError>;

    /// Finishes or undoes what a crash interrupted. Called once, first.
    fn recover(&mut self) -> Result<(), AgentError>;

    /// Publishes, and persists all that is not persisted; `None` if there is nothing.
    fn persist(&mut self, stop: &AtomicBool) -> Result<Option<Persisted>, AgentError>;

    /// Pushes a snapshot where it belongs, and reads it back.
    fn secure(&mut self, snapshot: SnapshotId, stop: &AtomicBool) -> Result<(), AgentError>;

    /// Evicts from what is safe.
    fn evict(
        &mut self,
        safe: Xid,
        goal: PassGoal,
        stop: &AtomicBool,
    ) -> Result<EvictReport, AgentError>;

    /// What [`evict`](Self::evict) would do.
    fn evict_dry_run(&self, safe: Xid, goal: PassGoal) -> Result<EvictReport, AgentError>;
}
