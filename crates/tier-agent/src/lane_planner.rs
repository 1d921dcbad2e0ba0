//! The lane planner: the schedule with a memory of what each lane was given and how it ended.
//!
//! It is handed the time and what was measured, and has no clock and no thread of its own, so that
//! a test goes through days of it in microseconds.

use std::time::Duration;

use tier_evict::EvictReport;
use tier_types::{ErrorKind, HasKind, Usage};

use crate::agent::Answer;
use crate::decide::{
    DueInputs, Failure, LaneMemory, RoomOutlook, Schedule, Unpersisted, evict_is_due,
    persist_is_due, room_may_come, upload_is_due,
};
use crate::task::PerLane;
use crate::{AgentError, AgentReport, Lane, Task};

/// Room is taken to come for so long after nothing seems to bring any.
const HOPE: Duration = Duration::from_secs(30);
/// A lane is at work when its task has lasted so long: what ends sooner had nothing to do, or
/// failed.
const AT_WORK: Duration = Duration::from_secs(2);

/// Says which tasks are due.
#[derive(Debug)]
pub(crate) struct LanePlanner {
    schedule: Schedule,
    lanes: PerLane<LaneMemory>,
    unpersisted: Unpersisted,
    /// A snapshot may not be safe.
    is_pending: bool,
    /// A pass may free what the last one could not.
    may_evict: bool,
    /// Since when nothing seems to bring room.
    hopeless_since: Option<Duration>,
    /// Tasks of others than the schedule that ended.
    n_others_ended: u64,
}

impl LanePlanner {
    /// What an earlier process left unfinished is finished first; if there is nothing, that is no
    /// work.
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            lanes: PerLane::default(),
            unpersisted: Unpersisted::Left,
            is_pending: true,
            may_evict: true,
            hopeless_since: None,
            n_others_ended: 0,
        }
    }

    /// The tasks that are due, each of which counts as begun.
    pub(crate) fn begin_due(&mut self, now: Duration, usage: Usage) -> Vec<(Lane, Task)> {
        let inputs = DueInputs { now, usage };
        if !self.schedule.marks.is_low(&usage.space) {
            self.may_evict = true;
        }
        let mut due = Vec::new();
        for lane in Lane::ALL {
            let memory = &self.lanes[lane];
            let (is_due, task) = match lane {
                Lane::Persist => {
                    let is_due = persist_is_due(&self.schedule, &inputs, memory, self.unpersisted);
                    (is_due, Task::Persist)
                }
                Lane::Upload => (upload_is_due(&inputs, memory, self.is_pending), Task::Upload),
                Lane::Evict => {
                    let is_due = evict_is_due(&self.schedule, &inputs, memory, self.may_evict);
                    (is_due, Task::MakeRoom)
                }
            };
            if is_due {
                tracing::debug!(?lane, ?inputs, "a task is due");
                self.begin(lane, now);
                due.push((lane, task));
            }
        }
        due
    }

    fn begin(&mut self, lane: Lane, now: Duration) {
        self.lanes[lane].begin(now);
        match lane {
            Lane::Persist => {}
            // What comes while it is under way counts for the next one.
            Lane::Upload => self.is_pending = false,
            Lane::Evict => self.may_evict = false,
        }
    }

    /// Hears how many tasks ended that were not due. One more may have left something to be
    /// uploaded, or to be evicted.
    pub(crate) fn hears_of(&mut self, n_others_ended: u64) -> bool {
        let is_more = std::mem::replace(&mut self.n_others_ended, n_others_ended) < n_others_ended;
        self.is_pending |= is_more;
        self.may_evict |= is_more;
        is_more
    }

    /// A task that was due ended.
    pub(crate) fn ended(&mut self, lane: Lane, now: Duration, answer: &Answer, jitter: u16) {
        let retry_interval = self.schedule.retry_interval;
        let memory = &mut self.lanes[lane];
        assert!(memory.is_busy, "only a task that was begun ends");
        match answer {
            Ok(report) => {
                memory.done();
                if made_room(report) {
                    self.hopeless_since = None;
                }
                self.may_evict |= !report.uploaded.is_empty();
                if lane == Lane::Persist {
                    // What was logged meanwhile is in the backlog.
                    self.unpersisted = Unpersisted::Nothing;
                    self.is_pending = true;
                }
            }
            Err(error) => {
                let kind = error.kind();
                // A pause or a stop on request is no failure, and what it left is due again.
                if kind == ErrorKind::Cancelled {
                    memory.done();
                } else {
                    memory.failed(now, &Failure { kind, jitter }, retry_interval);
                }
                match lane {
                    // Also if a part of the snapshot is persisted.
                    Lane::Persist => {
                        self.unpersisted = match (error, kind) {
                            (AgentError::AwaitsCloud { .. }, _) => Unpersisted::AwaitsCloud,
                            (_, ErrorKind::NoSpace) => Unpersisted::NoRoom,
                            _ => Unpersisted::Left,
                        };
                        self.is_pending = true;
                    }
                    Lane::Upload => {
                        self.is_pending = true;
                        self.may_evict |= may_have_uploaded(error);
                    }
                    Lane::Evict => self.may_evict = true,
                }
            }
        }
    }

    /// Whether space is to be freed.
    pub(crate) fn is_low(&self, usage: &Usage) -> bool {
        self.schedule.marks.is_low(&usage.space)
    }

    /// Whether room may come. Not at once when it seems not to: what failed for want of room is
    /// tried again within seconds, and may find some then.
    pub(crate) fn room_may_come(&mut self, now: Duration, usage: Usage) -> bool {
        let is_at_work = |lane: &LaneMemory| lane.is_busy && lane.since_begun(now) >= AT_WORK;
        let outlook = RoomOutlook {
            is_at_work: self.lanes.iter().any(is_at_work),
            unpersisted: self.unpersisted,
            // One that refuses, or is full, takes no more after a while.
            awaits_cloud: self.is_pending && self.lanes[Lane::Upload].awaits_cloud(),
        };
        if room_may_come(&DueInputs { now, usage }, &outlook) {
            self.hopeless_since = None;
            return true;
        }
        let since = *self.hopeless_since.get_or_insert(now);
        now.saturating_sub(since) < HOPE
    }

    /// Until when a lane rests, if it does.
    pub(crate) fn rests_until(&self, lane: Lane, now: Duration) -> Option<Duration> {
        Some(self.lanes[lane].rests_until).filter(|until| *until > now)
    }
}

