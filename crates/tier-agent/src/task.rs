//! Tasks: what a caller, or the schedule, wants the agent to do.

use std::ops::{Index, IndexMut};

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
    /// Take back that these snapshots are verified in the place that makes them safe: objects of
    /// them are damaged there.
    TakeBack(Vec<SnapshotId>),
    /// Persist again what these snapshots have in objects that no copy has whole, and go on without
    /// them.
    PersistLost(Vec<SnapshotId>),
    /// Upload everything that is persisted, then free space from what is safe.
    Evict(SpaceGoal),
    /// Free space from what is safe by now, down to the low mark, if it is low.
    MakeRoom,
    /// Say what [`Evict`](Self::Evict) would do of what is safe by now.
    EvictDryRun(SpaceGoal),
}

/// How much space is to be freed. Whole batches are worked through, so that more may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceGoal {
    /// All that can go: local copies of what the cloud has, and what the policy lets go.
    Everything,
    /// So many bytes: local copies of what the cloud has go first, then file data.
    Bytes(u64),
    /// File data, until no more than so many bytes of it are resident.
    ResidentBytes(u64),
}

impl SpaceGoal {
    /// Bytes of local copies that are to be dropped at least, if there are so many.
    pub(crate) fn dropped_bytes_min(self) -> u64 {
        match self {
            Self::Everything => u64::MAX,
            Self::Bytes(bytes) => bytes,
            Self::ResidentBytes(_) => 0,
        }
    }

    /// What is left to an eviction pass, when so many bytes of local copies were dropped, and so
    /// many of file data are resident; none if nothing is.
    pub(crate) fn for_pass(self, dropped_bytes: u64, resident_bytes: u64) -> Option<PassGoal> {
        let left_bytes = match self {
            Self::Everything => return Some(PassGoal::Everything),
            Self::Bytes(bytes) => bytes.saturating_sub(dropped_bytes),
            Self::ResidentBytes(bytes_max) => resident_bytes.saturating_sub(bytes_max),
        };
        (left_bytes > 0).then_some(PassGoal::Bytes(left_bytes))
    }
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

/// One thing for each lane.
#[derive(Clone, Default, Debug)]
pub(crate) struct PerLane<T>([T; 3]);

impl<T> PerLane<T> {
    pub(crate) fn new(of: impl FnMut(Lane) -> T) -> Self {
        Self(Lane::ALL.map(of))
    }

    /// In the order of the lanes.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<Lane> for PerLane<T> {
    type Output = T;

    fn index(&self, lane: Lane) -> &T {
        let [persist, upload, evict] = &self.0;
        match lane {
            Lane::Persist => persist,
            Lane::Upload => upload,
            Lane::Evict => evict,
        }
    }
}

impl<T> IndexMut<Lane> for PerLane<T> {
    fn index_mut(&mut self, lane: Lane) -> &mut T {
        let [persist, upload, evict] = &mut self.0;
        match lane {
            Lane::Persist => persist,
            Lane::Upload => upload,
            Lane::Evict => evict,
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
            Task::Evict(SpaceGoal::Everything),
            Task::MakeRoom,
        ];
        for task in tasks {
            assert!(task.route().is_sorted() && !task.route().is_empty(), "{task:?}");
        }
        assert_eq!(Task::Snapshot.lane_after(Lane::Persist), Some(Lane::Upload));
        assert_eq!(Task::Snapshot.lane_after(Lane::Upload), None);
    }

    #[test]
    fn a_goal_leaves_to_a_pass_what_dropping_did_not_achieve() {
        let goals = [SpaceGoal::Everything, SpaceGoal::Bytes(10), SpaceGoal::ResidentBytes(10)];
        assert_eq!(goals.map(SpaceGoal::dropped_bytes_min), [u64::MAX, 10, 0]);
        let left = goals.map(|goal| goal.for_pass(7, 30));
        let bytes = |bytes| Some(PassGoal::Bytes(bytes));
        assert_eq!(left, [Some(PassGoal::Everything), bytes(3), bytes(20)]);
        let nothing = goals.map(|goal| goal.for_pass(10, 10));
        assert_eq!(nothing, [Some(PassGoal::Everything), None, None]);
    }
}
