//! Unit tests of the schedule.

use super::*;

const SCHEDULE: Schedule = Schedule {
    snapshot_interval: Duration::from_mins(5),
    snapshot_operations: 1000,
    high_percent: 80,
    low_percent: 60,
    retry_interval: Duration::from_mins(1),
};

const EVICTION: Option<Task> = Some(Task::Evict(PassGoal::Bytes(201)));

fn at(seconds: u64) -> DueTaskInputs {
    DueTaskInputs { now: Duration::from_secs(seconds), ..DueTaskInputs::default() }
}

/// One byte above the high mark.
fn low_space(seconds: u64) -> DueTaskInputs {
    let space = SpaceUsage { own_bytes: 500, occupied_bytes: 801, capacity_bytes: 1000 };
    DueTaskInputs { space: Some(space), ..at(seconds) }
}

fn due(inputs: &DueTaskInputs) -> Option<Task> {
    due_task(&SCHEDULE, inputs)
}

#[test]
fn nothing_changed_is_nothing_to_do() {
    assert_eq!(due(&at(1_000_000)), None);
}

#[test]
fn a_snapshot_is_due_after_a_time_or_after_many_operations() {
    let few = |now| DueTaskInputs { backlog_operations: 1, ..at(now) };
    assert_eq!(due(&few(299)), None);
    assert_eq!(due(&few(300)), Some(Task::Snapshot));
    let last_snapshot = Some(Duration::from_secs(100));
    assert_eq!(due(&DueTaskInputs { last_snapshot, ..few(399) }), None);
    assert_eq!(due(&DueTaskInputs { last_snapshot, ..few(400) }), Some(Task::Snapshot));
    let many = DueTaskInputs { backlog_operations: 1000, ..at(1) };
    assert_eq!(due(&many), Some(Task::Snapshot));
}

#[test]
fn zero_operations_are_never_many() {
    let schedule = Schedule { snapshot_operations: 0, ..SCHEDULE };
    assert_eq!(due_task(&schedule, &at(1)), None);
    let one = DueTaskInputs { backlog_operations: 1, ..at(1) };
    assert_eq!(due_task(&schedule, &one), Some(Task::Snapshot));
}

#[test]
fn what_failed_is_tried_again_but_not_at_once() {
    let last_snapshot = Some(Duration::from_secs(100));
    let failed = |now| DueTaskInputs { unfinished: true, last_snapshot, ..at(now) };
    assert_eq!(due(&failed(159)), None);
    assert_eq!(due(&failed(160)), Some(Task::Snapshot));
    let never_tried = DueTaskInputs { unfinished: true, ..at(0) };
    assert_eq!(due(&never_tried), Some(Task::Snapshot), "an earlier process left it");
}

#[test]
fn many_operations_do_not_hurry_what_fails() {
    let last_snapshot = Some(Duration::from_secs(100));
    let backlog_operations = 1_000_000;
    let failed = DueTaskInputs { unfinished: true, last_snapshot, backlog_operations, ..at(101) };
    assert_eq!(due(&failed), None);
}

#[test]
fn space_is_freed_from_the_high_to_the_low_mark() {
    let occupied = |occupied_bytes| {
        let space = SpaceUsage { own_bytes: 500, occupied_bytes, capacity_bytes: 1000 };
        DueTaskInputs { space: Some(space), ..at(100) }
    };
    assert_eq!(due(&occupied(800)), None);
    assert_eq!(due(&occupied(801)), EVICTION);
    let space = SpaceUsage { own_bytes: 5, occupied_bytes: 801, capacity_bytes: 1000 };
    let others = DueTaskInputs { space: Some(space), ..at(100) };
    let all_there_is = Some(Task::Evict(PassGoal::Bytes(5)));
    assert_eq!(due(&others), all_there_is, "the rest is not its own");
}

#[test]
fn without_a_limit_and_without_a_measurement_nothing_is_evicted() {
    let space = SpaceUsage { own_bytes: 1 << 60, occupied_bytes: 1 << 60, capacity_bytes: 0 };
    assert_eq!(due(&DueTaskInputs { space: Some(space), ..at(100) }), None);
    assert_eq!(due(&DueTaskInputs { space: None, ..low_space(100) }), None);
    let written = DueTaskInputs { space: None, backlog_operations: 1, ..low_space(300) };
    assert_eq!(due(&written), Some(Task::Snapshot), "snapshots need no measurement");
}

#[test]
fn an_eviction_is_not_tried_again_at_once() {
    let last_eviction = Some(Duration::from_secs(90));
    let tried = |now| DueTaskInputs { last_eviction, ..low_space(now) };
    assert_eq!(due(&tried(149)), None);
    assert_eq!(due(&tried(150)), EVICTION);
    let hot = DueTaskInputs { backlog_operations: 1, ..tried(100) };
    assert_eq!(due(&hot), Some(Task::Snapshot), "what is not safe cannot go");
    let snapshot_too = DueTaskInputs { last_snapshot: Some(Duration::from_secs(95)), ..hot };
    assert_eq!(due(&snapshot_too), None, "nor is that tried again at once");
}

#[test]
fn an_eviction_that_did_not_help_rests_for_an_hour() {
    let last_eviction = Some(Duration::from_secs(90));
    let futile = |now| {
        let low_space_after_eviction = true;
        DueTaskInputs { last_eviction, low_space_after_eviction, ..low_space(now) }
    };
    assert_eq!(due(&futile(150)), None);
    assert_eq!(due(&futile(90 + 3599)), None);
    assert_eq!(due(&futile(90 + 3600)), EVICTION);
}

#[test]
#[should_panic(expected = "lies in the past")]
fn a_time_in_the_future_is_a_programmers_error() {
    let last_snapshot = Some(Duration::from_secs(101));
    due(&DueTaskInputs { backlog_operations: 1, last_snapshot, ..at(100) });
}

#[test]
#[should_panic(expected = "below its beginning")]
fn marks_the_wrong_way_round_are_a_programmers_error() {
    let schedule = Schedule { low_percent: 90, ..SCHEDULE };
    due_task(&schedule, &low_space(1));
}
