//! The schedule: which task is due, a pure function of times, backlog and space.

use std::time::Duration;

use tier_evict::PassGoal;

use crate::Task;

/// After an eviction that did not help, the next one comes after so many times the usual interval.
const FUTILE_FACTOR: u32 = 60;

/// When to act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// What changed is persisted after so long at the latest.
    pub snapshot_interval: Duration,
    /// And as soon as so many operations were logged.
    pub snapshot_operations: u64,
    /// Space is low when more than this share of the capacity is occupied. At most 100.
    pub high_percent: u8,
    /// Space is freed until no more than this share is. At most `high_percent`.
    pub low_percent: u8,
    /// What failed, or did not help, is tried again after so long.
    pub retry_interval: Duration,
}

/// Space in use, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceUsage {
    /// Used by the filesystem itself: more than this no eviction can free.
    pub own_bytes: u64,
    /// Used by the filesystem and, where it may fill a whole disk, by everything else on it.
    pub occupied_bytes: u64,
    /// What may be occupied; zero for no limit.
    pub capacity_bytes: u64,
}

impl SpaceUsage {
    /// Whether space is to be freed.
    pub(crate) fn is_low(&self, schedule: &Schedule) -> bool {
        assert!(schedule.low_percent <= schedule.high_percent, "freeing ends below its beginning");
        assert!(schedule.high_percent <= 100, "a share is at most the whole");
        // Strictly above: with equal marks an eviction that just reached its goal would be due
        // again.
        self.capacity_bytes > 0 && self.occupied_bytes > self.share(schedule.high_percent)
    }

    /// What an eviction is to free: down to the low mark, and no more than there is.
    fn excess_bytes(&self, schedule: &Schedule) -> u64 {
        // Something else may fill the disk, and a goal beyond the filesystem's own bytes is never
        // met.
        self.occupied_bytes.saturating_sub(self.share(schedule.low_percent)).min(self.own_bytes)
    }

    fn share(&self, percent: u8) -> u64 {
        // Divided first, because the product may not fit into 64 bits; that loses less than 100
        // bytes.
        self.capacity_bytes / 100 * u64::from(percent)
    }
}

/// What the due task depends on. Times count from the start of the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DueTaskInputs {
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
    /// Whether space has been low ever since the last eviction: it did not help.
    pub low_space_after_eviction: bool,
    /// The space in use; `None` if it could not be measured, and then nothing is evicted.
    pub space: Option<SpaceUsage>,
}

impl DueTaskInputs {
    fn is_low_on_space(&self, schedule: &Schedule) -> bool {
        self.space.is_some_and(|space| space.is_low(schedule))
    }

    /// Time since something was last begun; since the start, if it never was.
    fn since(&self, last: Option<Duration>) -> Duration {
        // What was never begun is as old as the scheduler.
        let Some(last) = last else { return self.now };
        assert!(last <= self.now, "what was begun lies in the past");
        self.now.saturating_sub(last)
    }

    /// Whether something may be begun again.
    fn has_rested(&self, last: Option<Duration>, rest: Duration) -> bool {
        // What was never begun need not rest, however young the scheduler is.
        last.is_none() || self.since(last) >= rest
    }
}

/// Which task is due. Space goes first, because without it nothing else works; but what can be
/// evicted is what was persisted, so that a snapshot comes in between. An eviction that did not
/// help, because something else fills the disk or all is in use, is not tried again and again: what
/// it evicts is read again.
///
/// ```
/// use std::time::Duration;
///
/// use tier_agent::Task;
/// use tier_agent::decide::{DueTaskInputs, Schedule, SpaceUsage, due_task};
/// use tier_evict::PassGoal;
///
/// let schedule = Schedule {
///     snapshot_interval: Duration::from_secs(300),
///     snapshot_operations: 1000,
///     high_percent: 85,
///     low_percent: 70,
///     retry_interval: Duration::from_secs(60),
/// };
/// let idle = DueTaskInputs { now: Duration::from_secs(400), ..DueTaskInputs::default() };
/// assert_eq!(due_task(&schedule, &idle), None);
///
/// let written = DueTaskInputs { backlog_operations: 1, ..idle };
/// assert_eq!(due_task(&schedule, &written), Some(Task::Snapshot));
///
/// let space = SpaceUsage { own_bytes: 900, occupied_bytes: 900, capacity_bytes: 1000 };
/// let full = DueTaskInputs { space: Some(space), ..written };
/// assert_eq!(due_task(&schedule, &full), Some(Task::Evict(PassGoal::Bytes(200))));
/// ```
pub fn due_task(schedule: &Schedule, inputs: &DueTaskInputs) -> Option<Task> {
    let low_space = inputs.is_low_on_space(schedule);
    let futile_factor = if inputs.low_space_after_eviction { FUTILE_FACTOR } else { 1 };
    let eviction_rest = schedule.retry_interval.saturating_mul(futile_factor);
    if let Some(space) = inputs.space
        && low_space
        && inputs.has_rested(inputs.last_eviction, eviction_rest)
    {
        return Some(Task::Evict(PassGoal::Bytes(space.excess_bytes(schedule))));
    }
    // A snapshot that something waits for is not taken again and again either while it fails.
    let written = inputs.backlog_operations > 0;
    let waited_for = inputs.unfinished || (low_space && written);
    // At least one: with a setting of zero a snapshot of nothing would always be due.
    let many = inputs.backlog_operations >= schedule.snapshot_operations.max(1);
    let long = written && inputs.since(inputs.last_snapshot) >= schedule.snapshot_interval;
    let due = if waited_for {
        inputs.has_rested(inputs.last_snapshot, schedule.retry_interval)
    } else {
        many || long
    };
    due.then_some(Task::Snapshot)
}

#[cfg(test)]
mod tests;
