//! A log that cannot be read: what changed is found out from the filesystem itself, and nothing is
//! lost but the history.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tier_testkit::{Model, TierOp, WorkloadOp, workload};
use tier_types::LogService;

use crate::harness::{Harness, Sizes, apply};
use crate::life::check_end;

/// What happens to a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    FlippedBit,
    Cut,
    Gone,
}

/// Publishes, and damages all segments that are not persisted.
fn damage_log(harness: &Harness, damage: Damage) {
    let is_new = harness.fs().publish().unwrap().is_some();
    let paths = segments(harness);
    assert!(!is_new || !paths.is_empty(), "a publication is a segment");
    for path in paths {
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            Damage::Gone => {
                fs::remove_file(&path).unwrap();
                continue;
            }
            Damage::FlippedBit => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            Damage::Cut => bytes.truncate(bytes.len() / 2),
        }
        fs::write(&path, &bytes).unwrap();
    }
}

fn segments(harness: &Harness) -> Vec<PathBuf> {
    let entries = fs::read_dir(harness.dir.path().join("segments")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn run(ops: &[WorkloadOp], damage: Damage) {
    let harness = Harness::with_sizes(Sizes { part_bytes: 3000, checkpoint_bytes: 1 << 20 });
    let mut model = Model::default();
    let mut snapshots = BTreeMap::new();
    let mut snapshot = |model: &Model| {
        damage_log(&harness, damage);
        if let Some(snapshot) = harness.snapshot() {
            snapshots.insert(snapshot, model.tree());
        }
    };
    for op in ops {
        match op {
            WorkloadOp::Fs(op) => {
                let expected = model.apply(op);
                assert_eq!(apply(harness.fs(), op).is_ok(), expected.is_ok(), "{op:?}");
            }
            WorkloadOp::Tier(TierOp::Snapshot) => snapshot(&model),
            WorkloadOp::Tier(TierOp::Evict) => {
                // It persists what is not persisted.
                snapshot(&model);
                harness.evict();
            }
            // The segments of before are damaged, so that this process goes on.
            WorkloadOp::Tier(_) => {}
        }
    }
    snapshot(&model);
    check_end(&harness, &model, snapshots);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn without_a_log_every_snapshot_is_what_the_model_is(
        ops in workload(50, 6000),
        damage in prop::sample::select(vec![Damage::FlippedBit, Damage::Cut, Damage::Gone]),
    ) {
        run(&ops, damage);
    }
}
