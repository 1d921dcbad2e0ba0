//! Tarballs that no copy has: persisted again, whatever crashes meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tier_agent::{SpaceGoal, Stages, Task};
use tier_cloud::DirStore;
use tier_index::{Index, IndexOptions};
use tier_persist::{Archive, LostRanges, ScanMode, Watch};
use tier_types::{Call, Ino, ObjectName, ObjectStore, SnapshotId};

use crate::fakes::{CHUNK, Fakes};
use crate::harness::{Harness, dump, file_name, node, tree};

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Removes the objects of a step that have such a name, from all stores.
fn remove(stores: &[&dyn ObjectStore], step: u64, ending: &str) {
    let of_step = format!("/s{step:010}-");
    let is_it =
        |name: &ObjectName| name.as_str().contains(&of_step) && name.as_str().contains(ending);
    for store in stores {
        for name in store.names(&Call::bulk(), "").unwrap().iter().filter(|name| is_it(name)) {
            store.delete(&Call::bulk(), name, None).unwrap();
        }
    }
}

/// More than a repair reports.
const N_EVENTS: i64 = 12;

/// A store whose first snapshot has lost its tarballs in both copies. The filesystem has all files
/// but the one that is `evicted`.
fn harness(evicted: Option<&str>) -> Harness {
    let harness = Harness::new();
    let fs = harness.fs();
    for n in 0..9_u8 {
        let node = node(tier_types::FileKind::Regular, 0o644);
        let ino = fs.create_node(Ino::ROOT, &file_name(&format!("f{n}")), &node).unwrap().ino;
        fs.write(ino, 0, &vec![n + 1; 700 * usize::from(n)]).unwrap();
    }
    assert_eq!(harness.snapshot(), Some(SnapshotId::new(1)));
    let ino = fs.lookup(Ino::ROOT, &file_name("f3")).unwrap().ino;
    fs.write(ino, 100, b"later").unwrap();
    assert_eq!(harness.snapshot(), Some(SnapshotId::new(2)));
    if let Some(evicted) = evicted {
        harness.evict();
        for name in (0..9).map(|n| format!("f{n}")).filter(|name| name != evicted) {
            let ino = fs.lookup(Ino::ROOT, &file_name(&name)).unwrap().ino;
            fs.read(ino, 0, 1 << 20).unwrap();
        }
    }
    let local = DirStore::create(&harness.dir.path().join("tarballs")).unwrap();
    remove(&[&local, harness.memory.as_ref()], 1, ".tar");
    harness
}

#[test]
fn whatever_crashes_meanwhile_all_of_it_is_safe_in_the_end() {
    let mut n_interrupted = 0;
    for n_events in 0..N_EVENTS {
        let mut harness = harness(None);
        let before = tree(harness.fs());
        let lost = Task::PersistLost(vec![SnapshotId::new(1)]);
        harness.break_sink_after(n_events);
        n_interrupted += i64::from(harness.perform(lost.clone()).is_err());
        harness.reopen();
        harness.perform(lost).unwrap();
        let index = &harness.live().index;
        assert_eq!(LostRanges::of_index(index).unwrap().n_ranges(), 0, "nothing was evicted");
        harness.perform(Task::Upload).unwrap();
        harness.evict();
        let report = harness.perform(Task::Upload).unwrap();
        assert_eq!(report.uploaded, [], "all of it is safe");
        harness.check_filesystem();
        assert_eq!(harness.by_checkpoint(), before, "after {n_events} events");
        assert_eq!(tree(harness.fs()), before);
    }
    assert!((4..N_EVENTS).contains(&n_interrupted), "{n_interrupted}");
}

#[test]
fn what_was_evicted_is_lost_and_told_whatever_crashes_meanwhile() {
    let mut n_interrupted = 0;
    for n_events in 0..N_EVENTS {
        let mut harness = harness(Some("f8"));
        let lost = Task::PersistLost(vec![SnapshotId::new(1)]);
        harness.break_sink_after(n_events);
        n_interrupted += i64::from(harness.perform(lost.clone()).is_err());
        harness.reopen();
        harness.perform(lost).unwrap();
        let ranges = LostRanges::of_index(&harness.live().index).unwrap();
        let ino = harness.fs().lookup(Ino::ROOT, &file_name("f8")).unwrap().ino;
        assert!(ranges.n_bytes() >= 5600, "after {n_events} events: {ranges:?}");
        assert!(ranges.listed().iter().all(|range| range.ino == ino), "{ranges:?}");
        harness.perform(Task::Upload).unwrap();
        harness.evict();
        assert_eq!(harness.perform(Task::Upload).unwrap().uploaded, [], "all of it is safe");
        harness.fs().read(ino, 0, 1).unwrap_err();
        let f7 = harness.fs().lookup(Ino::ROOT, &file_name("f7")).unwrap().ino;
        assert_eq!(harness.fs().read(f7, 0, 1 << 20).unwrap(), [8; 4900]);
    }
    assert!((4..N_EVENTS).contains(&n_interrupted), "{n_interrupted}");
}

/// Two snapshots with a checkpoint behind each; the tarball of the first one is lost, and persisted
/// again.
fn persisted_again() -> Fakes {
    let fakes = Fakes::with_checkpoints();
    for n in 0..2_u8 {
        drop(fakes.kvs.clone().file(&format!("f{n}"), &[n + 1; CHUNK as usize]));
        fakes.stages.persist(&GO_ON).unwrap();
        upload(&fakes, 2);
    }
    assert_eq!(fakes.stages.state().unwrap().to_upload, None);
    remove(&[fakes.local.as_ref(), fakes.cloud.as_ref()], 1, ".tar");
    let done = fakes.stages.persist_lost(&[SnapshotId::new(1)], &GO_ON).unwrap();
    assert_eq!((done.lost, done.found), (vec![SnapshotId::new(1)], vec![]));
    fakes
}

