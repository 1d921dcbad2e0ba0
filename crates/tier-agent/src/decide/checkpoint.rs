//! Whether a checkpoint is due: when reading what came since the last one costs more than reading
//! it.

use tier_persist::{SnapshotSummary, StepKind};

/// What a request to a store over a network costs, in bytes that it could bring meanwhile.
const REQUEST_BYTES: u64 = 64 << 10;

/// What a restore would have to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointCosts {
    /// Bytes of tables since the last checkpoint.
    pub since_bytes: u64,
    /// Requests for them.
    pub since_requests: u64,
    /// Bytes of the last checkpoint; 0 if there is none.
    pub last_bytes: u64,
}

impl CheckpointCosts {
    /// The costs of a history, from its newest step back to a checkpoint that is whole.
    pub fn of<'a>(
        newest_first: impl Iterator<Item = &'a SnapshotSummary>,
        is_whole: &dyn Fn(&SnapshotSummary) -> bool,
    ) -> Self {
        let mut costs = Self::default();
        for step in newest_first {
            if step.kind == StepKind::Checkpoint {
                if is_whole(step) {
                    costs.last_bytes = step.table_bytes;
                    break;
                }
                continue;
            }
            costs.since_bytes = costs.since_bytes.saturating_add(step.table_bytes);
            // The manifest, and of each tarball how long it is, its root, and a part of its table.
            costs.since_requests += 1 + 3 * step.n_tarballs;
        }
        costs
    }

    /// What reading the tables costs, requests included.
    pub fn since(&self) -> u64 {
        self.since_bytes.saturating_add(self.since_requests.saturating_mul(REQUEST_BYTES))
    }
}

/// Whether a checkpoint is due. `min_bytes` keeps small histories from having many.
///
/// ```
/// use tier_agent::decide::{CheckpointCosts, checkpoint_is_due};
///
/// let costs = CheckpointCosts { since_bytes: 9 << 20, since_requests: 200, last_bytes: 30 << 20 };
/// assert!(!checkpoint_is_due(&costs, 16 << 20), "reading the last one again costs more");
/// assert!(checkpoint_is_due(&CheckpointCosts { last_bytes: 20 << 20, ..costs }, 16 << 20));
/// assert!(!checkpoint_is_due(&CheckpointCosts { last_bytes: 0, ..costs }, 64 << 20));
/// ```
pub fn checkpoint_is_due(costs: &CheckpointCosts, min_bytes: u64) -> bool {
    costs.since() >= min_bytes.max(costs.last_bytes).max(1)
}
