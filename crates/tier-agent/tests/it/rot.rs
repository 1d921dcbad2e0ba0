//! Tarballs that go bad where they were written, before the cloud has them.

use std::fs;

use tier_agent::{SpaceGoal, Task};
use tier_testkit::Fault;
use tier_types::{FileKind, HasKind, Ino};

use crate::harness::{Harness, file_name, node, tree};

fn write(harness: &Harness, name: &str, content: &[u8]) -> Ino {
    let known = harness.fs().lookup(Ino::ROOT, &file_name(name));
    let node = node(FileKind::Regular, 0o644);
    let attr = known.or_else(|_| harness.fs().create_node(Ino::ROOT, &file_name(name), &node));
    let ino = attr.unwrap().ino;
    harness.fs().write(ino, 0, content).unwrap();
    ino
}

/// A store with a snapshot in the cloud, and two that are not there, because it is away.
fn with_local_snapshots() -> Harness {
    let harness = Harness::new();
    write(&harness, "safe", &[1; 3000]);
    harness.snapshot();
    harness.cloud.break_at(0, Fault::Crash);
    for (n, name) in [(2, "second"), (3, "third")] {
        write(&harness, name, &[n; 9000]);
        harness.perform(Task::Snapshot).unwrap_err();
    }
    harness
}

#[test]
fn what_rots_before_it_is_uploaded_is_persisted_again() {
    for is_removed in [false, true] {
        let harness = with_local_snapshots();
        let before = harness.local_tarballs();
        for path in before.iter().filter(|path| !harness.is_in_cloud(path)) {
            if is_removed {
                fs::remove_file(path).unwrap();
                continue;
            }
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }
        harness.cloud.break_at(u64::MAX / 2, Fault::Error);
        // By itself, and in one go.
        let report = harness.perform(Task::Snapshot).unwrap();
        assert!(!report.uploaded.is_empty(), "{report:?}");
        assert_eq!(harness.perform(Task::Upload).unwrap().uploaded, [], "all of it is safe");
        let expected = tree(harness.fs());
        assert_eq!(harness.by_checkpoint(), expected, "nothing is lost");
        let task = Task::Evict(SpaceGoal::Everything);
        assert!(harness.perform(task).unwrap().evicted.unwrap().n_evicted >= 3);
        assert_eq!(tree(harness.fs()), expected, "all of it comes back");
        harness.check_filesystem();
    }
}

/// A manifest that is gone before its upload is made up for like a tarball, and keeps the process
/// that found it from nothing later.
#[test]
fn a_manifest_that_rots_before_it_is_uploaded_holds_up_nothing() {
    let harness = with_local_snapshots();
    for path in harness.local_objects().iter().filter(|path| !harness.is_in_cloud(path)) {
        if path.components().any(|part| part.as_os_str() == "manifests") {
            fs::remove_file(path).unwrap();
        }
    }
    harness.cloud.break_at(u64::MAX / 2, Fault::Error);
    harness.perform(Task::Snapshot).unwrap();
    assert_eq!(harness.perform(Task::Upload).unwrap().uploaded, [], "all of it is safe");
    let expected = tree(harness.fs());
    for name in ["more", "and more"] {
        write(&harness, name, &[9; 3000]);
        harness.perform(Task::Snapshot).unwrap();
        harness.perform(Task::Evict(SpaceGoal::Everything)).unwrap();
    }
    for (path, entry) in expected.into_iter().filter(|(path, _)| !path.is_empty()) {
        assert_eq!(tree(harness.fs())[&path], entry, "{path}");
    }
    harness.check_filesystem();
}

/// What was deleted or cut since is not missed.
#[test]
fn what_rots_and_is_not_wanted_any_more_holds_up_nothing() {
    let harness = with_local_snapshots();
    let fs = harness.fs();
    fs.unlink(Ino::ROOT, &file_name("second")).unwrap();
    let third = fs.lookup(Ino::ROOT, &file_name("third")).unwrap().ino;
    fs.truncate(third, 100).unwrap();
    for path in harness.local_tarballs().iter().filter(|path| !harness.is_in_cloud(path)) {
        fs::remove_file(path).unwrap();
    }
    harness.cloud.break_at(u64::MAX / 2, Fault::Error);
    let report = harness.perform(Task::Upload).unwrap();
    assert!(!report.uploaded.is_empty(), "{report:?}");
    harness.perform(Task::Snapshot).unwrap();
    let expected = tree(harness.fs());
    assert_eq!(harness.by_checkpoint(), expected);
    harness.perform(Task::Evict(SpaceGoal::Everything)).unwrap();
    assert_eq!(tree(harness.fs()), expected);
    harness.check_filesystem();
}

/// What a snapshot that was safe has lost in every copy may be looked for elsewhere first.
#[test]
fn what_was_safe_is_given_up_by_an_operator_only() {
    let harness = Harness::new();
    let ino = write(&harness, "safe", &[1; 3000]);
    harness.snapshot();
    harness.perform(Task::Evict(SpaceGoal::Everything)).unwrap();
    harness.damage_cloud();
    let error = harness.perform(Task::UploadAll).unwrap_err();
    assert!(error.kind().is_of_object(), "{error}");
    // Nothing became lost by it: whole again, the copy counts.
    harness.damage_cloud();
    harness.perform(Task::UploadAll).unwrap();
    assert_eq!(harness.fs().read(ino, 0, 9999).unwrap(), [1; 3000]);
}
