//! The task planner: the schedule with a memory of what was begun and how it ended.
//!
//! It is handed the time and what was measured, and has no clock and no thread of its own, so that
//! a test goes through days of it in microseconds.

use std::time::Duration;

use crate::Task;
use crate::decide::{DueTaskInputs, Schedule, SpaceUsage, due_task};

/// What was measured at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Measured {
    /// Since the start of the scheduler.
    pub(crate) now: Duration,
    pub(crate) backlog_operations: u64,
    /// None if it could not be measured.
    pub(crate) space: Option<SpaceUsage>,
}

/// Says which task is due, one after the other.
#[derive(Debug)]
pub(crate) struct TaskPlanner {
    schedule: Schedule,
    unfinished: bool,
    last_snapshot: Option<Duration>,
    last_eviction: Option<Duration>,
    low_space_after_eviction: bool,
}

impl TaskPlanner {
    /// What an earlier process left unfinished is finished first; if there is nothing, that is no
    /// work.
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            unfinished: true,
            last_snapshot: None,
            last_eviction: None,
            low_space_after_eviction: false,
        }
    }

    /// The task that is due, which counts as begun.
    pub(crate) fn begin_due_task(&mut self, measured: &Measured) -> Option<Task> {
        let Measured { now, backlog_operations, space } = *measured;
        // Only a measurement that shows room clears it; one that failed tells nothing.
        if space.is_some_and(|space| !space.is_low(&self.schedule)) {
            self.low_space_after_eviction = false;
        }
        let inputs = DueTaskInputs {
            now,
            backlog_operations,
            unfinished: self.unfinished,
            last_snapshot: self.last_snapshot,
            last_eviction: self.last_eviction,
            low_space_after_eviction: self.low_space_after_eviction,
            space,
        };
        let due = due_task(&self.schedule, &inputs)?;
        tracing::debug!(?due, ?inputs, "due task");
        match due {
            // Counted from its beginning, so that a task that fails at once rests as well.
            Task::Snapshot
            | Task::Upload
            | Task::UploadAll
            | Task::TakeBack(_)
            | Task::PersistLost(_) => {
                self.last_snapshot = Some(now);
            }
            Task::Evict(_) | Task::EvictDryRun(_) => {
                self.last_eviction = Some(now);
                // Until space is seen not to be low, it did not help.
                self.low_space_after_eviction = true;
            }
        }
        Some(due)
    }

    /// A task that was due ended.
    pub(crate) fn ended(&mut self, task: &Task, done: bool) {
        // A snapshot that fails leaves transactions that are not safe, which no backlog shows any
        // more once they are published. An eviction that fails comes again while space is low.
        if matches!(task, Task::Snapshot) {
            self.unfinished = !done;
        }
    }
}

#[cfg(test)]
mod tests {
    use tier_evict::PassGoal;

    use super::*;

    const SCHEDULE: Schedule = Schedule {
        snapshot_interval: Duration::from_mins(5),
        snapshot_operations: 1000,
        high_percent: 80,
        low_percent: 60,
        retry_interval: Duration::from_mins(1),
    };

    const EVICTION: Task = Task::Evict(PassGoal::Bytes(300));

    fn at(seconds: u64, backlog_operations: u64, occupied_bytes: u64) -> Measured {
        let space = SpaceUsage { own_bytes: occupied_bytes, occupied_bytes, capacity_bytes: 1000 };
        Measured { now: Duration::from_secs(seconds), backlog_operations, space: Some(space) }
    }

    /// A planner whose first snapshot, at the start, was done.
    fn started() -> TaskPlanner {
        let mut planner = TaskPlanner::new(SCHEDULE);
        assert_eq!(planner.begin_due_task(&at(0, 0, 0)), Some(Task::Snapshot));
        planner.ended(&Task::Snapshot, true);
        planner
    }

    #[test]
    fn what_an_earlier_process_left_is_finished_first_and_until_it_succeeds() {
        let mut planner = TaskPlanner::new(SCHEDULE);
        for second in [0, 60, 120] {
            assert_eq!(planner.begin_due_task(&at(second, 0, 0)), Some(Task::Snapshot));
            planner.ended(&Task::Snapshot, false);
            assert_eq!(planner.begin_due_task(&at(second + 59, 0, 0)), None, "not at once");
        }
        assert_eq!(planner.begin_due_task(&at(180, 0, 0)), Some(Task::Snapshot));
        planner.ended(&Task::Snapshot, true);
        assert_eq!(planner.begin_due_task(&at(10_000, 0, 0)), None);
    }

    #[test]
    fn snapshots_follow_the_interval_while_there_are_writes() {
        let mut planner = started();
        let mut begun = Vec::new();
        for second in 1..=1000 {
            if let Some(task) = planner.begin_due_task(&at(second, 7, 0)) {
                assert_eq!(task, Task::Snapshot);
                planner.ended(&task, true);
                begun.push(second);
            }
        }
        assert_eq!(begun, [300, 600, 900]);
    }

    #[test]
    fn an_eviction_that_helps_may_come_again_after_the_usual_rest() {
        let mut planner = started();
        assert_eq!(planner.begin_due_task(&at(10, 0, 900)), Some(EVICTION));
        planner.ended(&EVICTION, true);
        assert_eq!(planner.begin_due_task(&at(20, 0, 600)), None, "it helped");
        assert_eq!(planner.begin_due_task(&at(69, 0, 900)), None, "full again, but not rested");
        assert_eq!(planner.begin_due_task(&at(70, 0, 900)), Some(EVICTION));
    }

    #[test]
    fn an_eviction_that_does_not_help_rests_until_space_is_seen_to_be_free() {
        let mut planner = started();
        assert_eq!(planner.begin_due_task(&at(10, 0, 900)), Some(EVICTION));
        planner.ended(&EVICTION, true);
        assert_eq!(planner.begin_due_task(&at(70, 0, 900)), None, "it did not help");
        let unknown = Measured { space: None, ..at(80, 0, 0) };
        assert_eq!(planner.begin_due_task(&unknown), None);
        assert_eq!(planner.begin_due_task(&at(90, 0, 900)), None, "not to know is not to be free");
        assert_eq!(planner.begin_due_task(&at(3610, 0, 900)), Some(EVICTION));
    }

    #[test]
    fn when_space_is_low_what_is_hot_is_persisted_between_evictions() {
        let mut planner = started();
        assert_eq!(planner.begin_due_task(&at(70, 5, 900)), Some(EVICTION));
        planner.ended(&EVICTION, true);
        assert_eq!(planner.begin_due_task(&at(71, 5, 900)), Some(Task::Snapshot));
        planner.ended(&Task::Snapshot, true);
        assert_eq!(planner.begin_due_task(&at(72, 5, 900)), None);
    }
}
