//! What is due for each lane: pure functions of times, backlog, space, and what is remembered.
//!
//! Lanes are independent. What one of them waits for is not another's success but something to do:
//! a backlog, a snapshot that is not safe, space that is low while something may go.

use std::time::Duration;

use tier_types::{ErrorKind, Usage};

use super::lane::LaneMemory;
use super::space::SpaceMarks;

/// A pass that found nothing to evict is tried again after so many times the usual interval, unless
/// something became safe.
const FUTILE_FACTOR: u32 = 10;
/// Where space is low, a backlog of this share of the reserve is persisted at once.
const WORTH_SHARE: u64 = 16;

/// No longer than this is between two attempts to reach the cloud that operations wait for.
const URGENT_INTERVAL: Duration = Duration::from_secs(5);

/// When to act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// What changed is persisted after so long at the latest.
    pub snapshot_interval: Duration,
    /// And as soon as so many operations were logged.
    pub snapshot_operations: u64,
    /// When space is freed.
    pub marks: SpaceMarks,
    /// What failed is tried again after so long at most.
    pub retry_interval: Duration,
}

/// What the schedule depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DueInputs {
    /// The time since the scheduler was started.
    pub now: Duration,
    /// The space in use and the backlog.
    pub usage: Usage,
}

/// Whether something is to be persisted: of the backlog, or of what is left of earlier
/// publications. A snapshot that has room only with the cloud is tried as often as an upload.
///
/// ```
/// use std::time::Duration;
///
/// use tier_agent::decide::{
///     DueInputs, LaneMemory, Schedule, SpaceMarks, Unpersisted, persist_is_due,
/// };
/// use tier_types::{Backlog, SpaceUsage, Usage};
///
/// let schedule = Schedule {
///     snapshot_interval: Duration::from_secs(300),
///     snapshot_operations: 1000,
///     marks: SpaceMarks { high_percent: 85, low_percent: 70 },
///     retry_interval: Duration::from_secs(60),
/// };
/// let lane = LaneMemory { last_begun: Some(Duration::from_secs(100)), ..LaneMemory::default() };
/// let is_due = |seconds, usage| {
///     let inputs = DueInputs { now: Duration::from_secs(seconds), usage };
///     persist_is_due(&schedule, &inputs, &lane, Unpersisted::Nothing)
/// };
/// let backlog = Backlog { operations: 1, bytes: 1 << 20 };
/// let written = Usage { backlog, ..Usage::default() };
/// assert!(!is_due(399, written) && is_due(400, written));
/// assert!(!is_due(400, Usage::default()), "nothing changed");
/// ```
pub fn persist_is_due(
    schedule: &Schedule,
    inputs: &DueInputs,
    lane: &LaneMemory,
    unpersisted: Unpersisted,
) -> bool {
    let DueInputs { now, usage: Usage { space, backlog, .. } } = *inputs;
    let is_urgent = unpersisted == Unpersisted::AwaitsCloud && is_urgent(inputs, lane);
    if !(lane.is_ready(now) || is_urgent) {
        return false;
    }
    if unpersisted != Unpersisted::Nothing {
        return true;
    }
    let since = lane.since_begun(now);
    // At least one: with a setting of zero a snapshot of nothing would always be due.
    let many = backlog.operations >= schedule.snapshot_operations.max(1);
    let long = backlog.operations > 0 && since >= schedule.snapshot_interval;
    // What can be evicted is what was persisted. Not with each write, though: where nothing can be
    // freed, because something else fills the disk, space stays low for long.
    let is_worth = backlog.bytes >= (space.reserve_bytes / WORTH_SHARE).max(1)
        || space.n_waiting > 0
        || since >= schedule.retry_interval;
    many || long || (backlog.operations > 0 && schedule.marks.is_low(&space) && is_worth)
}

/// Whether something is to be uploaded. `is_pending` says that a snapshot may not be safe yet.
/// While operations wait for room that only an upload can bring, a cloud that was away is tried
/// more often.
pub fn upload_is_due(inputs: &DueInputs, lane: &LaneMemory, is_pending: bool) -> bool {
    is_pending && (lane.is_ready(inputs.now) || is_urgent(inputs, lane))
}

