//! Unit tests of the policy.

use super::*;

const NOW: Timestamp = Timestamp { seconds: 100, nanos: 0 };

fn facts(ino: u64, last_used: i64, resident_bytes: u64) -> EvictionFacts {
    EvictionFacts {
        ino: Ino::new(ino),
        size_bytes: resident_bytes,
        resident_bytes,
        last_used: Timestamp { seconds: last_used, nanos: 0 },
        pinned: false,
    }
}

fn pinned(ino: u64, last_used: i64, resident_bytes: u64) -> EvictionFacts {
    EvictionFacts { pinned: true, ..facts(ino, last_used, resident_bytes) }
}

fn retained(ino: u64, reason: RetainReason) -> Retained {
    Retained { ino: Ino::new(ino), reason }
}

#[test]
fn the_oldest_and_largest_go_until_enough_is_free() {
    let policy = AgeAndSize { age_seconds_min: 10, resident_bytes_min: 5 };
    let candidates = [
        facts(1, 50, 100),
        facts(2, 10, 30),
        facts(3, 10, 60),
        facts(4, 95, 100),
        pinned(5, 10, 100),
        facts(6, 10, 4),
        facts(7, 10, 0),
    ];
    let plan = policy.plan(&candidates, NOW, PassGoal::Bytes(90), 0);
    assert_eq!(plan.evict, [Ino::new(3), Ino::new(2)]);
    assert_eq!(
        plan.retain,
        [
            retained(4, RetainReason::Young),
            retained(5, RetainReason::Pinned),
            retained(6, RetainReason::Small),
            retained(1, RetainReason::GoalReached),
        ]
    );
}

#[test]
fn a_candidate_is_young_for_exactly_so_many_seconds() {
    let policy = AgeAndSize { age_seconds_min: 10, resident_bytes_min: 0 };
    let goes = |last_used| {
        let plan = policy.plan(&[facts(1, last_used, 1)], NOW, PassGoal::Everything, 0);
        plan.evict == [Ino::new(1)]
    };
    assert!(goes(90), "ten seconds old");
    assert!(!goes(91), "nine seconds old");
    assert!(!goes(100), "used right now");
    assert!(goes(101), "used in the future");
    assert!(goes(i64::MAX), "used at the end of time");
    assert!(goes(i64::MIN), "used before all time");
    let none = AgeAndSize::default();
    let plan = none.plan(&[facts(1, 100, 1)], NOW, PassGoal::Everything, 0);
    assert_eq!(plan.evict, [Ino::new(1)], "without a minimum nothing is young");
}

#[test]
fn a_candidate_is_small_below_the_minimum() {
    let policy = AgeAndSize { age_seconds_min: 0, resident_bytes_min: 5 };
    let candidates = [facts(1, 0, 4), facts(2, 0, 5)];
    let plan = policy.plan(&candidates, NOW, PassGoal::Everything, 0);
    assert_eq!(plan.evict, [Ino::new(2)]);
    assert_eq!(plan.retain, [retained(1, RetainReason::Small)]);
}

#[test]
fn the_first_reason_that_applies_is_given() {
    let policy = AgeAndSize { age_seconds_min: 10, resident_bytes_min: 5 };
    let candidates = [pinned(1, 95, 1), facts(2, 95, 1), facts(3, 10, 1)];
    let plan = policy.plan(&candidates, NOW, PassGoal::Bytes(0), 0);
    assert_eq!(
        plan.retain,
        [
            retained(1, RetainReason::Pinned),
            retained(2, RetainReason::Young),
            retained(3, RetainReason::Small),
        ]
    );
}

#[test]
fn what_was_freed_before_counts_towards_the_goal() {
    let policy = AgeAndSize::default();
    let candidates = [facts(1, 1, 10), facts(2, 2, 10), facts(3, 3, 10)];
    let evicted = |goal, freed_bytes| policy.plan(&candidates, NOW, goal, freed_bytes).evict;
    assert_eq!(evicted(PassGoal::Bytes(30), 10), [1, 2].map(Ino::new));
    assert_eq!(evicted(PassGoal::Bytes(30), 30), []);
    assert_eq!(evicted(PassGoal::Bytes(0), 0), []);
    assert_eq!(evicted(PassGoal::Everything, u64::MAX), [1, 2, 3].map(Ino::new));
}