fn upload(fakes: &Fakes, n_steps: u64) {
    for _ in 0..n_steps {
        let next = fakes.stages.state().unwrap().to_upload.unwrap();
        fakes.stages.upload(next, &GO_ON).unwrap();
    }
}

#[test]
fn a_snapshot_is_safe_again_with_the_checkpoint_that_does_without_what_it_lost() {
    let fakes = persisted_again();
    let safe = |fakes: &Fakes| fakes.stages.state().unwrap().safe_xid;
    let last = fakes.stages.state().unwrap().last_xid;
    // The snapshot itself, and the one that was made for it: the earlier checkpoints do not help.
    upload(&fakes, 2);
    assert_eq!(safe(&fakes).get(), 0);
    upload(&fakes, 1);
    assert_eq!(safe(&fakes), last);
}

#[test]
fn what_was_safe_by_a_checkpoint_is_so_no_more_when_that_loses_objects() {
    let fakes = persisted_again();
    upload(&fakes, 3);
    let state = fakes.stages.state().unwrap();
    assert_eq!(state.safe_xid, state.last_xid);
    remove(&[fakes.local.as_ref(), fakes.cloud.as_ref()], 6, ".inodes");
    fakes.stages.take_back(&[SnapshotId::new(6)]).unwrap();
    // It goes up without them, and the first snapshot has no checkpoint any more that does without
    // its tarball.
    upload(&fakes, 1);
    let state = fakes.stages.state().unwrap();
    assert_eq!((state.to_upload, state.safe_xid.get()), (None, 0));
}

#[test]
fn another_checkpoint_is_made_when_that_one_has_lost_objects_as_well() {
    let fakes = persisted_again();
    // Snapshot 5 and checkpoint 6 were made for it.
    remove(&[fakes.local.as_ref(), fakes.cloud.as_ref()], 6, ".inodes");
    upload(&fakes, 3);
    let state = fakes.stages.state().unwrap();
    assert_eq!((state.to_upload, state.safe_xid.get()), (None, 0), "nothing does without it");
    // By a repair, also without any change.
    let done = fakes.stages.persist_lost(&[SnapshotId::new(1)], &GO_ON).unwrap();
    assert_eq!((done.lost, done.found), (vec![SnapshotId::new(1)], vec![]));
    while let Some(next) = fakes.stages.state().unwrap().to_upload {
        fakes.stages.upload(next, &GO_ON).unwrap();
    }
    let state = fakes.stages.state().unwrap();
    assert_eq!(state.safe_xid, state.last_xid);
}

#[test]
fn the_next_snapshot_brings_the_checkpoint_that_is_needed() {
    let fakes = persisted_again();
    remove(&[fakes.local.as_ref(), fakes.cloud.as_ref()], 6, ".inodes");
    upload(&fakes, 3);
    drop(fakes.kvs.clone().file("later", b"x"));
    fakes.stages.persist(&GO_ON).unwrap();
    upload(&fakes, 2);
    let state = fakes.stages.state().unwrap();
    assert_eq!((state.to_upload, state.safe_xid), (None, state.last_xid));
}

#[test]
fn what_a_copy_has_again_counts_as_before() {
    let fakes = Fakes::with_checkpoints();
    drop(fakes.kvs.clone().file("f", &[1; CHUNK as usize]));
    fakes.stages.persist(&GO_ON).unwrap();
    upload(&fakes, 2);
    fakes.stages.evict(SpaceGoal::Everything, &GO_ON).unwrap();
    // An eviction drops the local copy first.
    let cloud: &dyn ObjectStore = fakes.cloud.as_ref();
    let names = cloud.names(&Call::bulk(), "").unwrap();
    let name = names.into_iter().find(|name| name.as_str().contains(".tar")).unwrap();
    let len_bytes = cloud.metadata(&Call::bulk(), &name).unwrap().len_bytes;
    let mut bytes = vec![0; usize::try_from(len_bytes).unwrap()];
    cloud.read_range(&Call::bulk(), &name, 0, &mut bytes).unwrap();
    remove(&[fakes.local.as_ref(), fakes.cloud.as_ref()], 1, ".tar");
    fakes.stages.persist_lost(&[SnapshotId::new(1)], &GO_ON).unwrap();
    let index = Arc::clone(fakes.history.index());
    assert_eq!(LostRanges::of_index(&index).unwrap().n_ranges(), 1);
    fakes.local.put(&Call::bulk(), &name, &&bytes[..]).unwrap();
    let done = fakes.stages.persist_lost(&[SnapshotId::new(1)], &GO_ON).unwrap();
    assert_eq!((done.lost, done.found), (vec![], vec![SnapshotId::new(1)]));
    assert_eq!(LostRanges::of_index(&index).unwrap().n_ranges(), 0);
    while let Some(next) = fakes.stages.state().unwrap().to_upload {
        fakes.stages.upload(next, &GO_ON).unwrap();
    }
    let cloud: &dyn ObjectStore = fakes.cloud.as_ref();
    assert_eq!(cloud.metadata(&Call::bulk(), &name).unwrap().len_bytes, len_bytes);
    let state = fakes.stages.state().unwrap();
    assert_eq!(state.safe_xid, state.last_xid);
    let archive = Archive::open(cloud, &fakes.keys, fakes.filesystem).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let restored = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    archive.rebuild_index(&restored, ScanMode::Checkpoint, &mut Watch::default()).unwrap();
    assert_eq!(dump(&restored), dump(&index), "the newest checkpoint says it");
}
