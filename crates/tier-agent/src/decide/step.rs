//! What is left of a task: pure functions of how far everything has got.

use tier_types::{SnapshotId, Xid};

/// How far everything has got.
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
}

/// Whether something is to be persisted, so that everything up to a transaction is.
///
/// ```
/// use tier_agent::decide::{AgentState, is_to_persist};
/// use tier_types::{SnapshotId, Xid};
///
/// // Snapshot 3 ends at transaction 50 and is not uploaded; 90 transactions were logged.
/// let state = AgentState {
///     last_xid: Xid::new(90),
///     persisted_xid: Xid::new(50),
///     to_upload: Some(SnapshotId::new(3)),
///     safe_xid: Xid::new(20),
///     is_new_epoch: false,
/// };
/// assert!(is_to_persist(&state, Xid::new(90)), "an upload that waits keeps nothing from it");
/// assert!(!is_to_persist(&state, Xid::new(50)));
/// ```
pub fn is_to_persist(state: &AgentState, wanted: Xid) -> bool {
    // No snapshot reaches a transaction that was not logged, and waiting for it would never end. An
    // epoch is shown in the archive also without anything new.
    state.is_new_epoch || (state.persisted_xid < wanted && state.persisted_xid < state.last_xid)
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
        }
    }

    #[test]
    fn a_new_epoch_is_shown_in_the_archive_also_if_nothing_changed() {
        let taken_over = AgentState { is_new_epoch: true, last_xid: Xid::new(5), ..state() };
        assert!(is_to_persist(&taken_over, Xid::new(5)));
    }

    #[test]
    fn a_snapshot_is_taken_only_as_far_as_it_is_wanted() {
        // Writers go on; the snapshot that was wanted at transaction 5 is there.
        assert!(!is_to_persist(&state(), Xid::new(5)));
        assert!(is_to_persist(&state(), Xid::new(6)));
        let idle = AgentState { last_xid: Xid::new(5), ..state() };
        assert!(!is_to_persist(&idle, Xid::new(6)), "there is nothing to persist");
    }
}
