//! A history of many small snapshots: a step costs what it changes, and not what there was.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tier_agent::{SpaceGoal, Stages};
use tier_index::{Index, IndexOptions};
use tier_persist::{Archive, Watch};
use tier_testkit::FakeKvs;
use tier_types::{
    Call, ErrorKind, LogReader, PortError, Recall, RecallHint, RecallRequest, RecalledExtent,
};

use crate::fakes::{CHUNK, Fakes};
use crate::harness::dump;

static GO_ON: AtomicBool = AtomicBool::new(false);

/// What one snapshot asked of the stores, and how long it took.
struct Step {
    n_local: u64,
    n_cloud: u64,
    /// A checkpoint came with it.
    has_checkpoint: bool,
    elapsed: Duration,
}

fn step(fakes: &Fakes, n: u64) -> Step {
    let content = n.to_le_bytes().repeat(8);
    drop(fakes.kvs.clone().write("file", 0, &content));
    let (n_local, n_cloud) = (fakes.local.counted.count(), fakes.cloud.count());
    let start = Instant::now();
    let snapshot = fakes.stages.persist(&GO_ON).unwrap().unwrap().snapshot;
    let mut has_checkpoint = false;
    while let Some(next) = fakes.stages.state().unwrap().to_upload {
        has_checkpoint |= next > snapshot;
        fakes.stages.upload(next, &GO_ON).unwrap();
    }
    let state = fakes.stages.state().unwrap();
    assert_eq!(state.safe_xid, state.last_xid);
    Step {
        n_local: fakes.local.counted.count() - n_local,
        n_cloud: fakes.cloud.count() - n_cloud,
        has_checkpoint,
        elapsed: start.elapsed(),
    }
}

/// Nothing is read from what is restored.
struct NoRecall;

impl Recall for NoRecall {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        _: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        Err(PortError::new(ErrorKind::Failed, "nothing is recalled here"))
    }
}

/// An index of what the cloud has, and how many requests that took.
fn restore(fakes: &Fakes) -> (String, u64, Duration) {
    let (dir, n_before, start) =
        (tempfile::tempdir().unwrap(), fakes.cloud.count(), Instant::now());
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    let archive = Archive::open(fakes.cloud.as_ref(), &fakes.keys, fakes.filesystem).unwrap();
    let salvaged = archive
        .salvage_index(
            &index,
            &|_, _, _| unreachable!("nothing is in doubt"),
            &mut Watch::default(),
        )
        .unwrap();
    let kvs = FakeKvs::empty(CHUNK, Arc::new(NoRecall), fakes.kvs.log().last_xid());
    archive.restore_into(&index, &kvs, &salvaged, &mut |_| {}).unwrap();
    (dump(&index), fakes.cloud.count() - n_before, start.elapsed())
}

/// `TIER_HISTORY_SNAPSHOTS` sets the number; times are printed, and judged by no test.
#[test]
fn the_last_of_many_snapshots_asks_as_little_as_the_tenth() {
    let n_snapshots = std::env::var("TIER_HISTORY_SNAPSHOTS").map_or(3000, |n| n.parse().unwrap());
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("file", &[1; CHUNK as usize]));
    fakes.stages.recover().unwrap();
    let steps: Vec<_> = (0..n_snapshots).map(|n| step(&fakes, n)).collect();
    let n_checkpoints = steps.iter().filter(|step| step.has_checkpoint).count();
    let steps: Vec<_> = steps.into_iter().filter(|step| !step.has_checkpoint).collect();
    let (tenth, last) = (&steps[9], steps.last().unwrap());
    assert_eq!((last.n_local, last.n_cloud), (tenth.n_local, tenth.n_cloud));
    let (restored, n_requests, restore_time) = restore(&fakes);
    assert_eq!(restored, dump(fakes.history.index()));
    // Pages of names: of manifests, and of tarballs and segments.
    let n_pages = 3 * n_snapshots / 5 + 100;
    // And some for each step behind the last checkpoint, which are the more the larger that is.
    let n_behind = 1000 + n_snapshots / 50;
    assert!(n_requests < n_pages + n_behind, "only what is behind it is read: {n_requests}");
    let n_local = fakes.local.counted.count();
    let start = Instant::now();
    fakes.stages.recover().unwrap();
    let recovered = start.elapsed();
    let n_asked = fakes.local.counted.count() - n_local;
    assert!(n_asked <= 2 + n_snapshots / 2, "no object is read: {n_asked}, pages of names of five");
    let evicted = fakes.stages.evict(SpaceGoal::Everything, &GO_ON).unwrap();
    assert_eq!(evicted.n_evicted, 1);
    let median = |steps: &[Step]| {
        let mut times: Vec<_> = steps.iter().map(|step| step.elapsed).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    println!(
        "of {n_snapshots} snapshots the 10th took {:?}, the last {:?} (medians of 10), \
         recovery {recovered:?}, {n_checkpoints} checkpoints, restore {restore_time:?} with \
         {n_requests} requests",
        median(&steps[5..15]),
        median(&steps[steps.len() - 10..]),
    );
}
