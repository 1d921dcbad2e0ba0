//! Tasks: what a caller, or the schedule, wants the agent to do.

use tier_evict::PassGoal;
use tier_types::SnapshotId;

/// Something that the agent is to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    /// Persist everything done so far, upload it and verify it.
    Snapshot,
    /// Upload and verify everything that is persisted.
    Upload,
    /// Compare also what counts as verified, and upload what is not there any more.
    UploadAll,
    /// Take back that these snapshots are verified in the place that makes them safe: objects of them
    /// are damaged there.
    TakeBack(Vec<SnapshotId>),
    /// Persist again what these snapshots have in objects that no copy has whole, and go on without
    /// them.
    PersistLost(Vec<SnapshotId>),
    /// Free space from what is safe.
    Evict(PassGoal),
    /// Say what [`Evict`](Self::Evict) would do.
    EvictDryRun(PassGoal),
}
