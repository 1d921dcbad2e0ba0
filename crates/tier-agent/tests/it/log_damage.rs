//! A log that cannot be read: what changed is found out from the filesystem itself, and nothing is
//! lost but the history.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tier_testkit::{Model, TierOp, WorkloadOp, workload};
use tier_types::{FileKind, Ino, LogService};

use crate::harness::{Harness, Sizes, apply, file_name, node, tree};
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
    let harness = Harness::with_sizes(Sizes::small());
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

/// More of everything than is looked at together: inodes, those of them that are gone between two
/// that are not, and runs of a chunk map.
#[test]
fn without_a_log_many_inodes_and_runs_are_found_in_order() {
    let harness = Harness::new();
    let fs = harness.fs();
    let make = |name: &str| {
        let node = node(FileKind::Regular, 0o644);
        fs.create_node(Ino::ROOT, &file_name(name), &node).unwrap().ino
    };
    let first = make("first");
    let names: Vec<_> = (0..5000).map(|number| format!("f{number}")).collect();
    for name in &names {
        make(name);
    }
    let last = make("last");
    let chunk_bytes = u64::from(fs.chunk_bytes());
    fs.write(last, 0, &vec![1; usize::try_from(2000 * chunk_bytes).unwrap()]).unwrap();
    harness.snapshot();
    for name in &names {
        fs.unlink(Ino::ROOT, &file_name(name)).unwrap();
    }
    fs.write(first, 0, b"changed").unwrap();
    for chunk in (0..2000).step_by(2) {
        fs.write(last, chunk * chunk_bytes, b"changed").unwrap();
    }
    damage_log(&harness, Damage::Gone);
    harness.snapshot();
    let expected = tree(fs);
    assert_eq!(expected.len(), 3, "with the root");
    assert_eq!(harness.restored_tree(None), expected);
    harness.check_index();
}
