//! What comes next: pure.

use tier_evict::PassGoal;
use tier_types::{SnapshotId, Xid};

/// Where things stand, and what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentState {
    /// The last transaction that was logged.
    pub last_xid: Xid,
    /// The last transaction that is persisted.
    pub persisted_xid: Xid,
    /// The oldest persisted snapshot that has not been read back from the tier that makes it safe.
    pub to_secure: Option<SnapshotId>,
    /// The last transaction whose snapshot is safe, with all before it.
    pub safe_xid: Xid,
    /// A snapshot is due up to this transaction.
    pub snapshot_wanted: Option<Xid>,
    /// Space is wanted.
    pub eviction_wanted: Option<PassGoal>,
}

/// One thing to do. It names no tarball and no inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Publish, and persist what is not persisted.
    Persist,
    /// Push a snapshot where it belongs, and read it back.
    Secure(SnapshotId),
    /// Evict from what is safe up to this transaction.
    Evict {
        /// The last safe transaction.
        safe: Xid,
        /// How much.
        goal: PassGoal,
    },
    /// Nothing.
    Rest,
}

/// What comes next. What was begun is finished first: a persisted snapshot is secured before
/// another one is taken, and nothing is evicted while something that is safe soon would free more.
pub fn next_step(state: &AgentState) -> Step {
    if let Some(snapshot) = state.to_secure {
        return Step::Secure(snapshot);
    }
    let due = state.snapshot_wanted.is_some_and(|xid| state.persisted_xid < xid);
    if due && state.persisted_xid < state.last_xid {
        return Step::Persist;
    }
    match state.eviction_wanted {
        Some(goal) => Step::Evict { safe: state.safe_xid, goal },
        None => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> AgentState {
        AgentState {
            last_xid: Xid::new(9),
            persisted_xid: Xid::new(5),
            to_secure: None,
            safe_xid: Xid::new(5),
            snapshot_wanted: None,
            eviction_wanted: None,
        }
    }

    #[test]
    fn nothing_happens_unasked() {
        assert_eq!(next_step(&state()), Step::Rest);
    }

    #[test]
    fn what_was_begun_is_finished_first() {
        let wanted = AgentState {
            snapshot_wanted: Some(Xid::new(9)),
            eviction_wanted: Some(PassGoal::Everything),
            ..state()
        };
        let begun = AgentState { to_secure: Some(SnapshotId::new(3)), ..wanted };
        assert_eq!(next_step(&begun), Step::Secure(SnapshotId::new(3)));
        assert_eq!(next_step(&wanted), Step::Persist);
        let persisted = AgentState { persisted_xid: Xid::new(9), ..wanted };
        let (safe, goal) = (Xid::new(5), PassGoal::Everything);
        assert_eq!(next_step(&persisted), Step::Evict { safe, goal });
    }
}
