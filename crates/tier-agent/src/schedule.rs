//! When the agent acts unasked: pure.

use std::time::Duration;

use tier_evict::PassGoal;

use crate::Task;

/// After an eviction that did not help, the next one comes after so many times the usual interval.
const FUTILE_REST: u32 = 60;

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
    /// Whether the last eviction did not help: there was still no space after it.
    pub crowded_after_eviction: bool,
    /// Bytes that the filesystem takes on its disk.
    pub used_bytes: u64,
    /// Bytes that are in use of those that it may take: its own and, of a whole disk, others'.
    pub taken_bytes: u64,
    /// Bytes that it may take.
    pub capacity_bytes: u64,
}

impl Circumstances {
    /// Whether space is to be freed.
    pub(crate) fn is_crowded(&self, schedule: &Schedule) -> bool {
        self.capacity_bytes > 0 && self.taken_bytes > self.percent(schedule.high_percent)
    }

    fn percent(&self, percent: u8) -> u64 {
        self.capacity_bytes / 100 * u64::from(percent)
    }
}

/// What is due. Space goes first, because without it nothing else works; but what can be evicted
/// is what was persisted, so that a snapshot comes in between. An eviction that did not help, because
/// others take the disk or all is in use, is not tried again and again: what it evicts is read again.
pub fn due(schedule: &Schedule, now: &Circumstances) -> Option<Task> {
    let since = |last: Option<Duration>| now.now.saturating_sub(last.unwrap_or_default());
    let rested = |last: Option<Duration>, rest: Duration| {
        last.is_none_or(|last| now.now.saturating_sub(last) >= rest)
    };
    let crowded = now.is_crowded(schedule);
    let futile = if now.crowded_after_eviction { FUTILE_REST } else { 1 };
    if crowded && rested(now.last_eviction, schedule.retry_interval.saturating_mul(futile)) {
        let excess = now.taken_bytes.saturating_sub(now.percent(schedule.low_percent));
        return Some(Task::Evict(PassGoal::Bytes(excess.min(now.used_bytes))));
    }
    let rested = rested(now.last_snapshot, schedule.retry_interval);
    let much = now.backlog_operations >= schedule.snapshot_operations.max(1);
    let long = now.backlog_operations > 0 && since(now.last_snapshot) >= schedule.snapshot_interval;
    let pressing = crowded && now.backlog_operations > 0;
    let wanted = much || long || now.unfinished || pressing;
    let may = if now.unfinished || pressing { rested } else { true };
    (wanted && may).then_some(Task::Snapshot)
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
        let taken = |taken_bytes| Circumstances {
            taken_bytes,
            used_bytes: 500,
            capacity_bytes: 1000,
            ..at(100)
        };
        assert_eq!(due(&SCHEDULE, &taken(800)), None);
        assert_eq!(due(&SCHEDULE, &taken(801)), Some(Task::Evict(PassGoal::Bytes(201))));
        let others = Circumstances { used_bytes: 5, ..taken(801) };
        assert_eq!(
            due(&SCHEDULE, &others),
            Some(Task::Evict(PassGoal::Bytes(5))),
            "no more is ours"
        );
        let tried = Circumstances { last_eviction: Some(Duration::from_secs(90)), ..taken(801) };
        assert_eq!(due(&SCHEDULE, &tried), None, "a moment ago");
        let hot = Circumstances { backlog_operations: 1, ..tried };
        assert_eq!(due(&SCHEDULE, &hot), Some(Task::Snapshot), "what is not safe cannot go");
        let later = Circumstances { now: Duration::from_secs(150), ..tried };
        assert_eq!(due(&SCHEDULE, &later), Some(Task::Evict(PassGoal::Bytes(201))));
        let futile = Circumstances { crowded_after_eviction: true, ..later };
        assert_eq!(due(&SCHEDULE, &futile), None, "it does not help");
    }

    #[test]
    fn many_operations_do_not_hurry_what_fails() {
        let last_snapshot = Some(Duration::from_secs(100));
        let failed = Circumstances {
            unfinished: true,
            last_snapshot,
            backlog_operations: 1_000_000,
            ..at(101)
        };
        assert_eq!(due(&SCHEDULE, &failed), None);
    }
}