/// Whether operations wait for room, so that a lane that rests tries the cloud all the same. One
/// that asked to be left alone is, and what an operator has to put right is not put right by it.
fn is_urgent(inputs: &DueInputs, lane: &LaneMemory) -> bool {
    let is_asked_to_rest = matches!(lane.last_failure, Some(ErrorKind::Throttled { .. }));
    inputs.usage.space.n_waiting > 0
        && lane.awaits_cloud()
        && !is_asked_to_rest
        && !lane.is_busy
        && lane.since_begun(inputs.now) >= URGENT_INTERVAL
}

/// Whether space is to be freed. `may_help` says that something became safe since the last pass, or
/// that space was not low since. A pass that did not help, because something else fills the disk or
/// all is in use, is not repeated again and again: it goes through all that was retained.
pub fn evict_is_due(
    schedule: &Schedule,
    inputs: &DueInputs,
    lane: &LaneMemory,
    may_help: bool,
) -> bool {
    let rest = schedule.retry_interval.saturating_mul(FUTILE_FACTOR);
    lane.is_ready(inputs.now)
        && schedule.marks.is_low(&inputs.usage.space)
        && (may_help || lane.since_begun(inputs.now) >= rest)
}

/// What is left of publications that are not persisted in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpersisted {
    /// Nothing.
    Nothing,
    /// Something may be: an earlier process ended, or the last snapshot failed.
    Left,
    /// The last snapshot failed for want of room.
    NoRoom,
    /// The same, and the cloud that would have made some failed as well.
    AwaitsCloud,
}

/// What the lanes are about, as far as it may make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoomOutlook {
    /// A lane works, for some time by now: what fails for want of room fails sooner.
    pub is_at_work: bool,
    /// What is not persisted, besides the backlog.
    pub unpersisted: Unpersisted,
    /// What is not safe waits for a cloud.
    pub awaits_cloud: bool,
}

/// Whether room may come, so that operations that find none are worth waiting. What is not
/// persisted can be, as long as that finds room itself; what is not safe becomes safe when a cloud
/// is back that is away now; and what is safe is evicted. With nothing left of all that no wait
/// helps.
pub fn room_may_come(inputs: &DueInputs, outlook: &RoomOutlook) -> bool {
    let can_persist = match outlook.unpersisted {
        Unpersisted::Nothing => inputs.usage.backlog.operations > 0,
        Unpersisted::Left | Unpersisted::AwaitsCloud => true,
        Unpersisted::NoRoom => false,
    };
    outlook.is_at_work || outlook.awaits_cloud || can_persist
}

#[cfg(test)]
impl Schedule {
    /// What unit tests go by.
    pub(crate) const TEST: Self = Self {
        snapshot_interval: Duration::from_mins(5),
        snapshot_operations: 1000,
        marks: SpaceMarks { high_percent: 80, low_percent: 60 },
        retry_interval: Duration::from_mins(1),
    };
}

#[cfg(test)]
mod tests {
    use tier_types::{Backlog, SpaceUsage};

    use super::*;

    const MB: u64 = 1 << 20;

    fn inputs(seconds: u64, operations: u64, used_mb: u64) -> DueInputs {
        let space = SpaceUsage {
            used_bytes: used_mb * MB,
            limit_bytes: 1000 * MB,
            reserve_bytes: 48 * MB,
            ..SpaceUsage::default()
        };
        let backlog = Backlog { operations, bytes: MB };
        let usage = Usage { space, backlog, ..Usage::default() };
        DueInputs { now: Duration::from_secs(seconds), usage }
    }

    fn begun(seconds: u64) -> LaneMemory {
        LaneMemory { last_begun: Some(Duration::from_secs(seconds)), ..LaneMemory::default() }
    }

    #[test]
    fn snapshots_follow_the_interval_and_the_number_of_operations() {
        let due = |inputs: &DueInputs| {
            persist_is_due(&Schedule::TEST, inputs, &begun(10), Unpersisted::Nothing)
        };
        assert!(!due(&inputs(309, 1, 0)) && due(&inputs(310, 1, 0)));
        assert!(!due(&inputs(1000, 0, 0)), "nothing was written");
        assert!(due(&inputs(11, 1000, 0)));
        let busy = LaneMemory { is_busy: true, ..begun(10) };
        assert!(!persist_is_due(&Schedule::TEST, &inputs(11, 1000, 0), &busy, Unpersisted::Left));
        assert!(
            persist_is_due(&Schedule::TEST, &inputs(11, 0, 0), &begun(10), Unpersisted::Left),
            "what was left"
        );
    }

