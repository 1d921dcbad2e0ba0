//! When the agent acts unasked: pure.

use std::time::Duration;

use tier_evict::PassGoal;

use crate::Task;

/// When to act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// What changed is persisted after so long at the latest.
    pub snapshot_interval: Duration,
    /// And as soon as so many operations were logged.
    pub snapshot_operations: u64,
    /// Space is freed when this much of the capacity is used.
    pub high_percent: u8,
    /// Until no more than this is.
    pub low_percent: u8,
    /// What failed, or did not help, is tried again after so long.
    pub retry_interval: Duration,
}

/// How things are. Times count from the start of the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Circumstances {
    /// The time.
    pub now: Duration,
    /// Operations that were logged since the last publication.
    pub backlog_operations: u64,
    /// Whether a publication is not safe yet, because something failed.
    pub unfinished: bool,
    /// When a snapshot was last begun.
    pub last_snapshot: Option<Duration>,
    /// When an eviction was last begun.
    pub last_eviction: Option<Duration>,
    /// Bytes that the filesystem takes on its disk.
    pub used_bytes: u64,
    /// Bytes that it may take.
    pub capacity_bytes: u64,
}

/// What is due. Space goes first, because without it nothing else works; but what can be evicted
/// is what was persisted, so that a snapshot comes in between.
pub fn due(schedule: &Schedule, now: &Circumstances) -> Option<Task> {
    let since = |last: Option<Duration>| now.now.saturating_sub(last.unwrap_or_default());
    let rested = |last: Option<Duration>| {
        last.is_none_or(|last| now.now.saturating_sub(last) >= schedule.retry_interval)
    };
    let percent = |percent: u8| now.capacity_bytes / 100 * u64::from(percent);
    let crowded = now.used_bytes > percent(schedule.high_percent) && now.capacity_bytes > 0;
    let snapshot_after_eviction = now.last_snapshot > now.last_eviction;
    if crowded && (rested(now.last_eviction) || snapshot_after_eviction) {
        let bytes = now.used_bytes.saturating_sub(percent(schedule.low_percent));
        return Some(Task::Evict(PassGoal::Bytes(bytes)));
    }
    let much = now.backlog_operations >= schedule.snapshot_operations.max(1);
    let long = now.backlog_operations > 0 && since(now.last_snapshot) >= schedule.snapshot_interval;
    let again = now.unfinished && rested(now.last_snapshot);
    let pressing = crowded && now.backlog_operations > 0 && rested(now.last_snapshot);
    (much || long || again || pressing).then_some(Task::Snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        snapshot_interval: Duration::from_mins(5),
        snapshot_operations: 1000,
        high_percent: 80,
        low_percent: 60,
        retry_interval: Duration::from_mins(1),
    };

    fn at(seconds: u64) -> Circumstances {
        Circumstances { now: Duration::from_secs(seconds), ..Circumstances::default() }
    }

    #[test]
    fn nothing_changed_is_nothing_to_do() {
        assert_eq!(due(&SCHEDULE, &at(1_000_000)), None);
    }

    #[test]
    fn a_snapshot_is_due_after_a_time_or_after_many_operations() {
        let few = |now| Circumstances { backlog_operations: 1, ..at(now) };
        assert_eq!(due(&SCHEDULE, &few(299)), None);
        assert_eq!(due(&SCHEDULE, &few(300)), Some(Task::Snapshot));
        let last_snapshot = Some(Duration::from_secs(100));
        assert_eq!(due(&SCHEDULE, &Circumstances { last_snapshot, ..few(300) }), None);
        let many = Circumstances { backlog_operations: 1000, ..at(1) };
        assert_eq!(due(&SCHEDULE, &many), Some(Task::Snapshot));
    }

    #[test]
    fn what_failed_is_tried_again_but_not_at_once() {
        let last_snapshot = Some(Duration::from_secs(100));
        let failed = |now| Circumstances { unfinished: true, last_snapshot, ..at(now) };
        assert_eq!(due(&SCHEDULE, &failed(159)), None);
        assert_eq!(due(&SCHEDULE, &failed(160)), Some(Task::Snapshot));
    }

    #[test]
    fn space_is_freed_from_the_high_to_the_low_mark() {
        let used = |used_bytes| Circumstances { used_bytes, capacity_bytes: 1000, ..at(100) };
        assert_eq!(due(&SCHEDULE, &used(800)), None);
        let goal = PassGoal::Bytes(201);
        assert_eq!(due(&SCHEDULE, &used(801)), Some(Task::Evict(goal)));
        let tried = Circumstances { last_eviction: Some(Duration::from_secs(90)), ..used(801) };
        assert_eq!(due(&SCHEDULE, &tried), None, "it did not help a moment ago");
        let hot = Circumstances { backlog_operations: 1, ..tried };
        assert_eq!(due(&SCHEDULE, &hot), Some(Task::Snapshot), "what is not safe cannot go");
        let safe = Circumstances { last_snapshot: Some(Duration::from_secs(95)), ..tried };
        assert_eq!(due(&SCHEDULE, &safe), Some(Task::Evict(goal)), "now there is more to evict");
    }
}
