//! A store with many small snapshots, in directories.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tier_types::InstanceView;

use tier_agent::{SpaceGoal, Task};
use tier_testkit::FakeKvs;

use crate::harness::{CHUNK, LateRecall, Opened, World};

/// `TIER_HISTORY_SNAPSHOTS` sets the number; times are printed, and judged by no test.
#[test]
fn a_store_with_many_snapshots_opens_goes_on_and_is_restored() {
    let n_snapshots = std::env::var("TIER_HISTORY_SNAPSHOTS").map_or(200, |n| n.parse().unwrap());
    let world = World::new();
    let recall = Arc::new(LateRecall::default());
    let kvs = FakeKvs::with_recall(CHUNK, recall.clone()).file("file", &[1; 4096]);
    let opened = world.open_with("store", kvs, &recall).unwrap();
    let step = |opened: &Opened, n: u64| {
        drop(opened.kvs.clone().write("file", 0, &n.to_le_bytes().repeat(8)));
        let start = Instant::now();
        let report = opened.perform(Task::Snapshot);
        assert!(report.persisted.is_some());
        start.elapsed()
    };
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let times: Vec<_> = (0..n_snapshots).map(|n| step(&opened, n)).collect();
    let kvs = opened.kvs.clone();
    recall.clear();
    drop(opened);
    let start = Instant::now();
    let reopened = world.open_with("store", kvs, &recall).unwrap();
    let open_time = start.elapsed();
    let first = step(&reopened, n_snapshots);
    reopened.perform(Task::Evict(SpaceGoal::Everything));
    assert_eq!(reopened.kvs.usage().unwrap().resident_bytes, 0, "all of it is safe");
    let start = Instant::now();
    let restored = world.restored("restored");
    let restore_time = start.elapsed();
    let expected = [n_snapshots.to_le_bytes().repeat(8), vec![1; 4096 - 64]].concat();
    assert_eq!(restored.kvs.read("file").unwrap(), expected);
    for n in (1..=10).map(|tenth| tenth * times.len() / 10) {
        println!("snapshot {n}: {:?} (median of 100)", median(&times[n.saturating_sub(100)..n]));
    }
    println!(
        "of {n_snapshots} snapshots the 10th took {:?}, the last {:?} (medians of 10); opening \
         {open_time:?}, the first snapshot behind that {first:?}, a restore, opened, {restore_time:?}",
        median(&times[5..15]),
        median(&times[times.len() - 10..]),
    );
}
