//! The eviction policy: a pure function from facts to a plan.
//!
//! A policy sees one page of candidates and says of each whether its data is to go or is retained,
//! and why. It does no I/O, reads no clock and keeps nothing between calls, so that the same facts
//! give the same plan: a dry run and a pass agree, a test compares plans as values, and another
//! policy can be tried on recorded facts. Every candidate with resident data is in exactly one of
//! the plan's lists: one in neither would never come up again, and the evicter asserts it.
//!
//! A policy cannot do harm. What it lets go is evicted only if it is safely persisted, and what it
//! retains comes up again in the next pass.

use std::cmp::Reverse;

use tier_types::{EvictionFacts, Ino, Timestamp};

/// Why an inode is retained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetainReason {
    /// An operator wants it to stay.
    Pinned,
    /// It was used lately.
    Young,
    /// It is too small to be worth a recall.
    Small,
    /// Enough space was freed.
    GoalReached,
}

/// A candidate that keeps its data, until the next pass at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retained {
    /// The inode.
    pub ino: Ino,
    /// The first reason that applied.
    pub reason: RetainReason,
}

/// How many inodes are retained, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RetainedCounts {
    /// Pinned.
    pub n_pinned: u64,
    /// Used lately.
    pub n_young: u64,
    /// Too small.
    pub n_small: u64,
    /// Not needed, because enough was freed.
    pub n_goal_reached: u64,
}

impl RetainedCounts {
    /// All of them.
    pub fn n_inodes(&self) -> u64 {
        self.n_pinned + self.n_young + self.n_small + self.n_goal_reached
    }

    pub(crate) fn add(&mut self, retained: &[Retained]) {
        for one in retained {
            let count = match one.reason {
                RetainReason::Pinned => &mut self.n_pinned,
                RetainReason::Young => &mut self.n_young,
                RetainReason::Small => &mut self.n_small,
                RetainReason::GoalReached => &mut self.n_goal_reached,
            };
            *count += 1;
        }
    }
}

/// What is to become of the candidates of one page. Those without resident data are in neither
/// list, all others in exactly one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EvictPlan {
    /// Candidates whose data is to go, in this order.
    pub evict: Vec<Ino>,
    /// Candidates that keep it.
    pub retain: Vec<Retained>,
}

/// What a pass is to achieve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassGoal {
    /// All that the policy lets go.
    Everything,
    /// No more than needed to free this many bytes of chunk data.
    Bytes(u64),
}

/// Decides what goes.
pub trait EvictPolicy: Send + Sync {
    /// The plan for one page of candidates, which come in order of inodes. `freed_bytes` were freed
    /// before in the same pass.
    fn plan(
        &self,
        candidates: &[EvictionFacts],
        now: Timestamp,
        goal: PassGoal,
        freed_bytes: u64,
    ) -> EvictPlan;
}

/// The policy of age and size: what was not used for a time goes, the oldest first, and of the
/// same age the largest first.
///
/// ```
/// use tier_evict::{AgeAndSize, EvictPolicy, PassGoal, RetainReason, Retained};
/// use tier_types::{EvictionFacts, Ino, Timestamp};
///
/// let facts = |ino, last_used, resident_bytes| EvictionFacts {
///     ino: Ino::new(ino),
///     size_bytes: resident_bytes,
///     resident_bytes,
///     last_used: Timestamp { seconds: last_used, nanos: 0 },
///     pinned: false,
/// };
/// let candidates = [facts(2, 10, 4096), facts(3, 20, 4096), facts(4, 990, 4096)];
///
/// let policy = AgeAndSize { age_seconds_min: 60, resident_bytes_min: 1 };
/// let now = Timestamp { seconds: 1000, nanos: 0 };
/// let plan = policy.plan(&candidates, now, PassGoal::Bytes(4096), 0);
///
/// assert_eq!(plan.evict, [Ino::new(2)], "the oldest is enough");
/// let young = Retained { ino: Ino::new(4), reason: RetainReason::Young };
/// let not_needed = Retained { ino: Ino::new(3), reason: RetainReason::GoalReached };
/// assert_eq!(plan.retain, [young, not_needed]);
/// ```
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
            match self.reason_to_retain(facts, now) {
                Some(reason) => plan.retain.push(Retained { ino: facts.ino, reason }),
                None => going.push(facts),
            }
        }
        // The inode number last, so that equal candidates come in an order that does not vary.
        going.sort_by_key(|facts| (facts.last_used, Reverse(facts.resident_bytes), facts.ino));
        for facts in going {
            // The one that crosses the goal still goes: too little freed is worse than too much.
            match goal {
                PassGoal::Bytes(bytes) if freed_bytes >= bytes => {
                    let reason = RetainReason::GoalReached;
                    plan.retain.push(Retained { ino: facts.ino, reason });
                }
                PassGoal::Bytes(_) | PassGoal::Everything => {
                    // An estimate for this page only: the gate may keep some of it, and a pass
                    // plans the next page with what really went.
                    freed_bytes = freed_bytes.saturating_add(facts.resident_bytes);
                    plan.evict.push(facts.ino);
                }
            }
        }
        plan
    }
}

impl AgeAndSize {
    fn reason_to_retain(&self, facts: &EvictionFacts, now: Timestamp) -> Option<RetainReason> {
        // An operator's word goes before what was measured: only the first reason is reported.
        if facts.pinned {
            Some(RetainReason::Pinned)
        } else if self.is_young(facts.last_used, now) {
            Some(RetainReason::Young)
        } else if facts.resident_bytes < self.resident_bytes_min {
            Some(RetainReason::Small)
        } else {
            None
        }
    }

    /// A time in the future is no reason to stay: a file with such a time would stay for ever.
    fn is_young(&self, last_used: Timestamp, now: Timestamp) -> bool {
        // Saturating: a file's time is whatever a program set.
        let age_seconds = now.seconds.saturating_sub(last_used.seconds);
        age_seconds >= 0 && age_seconds < self.age_seconds_min
    }
}

#[cfg(test)]
mod tests;
