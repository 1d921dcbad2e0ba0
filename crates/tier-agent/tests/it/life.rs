//! Random workloads with snapshots, evictions, recalls, restarts and crashes between any two
//! steps: the filesystem stays what the model is, the index what the tarballs say, and every
//! snapshot can be restored from the cloud alone.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tier_testkit::{Model, TierOp, TreeEntry, WorkloadOp, workload};
use tier_types::SnapshotId;

use crate::harness::{Harness, Sizes, apply, tree};

fn run(ops: &[WorkloadOp]) {
    let mut harness = Harness::with_sizes(Sizes::small());
    let mut model = Model::default();
    let mut snapshots = BTreeMap::new();
    for (step, op) in ops.iter().enumerate() {
        match op {
            WorkloadOp::Fs(op) => {
                let expected = model.apply(op);
                let done = apply(harness.fs(), op);
                assert_eq!(done.is_ok(), expected.is_ok(), "step {step}, {op:?}: {done:?}");
            }
            WorkloadOp::Tier(TierOp::Snapshot) => {
                if let Some(snapshot) = harness.snapshot() {
                    snapshots.insert(snapshot, model.tree());
                }
            }
            WorkloadOp::Tier(TierOp::Evict) => harness.evict(),
            WorkloadOp::Tier(TierOp::Recall(_)) => {
                harness.check_filesystem();
                assert_eq!(tree(harness.fs()), model.tree(), "step {step}");
            }
            WorkloadOp::Tier(TierOp::Reopen) => harness.reopen(),
            WorkloadOp::Tier(TierOp::CrashInSnapshot(n)) => harness.crash_in_snapshot(*n),
        }
    }
    if let Some(snapshot) = harness.snapshot() {
        snapshots.insert(snapshot, model.tree());
    }
    check_end(&harness, &model, snapshots);
}

/// The filesystem is what the model is, and so is each of the last snapshots in a restore.
pub(crate) fn check_end(
    harness: &Harness,
    model: &Model,
    snapshots: BTreeMap<SnapshotId, BTreeMap<String, TreeEntry>>,
) {
    harness.check_index();
    harness.evict();
    harness.check_filesystem();
    assert_eq!(tree(harness.fs()), model.tree(), "after everything was evicted");
    assert_eq!(harness.restored_tree(None), model.tree(), "restored");
    for (snapshot, tree) in snapshots.into_iter().rev().take(3) {
        assert_eq!(harness.restored_tree(Some(snapshot)), tree, "restored at {snapshot}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_filesystem_stays_what_the_model_is(ops in workload(60, 6000)) {
        run(&ops);
    }
}
