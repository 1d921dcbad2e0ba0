//! What a task came to.

use tier_evict::EvictReport;
use tier_persist::PersistReport;
use tier_types::SnapshotId;

/// A snapshot that was persisted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PersistedSnapshot {
    /// Its number.
    pub snapshot: SnapshotId,
    /// What is in it.
    pub report: PersistReport,
}

/// What a task came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentReport {
    /// The snapshot that was taken, if anything had changed.
    pub persisted: Option<PersistedSnapshot>,
    /// Snapshots that were uploaded and verified, oldest first.
    pub uploaded: Vec<SnapshotId>,
    /// What was evicted.
    pub evicted: Option<EvictReport>,
    /// Snapshots of which no copy had everything: what the filesystem has of that is persisted
    /// again.
    pub persisted_again: Vec<SnapshotId>,
    /// Snapshots of which a copy has something again that was lost.
    pub found_again: Vec<SnapshotId>,
}
