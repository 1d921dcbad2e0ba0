//! The next step of a task: a pure function of how far everything has got.

use tier_evict::PassGoal;
use tier_types::{SnapshotId, Xid};

/// How far everything has got, and what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentState {
    /// The last transaction that was logged.
    pub last_xid: Xid,
    /// The last transaction that is persisted.
    pub persisted_xid: Xid,
    /// The oldest persisted snapshot that is not uploaded and verified in the tier that makes it
    /// safe.
    pub to_upload: Option<SnapshotId>,
    /// The last transaction whose snapshot is safe, with all before it.
    pub safe_xid: Xid,
    /// The archive shows nothing of this store's epoch yet.
    pub is_new_epoch: bool,
    /// A snapshot is wanted up to this transaction.
    pub snapshot_wanted: Option<Xid>,
    /// Space is wanted.
    pub eviction_wanted: Option<PassGoal>,
}

/// One thing to do. It names no tarball and no inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentStep {
    /// Publish, and persist what is not persisted.
    Persist,
    /// Upload a snapshot and verify it.
    Upload(SnapshotId),
    /// Evict from what is safe up to this transaction.
    Evict {
        /// The last safe transaction.
        safe: Xid,
        /// How much.
        goal: PassGoal,
    },
    /// Nothing is left to do.
    Rest,
}

/// What comes next. What was begun is finished first: a persisted snapshot is uploaded before
/// another one is taken, and nothing is evicted while something that is safe soon would free more.
///
/// ```
/// use tier_agent::decide::{AgentState, AgentStep, next_step};
/// use tier_evict::PassGoal;
/// use tier_types::{SnapshotId, Xid};
///
/// // Snapshot 3 ends at transaction 50 and is not uploaded; 90 transactions were logged.
/// let state = AgentState {
///     last_xid: Xid::new(90),
///     persisted_xid: Xid::new(50),
///     to_upload: Some(SnapshotId::new(3)),
///     safe_xid: Xid::new(20),
///     is_new_epoch: false,
///     snapshot_wanted: Some(Xid::new(90)),
///     eviction_wanted: Some(PassGoal::Everything),
/// };
/// assert_eq!(next_step(&state), AgentStep::Upload(SnapshotId::new(3)));
///
/// let uploaded = AgentState { to_upload: None, safe_xid: Xid::new(50), ..state };
/// assert_eq!(next_step(&uploaded), AgentStep::Persist);
///
/// let persisted = AgentState { persisted_xid: Xid::new(90), ..uploaded };
/// let (safe, goal) = (Xid::new(50), PassGoal::Everything);
/// assert_eq!(next_step(&persisted), AgentStep::Evict { safe, goal });
/// ```
pub fn next_step(state: &AgentState) -> AgentStep {
    // The oldest one, and before all else: no later snapshot is safe while this one is not.
    if let Some(snapshot) = state.to_upload {
        return AgentStep::Upload(snapshot);
    }
    let wanted = state.snapshot_wanted.is_some_and(|xid| state.persisted_xid < xid);
    // No snapshot reaches a transaction that was not logged, and waiting for it would never end.
    if wanted && state.persisted_xid < state.last_xid {
        return AgentStep::Persist;
    }
    // Without anything new, but for the epoch itself.
    if state.is_new_epoch && state.snapshot_wanted.is_some() {
        return AgentStep::Persist;
    }
    match state.eviction_wanted {
        Some(goal) => AgentStep::Evict { safe: state.safe_xid, goal },
        None => AgentStep::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> AgentState {
        AgentState {
            last_xid: Xid::new(9),
            persisted_xid: Xid::new(5),
            to_upload: None,
            safe_xid: Xid::new(5),
            is_new_epoch: false,
            snapshot_wanted: None,
            eviction_wanted: None,
        }
    }

    #[test]
    fn nothing_happens_unasked() {
        assert_eq!(next_step(&state()), AgentStep::Rest);
    }

    #[test]
    fn what_was_begun_is_finished_first() {
        let wanted = AgentState {
            snapshot_wanted: Some(Xid::new(9)),
            eviction_wanted: Some(PassGoal::Everything),
            ..state()
        };
        let begun = AgentState { to_upload: Some(SnapshotId::new(3)), ..wanted };
        assert_eq!(next_step(&begun), AgentStep::Upload(SnapshotId::new(3)));
        assert_eq!(next_step(&wanted), AgentStep::Persist);
        let persisted = AgentState { persisted_xid: Xid::new(9), ..wanted };
        let (safe, goal) = (Xid::new(5), PassGoal::Everything);
        assert_eq!(next_step(&persisted), AgentStep::Evict { safe, goal });
    }

    #[test]
    fn a_new_epoch_is_shown_in_the_archive_also_if_nothing_changed() {
        let taken_over = AgentState { is_new_epoch: true, last_xid: Xid::new(5), ..state() };
        assert_eq!(next_step(&taken_over), AgentStep::Rest);
        let wanted = AgentState { snapshot_wanted: Some(Xid::new(5)), ..taken_over };
        assert_eq!(next_step(&wanted), AgentStep::Persist);
    }

    #[test]
    fn a_snapshot_is_taken_only_as_far_as_it_is_wanted() {
        // Writers go on; the snapshot that was wanted at transaction 5 is there.
        let covered = AgentState { snapshot_wanted: Some(Xid::new(5)), ..state() };
        assert_eq!(next_step(&covered), AgentStep::Rest);
        let idle = AgentState { last_xid: Xid::new(5), ..covered };
        let beyond = AgentState { snapshot_wanted: Some(Xid::new(6)), ..idle };
        assert_eq!(next_step(&beyond), AgentStep::Rest, "there is nothing to persist");
    }
}
