//! Tasks: what a caller, or the schedule, wants the agent to do.

use tier_evict::PassGoal;
use tier_types::SnapshotId;

/// Something that the agent is to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    /// Persist everything done so far, upload it and verify it.
    Snapshot,
    /// Persist everything done so far, and leave the upload to another task.
    Persist,
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
    /// Upload everything that is persisted, then free space from what is safe.
    Evict(PassGoal),
    /// Free space from what is safe by now, down to the low mark, if it is low.
    MakeRoom,
    /// Say what [`Evict`](Self::Evict) would do of what is safe by now.
    EvictDryRun(PassGoal),
}

/// A lane: work of one kind, done on a thread of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Publishing and persisting.
    Persist,
    /// Uploading and verifying.
    Upload,
    /// Evicting, and giving the space back to the disk.
    Evict,
}

impl Lane {
    /// All lanes, in the order in which a task goes through them.
    pub const ALL: [Self; 3] = [Self::Persist, Self::Upload, Self::Evict];

    /// Its name in messages and of its thread.
    pub fn name(self) -> &'static str {
        match self {
            Self::Persist => "persist",
            Self::Upload => "upload",
            Self::Evict => "evict",
        }
    }
}

impl Task {
    /// The lanes that it goes through, in order.
    pub(crate) fn route(&self) -> &'static [Lane] {
        match self {
            Self::Snapshot => &[Lane::Persist, Lane::Upload],
            Self::Persist | Self::PersistLost(_) => &[Lane::Persist],
            Self::Upload | Self::UploadAll | Self::TakeBack(_) => &[Lane::Upload],
            Self::Evict(_) => &[Lane::Upload, Lane::Evict],
            Self::MakeRoom | Self::EvictDryRun(_) => &[Lane::Evict],
        }
    }

    /// The lane that it comes to behind this one.
    pub(crate) fn lane_after(&self, lane: Lane) -> Option<Lane> {
        self.route().iter().copied().find(|next| *next > lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_through_lanes_in_their_order() {
        let tasks = [
            Task::Snapshot,
            Task::Persist,
            Task::Upload,
            Task::Evict(PassGoal::Everything),
            Task::MakeRoom,
        ];
        for task in tasks {
            assert!(task.route().is_sorted() && !task.route().is_empty(), "{task:?}");
        }
        assert_eq!(Task::Snapshot.lane_after(Lane::Persist), Some(Lane::Upload));
        assert_eq!(Task::Snapshot.lane_after(Lane::Upload), None);
    }
}