    #[test]
    fn where_space_is_low_what_is_worth_it_is_persisted_at_once() {
        let due = |inputs: &DueInputs| {
            persist_is_due(&Schedule::TEST, inputs, &begun(10), Unpersisted::Nothing)
        };
        let little = inputs(11, 1, 900);
        assert!(!due(&little), "a share of the reserve at least");
        let much = Backlog { operations: 1, bytes: 3 * MB };
        assert!(due(&DueInputs { usage: Usage { backlog: much, ..little.usage }, ..little }));
        let waiting = SpaceUsage { n_waiting: 1, ..little.usage.space };
        assert!(due(&DueInputs { usage: Usage { space: waiting, ..little.usage }, ..little }));
        assert!(due(&inputs(70, 1, 900)), "in the end");
        assert!(!due(&inputs(70, 0, 900)), "everything is persisted");
    }

    #[test]
    fn a_pass_that_did_not_help_is_repeated_when_it_may_or_much_later() {
        let due = |inputs: &DueInputs, may_help| {
            evict_is_due(&Schedule::TEST, inputs, &begun(10), may_help)
        };
        assert!(!due(&inputs(11, 0, 800), true), "space is not low");
        assert!(due(&inputs(11, 0, 801), true));
        assert!(!due(&inputs(609, 0, 801), false) && due(&inputs(610, 0, 801), false));
    }

    #[test]
    fn room_may_come_until_nothing_is_left_that_could_make_some() {
        let nothing = RoomOutlook {
            is_at_work: false,
            unpersisted: Unpersisted::Nothing,
            awaits_cloud: false,
        };
        assert!(!room_may_come(&inputs(1, 0, 1000), &nothing));
        assert!(room_may_come(&inputs(1, 1, 1000), &nothing), "a backlog can be persisted");
        let full = RoomOutlook { unpersisted: Unpersisted::NoRoom, ..nothing };
        assert!(!room_may_come(&inputs(1, 1, 1000), &full), "not even that has room");
        let away = RoomOutlook { awaits_cloud: true, ..full };
        assert!(room_may_come(&inputs(1, 1, 1000), &away), "the cloud may come back");
        assert!(room_may_come(&inputs(1, 0, 1000), &RoomOutlook { is_at_work: true, ..nothing }));
    }

    #[test]
    fn what_has_room_with_the_cloud_alone_is_tried_as_often_as_an_upload() {
        let last_failure = Some(ErrorKind::Away);
        let resting =
            LaneMemory { rests_until: Duration::from_secs(70), last_failure, ..begun(10) };
        let due = |seconds, n_waiting, unpersisted| {
            let calm = inputs(seconds, 0, 0);
            let space = SpaceUsage { n_waiting, ..calm.usage.space };
            let inputs = DueInputs { usage: Usage { space, ..calm.usage }, ..calm };
            persist_is_due(&Schedule::TEST, &inputs, &resting, unpersisted)
        };
        assert!(!due(69, 0, Unpersisted::AwaitsCloud) && due(70, 0, Unpersisted::AwaitsCloud));
        assert!(!due(14, 1, Unpersisted::AwaitsCloud) && due(15, 1, Unpersisted::AwaitsCloud));
        assert!(!due(69, 1, Unpersisted::Left), "it does not wait for the cloud");
    }

    #[test]
    fn what_waits_for_a_cloud_is_tried_after_its_rest() {
        let failed = |kind| LaneMemory {
            rests_until: Duration::from_secs(20),
            last_failure: Some(kind),
            ..begun(10)
        };
        let resting = failed(ErrorKind::Away);
        let due = |seconds| upload_is_due(&inputs(seconds, 0, 0), &resting, true);
        assert!(!due(19) && due(20));
        assert!(!upload_is_due(&inputs(20, 0, 0), &resting, false));
        let urgent = |seconds| {
            let calm = inputs(seconds, 0, 0);
            let space = SpaceUsage { n_waiting: 1, ..calm.usage.space };
            DueInputs { usage: Usage { space, ..calm.usage }, ..calm }
        };
        assert!(!upload_is_due(&urgent(14), &resting, true));
        assert!(upload_is_due(&urgent(15), &resting, true));
        for kind in [ErrorKind::Throttled { after: None }, ErrorKind::Denied, ErrorKind::Damaged] {
            assert!(!upload_is_due(&urgent(19), &failed(kind), true), "{kind:?}");
        }
    }
}