/// Whether something was done that leads to more room.
fn made_room(report: &AgentReport) -> bool {
    let has_freed = |evicted: &EvictReport| evicted.bytes > 0 || evicted.dropped_bytes > 0;
    report.persisted.is_some()
        || !report.uploaded.is_empty()
        || report.evicted.as_ref().is_some_and(has_freed)
}

/// Whether an upload that failed may have made something safe. A pass for each that did not would
/// go through all that was retained, again and again.
fn may_have_uploaded(error: &AgentError) -> bool {
    let AgentError::NotUploaded(not_uploaded) = error else { return true };
    !not_uploaded.done.uploaded.is_empty()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tier_types::{Backlog, PortError, SnapshotId, SpaceUsage};

    use super::*;
    use crate::NotUploaded;

    fn usage(operations: u64, used_bytes: u64) -> Usage {
        let space = SpaceUsage { used_bytes, limit_bytes: 1000, ..SpaceUsage::default() };
        Usage { space, backlog: Backlog { operations, bytes: 1 }, ..Usage::default() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn away() -> Answer {
        Err(PortError::new(ErrorKind::Away, "the cloud is away").into())
    }

    fn uploaded() -> AgentReport {
        AgentReport { uploaded: vec![SnapshotId::new(1)], ..AgentReport::default() }
    }

    struct Planned(LanePlanner);

    impl Planned {
        /// Past what an earlier process may have left.
        fn new() -> Self {
            let mut planned = Self(LanePlanner::new(Schedule::TEST));
            assert_eq!(planned.due(0, 0, 0), [Lane::Persist, Lane::Upload]);
            planned.ended(Lane::Persist, 0, &Ok(AgentReport::default()));
            planned.ended(Lane::Upload, 0, &Ok(AgentReport::default()));
            assert_eq!(planned.due(0, 0, 0), [Lane::Upload], "what was persisted");
            planned.ended(Lane::Upload, 0, &Ok(AgentReport::default()));
            planned
        }

        fn due(&mut self, seconds: u64, operations: u64, used_bytes: u64) -> Vec<Lane> {
            let due = self.0.begin_due(at(seconds), usage(operations, used_bytes));
            due.into_iter().map(|(lane, _)| lane).collect()
        }

        fn ended(&mut self, lane: Lane, seconds: u64, answer: &Answer) {
            self.0.ended(lane, at(seconds), answer, u16::MAX);
        }
    }

    #[test]
    fn a_cloud_that_is_away_holds_up_neither_snapshots_nor_evictions() {
        let mut planned = Planned::new();
        let mut n_snapshots = 0;
        for second in 1..3600 {
            for lane in planned.due(second, 1, 900) {
                n_snapshots += u64::from(lane == Lane::Persist);
                let answer = if lane == Lane::Upload { away() } else { Ok(AgentReport::default()) };
                planned.ended(lane, second, &answer);
            }
        }
        assert!(n_snapshots > 10, "{n_snapshots}");
        assert!(
            planned.0.lanes[Lane::Upload].n_failures > 50,
            "a minute between two attempts at most"
        );
    }

    #[test]
    fn a_pass_follows_what_became_safe() {
        let mut planned = Planned::new();
        assert_eq!(planned.due(10, 0, 900), [Lane::Evict]);
        planned.ended(Lane::Evict, 10, &Ok(AgentReport::default()));
        assert_eq!(planned.due(11, 0, 900), [], "it did not help");
        planned.0.is_pending = true;
        assert_eq!(planned.due(12, 0, 900), [Lane::Upload]);
        planned.ended(Lane::Upload, 13, &Ok(uploaded()));
        assert_eq!(planned.due(13, 0, 900), [Lane::Evict]);
        planned.ended(Lane::Evict, 13, &Ok(AgentReport::default()));
        assert_eq!(planned.due(14, 0, 500), [], "it helped");
        assert_eq!(planned.due(15, 0, 900), [Lane::Evict], "and may again");
    }

    /// The last second at which room was taken to come, of two minutes on a full disk.
    fn last_hope(answer_of: impl Fn(Lane) -> Answer) -> u64 {
        let mut planned = Planned::new();
        let mut last = 0;
        for second in 1..120 {
            for lane in planned.due(second, 1, 990) {
                planned.ended(lane, second, &answer_of(lane));
            }
            if planned.0.room_may_come(at(second), usage(1, 990)) {
                last = second;
            }
        }
        last
    }

    fn not_uploaded(kind: ErrorKind) -> Answer {
        let why = PortError::new(kind, "the cloud takes nothing").into();
        let done = AgentReport::default();
        Err(AgentError::NotUploaded(Box::new(NotUploaded { done, why })))
    }

    #[test]
    fn where_nothing_helps_no_room_is_expected_although_attempts_go_on() {
        let no_space = || Err(PortError::new(ErrorKind::NoSpace, "the disk is full").into());
        let full = last_hope(|lane| match lane {
            Lane::Persist => no_space(),
            Lane::Upload | Lane::Evict => Ok(AgentReport::default()),
        });
        assert!(full < 40, "{full}");
        let cloud_away = last_hope(|lane| match lane {
            Lane::Persist => no_space(),
            Lane::Upload => away(),
            Lane::Evict => Ok(AgentReport::default()),
        });
        assert_eq!(cloud_away, 119, "it may come back");
        let n_passes = Cell::new(0);
        let cloud_full = last_hope(|lane| match lane {
            Lane::Persist => no_space(),
            Lane::Upload => not_uploaded(ErrorKind::NoSpace),
            Lane::Evict => {
                n_passes.set(n_passes.get() + 1);
                Ok(AgentReport::default())
            }
        });
        assert!(cloud_full < 40, "{cloud_full}");
        assert_eq!(n_passes.get(), 1, "nothing became safe since");
        let all_safe_but_what_has_no_room = last_hope(|lane| match lane {
            Lane::Persist => {
                Err(AgentError::AwaitsCloud { kind: ErrorKind::Away, why: "it is away".into() })
            }
            Lane::Upload | Lane::Evict => Ok(AgentReport::default()),
        });
        assert_eq!(all_safe_but_what_has_no_room, 119, "it may come back");
    }

    #[test]
    fn what_a_stop_left_is_due_at_once() {
        let mut planned = Planned::new();
        assert_eq!(planned.due(400, 1, 0), [Lane::Persist]);
        planned.ended(Lane::Persist, 401, &Err(AgentError::Stopped));
        assert_eq!(planned.due(401, 0, 0), [Lane::Persist, Lane::Upload]);
    }

    #[test]
    fn what_is_uploaded_while_more_is_persisted_is_not_forgotten() {
        let mut planned = Planned::new();
        assert_eq!(planned.due(400, 1, 0), [Lane::Persist]);
        planned.0.is_pending = true;
        assert_eq!(planned.due(401, 0, 0), [Lane::Upload]);
        planned.ended(Lane::Persist, 402, &Ok(AgentReport::default()));
        planned.ended(Lane::Upload, 403, &Ok(uploaded()));
        assert_eq!(planned.due(404, 0, 0), [Lane::Upload]);
    }
}
