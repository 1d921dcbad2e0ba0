//! Which of some inodes go: pure, from facts to a plan.

use std::cmp::Reverse;

use tier_types::{EvictionFacts, Ino, Timestamp};

/// Why an inode stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpareReason {
    /// An operator wants it to stay.
    Pinned,
    /// It was used lately.
    Young,
    /// It is too small to be worth a recall.
    Small,
    /// Enough space was freed.
    GoalReached,
}

/// What is to become of some inodes. Those without resident data are in neither list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EvictPlan {
    /// They go, in this order.
    pub evict: Vec<Ino>,
    /// They stay.
    pub spare: Vec<(Ino, SpareReason)>,
}

/// What a pass is to achieve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassGoal {
    /// All that the policy lets go.
    Everything,
    /// No more than needed to free this many bytes.
    Bytes(u64),
}

/// Decides what goes.
pub trait EvictPolicy: Send + Sync {
    /// The plan for one page of candidates. `freed_bytes` were freed before in the same pass.
    fn plan(
        &self,
        candidates: &[EvictionFacts],
        now: Timestamp,
        goal: PassGoal,
        freed_bytes: u64,
    ) -> EvictPlan;
}

/// What was not used for a time goes, the largest and oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AgeAndSize {
    /// What was used in the last so many seconds stays.
    pub age_seconds_min: i64,
    /// Inodes with less resident data stay.
    pub resident_bytes_min: u64,
}

impl EvictPolicy for AgeAndSize {
    fn plan(
        &self,
        candidates: &[EvictionFacts],
        now: Timestamp,
        goal: PassGoal,
        mut freed_bytes: u64,
    ) -> EvictPlan {
        let mut plan = EvictPlan::default();
        let mut going = Vec::new();
        for facts in candidates.iter().filter(|facts| facts.resident_bytes > 0) {
            match self.spare(facts, now) {
                Some(reason) => plan.spare.push((facts.ino, reason)),
                None => going.push(facts),
            }
        }
        going.sort_by_key(|facts| (facts.last_used, Reverse(facts.resident_bytes), facts.ino));
        for facts in going {
            match goal {
                PassGoal::Bytes(bytes) if freed_bytes >= bytes => {
                    plan.spare.push((facts.ino, SpareReason::GoalReached));
                }
                PassGoal::Bytes(_) | PassGoal::Everything => {
                    freed_bytes = freed_bytes.saturating_add(facts.resident_bytes);
                    plan.evict.push(facts.ino);
                }
            }
        }
        plan
    }
}

impl AgeAndSize {
    fn spare(&self, facts: &EvictionFacts, now: Timestamp) -> Option<SpareReason> {
        // A time in the future is no reason to stay.
        let age_seconds = now.seconds.saturating_sub(facts.last_used.seconds);
        let age_seconds = if age_seconds < 0 { i64::MAX } else { age_seconds };
        if facts.pinned {
            Some(SpareReason::Pinned)
        } else if age_seconds < self.age_seconds_min {
            Some(SpareReason::Young)
        } else if facts.resident_bytes < self.resident_bytes_min {
            Some(SpareReason::Small)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(ino: u64, last_used: i64, resident_bytes: u64, pinned: bool) -> EvictionFacts {
        EvictionFacts {
            ino: Ino::new(ino),
            size_bytes: resident_bytes,
            resident_bytes,
            last_used: Timestamp { seconds: last_used, nanos: 0 },
            pinned,
        }
    }

    #[test]
    fn the_oldest_and_largest_go_until_enough_is_free() {
        let policy = AgeAndSize { age_seconds_min: 10, resident_bytes_min: 5 };
        let candidates = [
            facts(1, 50, 100, false),
            facts(2, 10, 30, false),
            facts(3, 10, 60, false),
            facts(4, 95, 100, false),
            facts(5, 10, 100, true),
            facts(6, 10, 4, false),
            facts(7, 10, 0, false),
        ];
        let now = Timestamp { seconds: 100, nanos: 0 };
        let plan = policy.plan(&candidates, now, PassGoal::Bytes(90), 0);
        assert_eq!(plan.evict, [Ino::new(3), Ino::new(2)]);
        assert_eq!(
            plan.spare,
            [
                (Ino::new(4), SpareReason::Young),
                (Ino::new(5), SpareReason::Pinned),
                (Ino::new(6), SpareReason::Small),
                (Ino::new(1), SpareReason::GoalReached),
            ]
        );
    }
}
