//! Tarballs that no copy has: persisted again, whatever crashes meanwhile.

use tier_agent::Task;
use tier_cloud::DirStore;
use tier_types::{Call, Ino, ObjectStore, SnapshotId};

use crate::harness::{Harness, file_name, node, tree};

/// A store whose first snapshot has lost its tarballs in both copies.
fn harness() -> Harness {
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
    let local = DirStore::create(&harness.dir.path().join("tarballs")).unwrap();
    let stores: [&dyn ObjectStore; 2] = [&local, harness.memory.as_ref()];
    for store in stores {
        for name in store.names(&Call::bulk(), "").unwrap() {
            if name.as_str().contains("/s0000000001-") && name.as_str().contains(".tar") {
                store.delete(&Call::bulk(), &name, None).unwrap();
            }
        }
    }
    harness
}

#[test]
fn whatever_crashes_meanwhile_all_of_it_is_safe_in_the_end() {
    let mut is_interrupted = true;
    let mut n_events = 0;
    while is_interrupted {
        let mut harness = harness();
        let before = tree(harness.fs());
        let lost = Task::PersistLost(SnapshotId::new(1));
        harness.break_sink_after(n_events);
        is_interrupted = harness.perform(lost).is_err();
        n_events += 1;
        harness.reopen();
        let report = harness.perform(lost).unwrap();
        assert_eq!(report.lost.n_ranges(), 0, "the filesystem had all of it");
        harness.perform(Task::Upload).unwrap();
        harness.evict();
        let report = harness.perform(Task::Upload).unwrap();
        assert_eq!(report.uploaded, [], "all of it is safe");
        harness.check_filesystem();
        assert_eq!(harness.by_checkpoint(), before, "after {n_events} events");
        assert_eq!(tree(harness.fs()), before);
    }
    assert!(n_events > 4, "{n_events}");
}
