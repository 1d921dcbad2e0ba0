//! Net changes against a naive fold, in memory and spilled.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tier_log::{NetChanges, NetChangesOptions, Operation};
use tier_testkit::FakeLog;
use tier_types::{Change, FileUpdate, Ino, LogService, XidRange};

const CHUNK: u64 = 10;

fn operation() -> impl Strategy<Value = Operation> {
    let ino = || (1..6_u64).prop_map(Ino::new);
    prop_oneof![
        (ino(), 0..200_u64, 1..60_u64).prop_map(|(ino, offset, len)| Operation::Write {
            ino,
            offset,
            len
        }),
        (ino(), 0..200_u64, 1..60_u64).prop_map(|(ino, offset, len)| Operation::PunchHole {
            ino,
            offset,
            len
        }),
        (ino(), 0..200_u64, 0..200_u64).prop_map(|(ino, old_size, new_size)| {
            Operation::Truncate { ino, old_size, new_size }
        }),
        ino().prop_map(|ino| Operation::SetAttr { ino }),
        ino().prop_map(|ino| Operation::Create { ino, link: None }),
        ino().prop_map(|ino| Operation::Gone { ino }),
    ]
}

/// Chunk by chunk; chunks above 100 stand for the endless rest.
fn naive(operations: &[Operation]) -> BTreeMap<Ino, Option<BTreeSet<u64>>> {
    let mut touched: BTreeMap<Ino, BTreeSet<u64>> = BTreeMap::new();
    let (mut created, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for operation in operations {
        let ino = operation.ino();
        let chunks = touched.entry(ino).or_default();
        match operation {
            Operation::Write { offset, len, .. } | Operation::PunchHole { offset, len, .. } => {
                chunks.extend(offset / CHUNK..(offset + len).div_ceil(CHUNK));
            }
            Operation::Truncate { old_size, new_size, .. } if new_size < old_size => {
                chunks.extend(new_size / CHUNK..101);
            }
            Operation::Create { .. } => drop(created.insert(ino)),
            Operation::Gone { .. } => drop(gone.insert(ino)),
            Operation::Truncate { .. } | Operation::SetAttr { .. } => {}
            Operation::Mkdir { .. }
            | Operation::Mknod { .. }
            | Operation::Symlink { .. }
            | Operation::Link { .. }
            | Operation::Unlink { .. }
            | Operation::Rename { .. }
            | Operation::Exchange { .. }
            | Operation::SetXattr { .. }
            | Operation::RemoveXattr { .. } => unreachable!("not generated"),
        }
    }
    touched
        .into_iter()
        .filter(|(ino, _)| !(created.contains(ino) && gone.contains(ino)))
        .map(|(ino, chunks)| (ino, (!gone.contains(&ino)).then_some(chunks)))
        .collect()
}

/// What net changes are computed with.
#[derive(Clone, Copy)]
struct Limits {
    n_in_memory_max: usize,
    fan_in: usize,
    n_ranges_max: usize,
}

const ALL_IN_MEMORY: Limits = Limits { n_in_memory_max: 1_000_000, fan_in: 2, n_ranges_max: 1000 };

fn net(operations: &[Operation], limits: Limits) -> BTreeMap<Ino, Option<BTreeSet<u64>>> {
    let log = FakeLog::new(u32::try_from(CHUNK).unwrap());
    let mut range: Option<XidRange> = None;
    for part in operations.chunks(7) {
        for operation in part {
            log.append(operation.clone());
        }
        let published = log.publish().unwrap().unwrap().range;
        let start = range.map_or(published.start(), XidRange::start);
        range = XidRange::new(start, published.end());
    }
    let Limits { n_in_memory_max, fan_in, n_ranges_max } = limits;
    let spill_dir = std::env::temp_dir();
    let options = NetChangesOptions { n_in_memory_max, spill_dir, fan_in, n_ranges_max };
    let changes = NetChanges::of_range(&log, range.unwrap(), &options).unwrap();
    let chunk_set = |update: FileUpdate| match update.change {
        Change::Gone(_) => (update.ino, None),
        Change::Touched(ranges) => {
            assert!(ranges.len() <= n_ranges_max, "{ranges:?}");
            let chunks = |r: tier_types::ChunkRange| r.start().get()..r.end().get().min(101);
            (update.ino, Some(ranges.into_iter().flat_map(chunks).collect()))
        }
    };
    changes.map(|update| chunk_set(update.unwrap())).collect()
}

proptest! {
    #[test]
    fn net_changes_are_those_of_the_naive_fold(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let expected = naive(&operations);
        prop_assert_eq!(&net(&operations, ALL_IN_MEMORY), &expected);
        for fan_in in [2, 3, 100] {
            let limits = Limits { n_in_memory_max: 1, fan_in, ..ALL_IN_MEMORY };
            prop_assert_eq!(&net(&operations, limits), &expected, "spilled, by {}", fan_in);
        }
    }

    /// Too few ranges make more chunks touched than were, and never fewer; nothing else changes.
    #[test]
    fn a_limit_of_ranges_leaves_nothing_out(
        operations in prop::collection::vec(operation(), 1..60),
        n_ranges_max in 1..5_usize,
    ) {
        let expected = naive(&operations);
        for n_in_memory_max in [1, 1_000_000] {
            let found = net(&operations, Limits { n_in_memory_max, fan_in: 2, n_ranges_max });
            prop_assert!(found.keys().eq(expected.keys()));
            for (found, expected) in found.values().zip(expected.values()) {
                match (found, expected) {
                    (Some(found), Some(expected)) => {
                        prop_assert!(found.is_superset(expected), "{:?} {:?}", found, expected);
                        prop_assert_eq!(found.first(), expected.first(), "only between ranges");
                        prop_assert_eq!(found.last(), expected.last(), "only between ranges");
                    }
                    (found, expected) => prop_assert_eq!(found, expected),
                }
            }
        }
    }
}
