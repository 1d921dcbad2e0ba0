//! Cases that a random workload seldom meets.

use kvfs::ops::EntryRef;
use tier_agent::Task;
use tier_testkit::Fault;
use tier_types::{ErrorKind, FileKind, Ino, InstanceView};

use crate::harness::{CHUNK, Harness, file_name, node, tree};

fn make(harness: &Harness, name: &str, content: &[u8]) -> Ino {
    let fs = harness.fs();
    let attr = fs.create_node(Ino::ROOT, &file_name(name), &node(FileKind::Regular, 0o644));
    let ino = attr.unwrap().ino;
    fs.write(ino, 0, content).unwrap();
    ino
}

#[test]
fn a_file_that_was_evicted_and_changed_comes_back_exactly_so_at_every_snapshot() {
    let harness = Harness::new();
    let ino = make(&harness, "f", &[1; 5000]);
    let mut trees = Vec::new();
    let mut snapshot = |harness: &Harness| {
        trees.push((harness.snapshot().unwrap(), tree(harness.fs())));
        harness.evict();
    };
    snapshot(&harness);
    harness.fs().truncate(ino, 1300).unwrap();
    harness.fs().truncate(ino, 9000).unwrap();
    snapshot(&harness);
    harness.fs().punch_hole(ino, 100, 900).unwrap();
    snapshot(&harness);
    let (from, to) = (file_name("f"), file_name("g"));
    let mode = kvfs::ops::RenameMode::Replace;
    let (from, to) = (EntryRef::new(Ino::ROOT, &from), EntryRef::new(Ino::ROOT, &to));
    harness.fs().rename(from, to, mode).unwrap();
    harness.fs().write(ino, 1290, &[7; 20]).unwrap();
    snapshot(&harness);
    for (snapshot, tree) in trees {
        assert_eq!(harness.restored_tree(Some(snapshot)), tree, "at {snapshot}");
    }
    harness.check_index();
}

#[test]
fn what_an_operation_does_not_need_is_not_recalled() {
    let harness = Harness::new();
    let ino = make(&harness, "f", &[1; 8 * CHUNK as usize]);
    harness.snapshot().unwrap();
    harness.evict();
    let resident = || harness.fs().resident_bytes(ino).unwrap() / u64::from(CHUNK);
    assert_eq!(resident(), 0);
    harness.fs().write(ino, 0, &[2; 2 * CHUNK as usize]).unwrap();
    assert_eq!(resident(), 2, "whole chunks were overwritten");
    harness.fs().truncate(ino, 4 * u64::from(CHUNK)).unwrap();
    harness.fs().punch_hole(ino, 2 * u64::from(CHUNK), u64::from(CHUNK)).unwrap();
    assert_eq!(resident(), 2);
    harness.fs().truncate(ino, 0).unwrap();
    assert_eq!(harness.fs().resident_bytes(ino).unwrap(), 0);
    assert_eq!(harness.fs().usage().unwrap().cold_bytes, 0);
    harness.check_filesystem();
}

#[test]
fn a_file_without_a_name_is_persisted_and_can_be_linked_later() {
    let harness = Harness::new();
    let (attr, handle) = harness.fs().create_unnamed(&node(FileKind::Regular, 0o600)).unwrap();
    harness.fs().write(attr.ino, 0, b"unnamed").unwrap();
    let before = harness.snapshot().unwrap();
    harness.evict();
    harness.fs().link(attr.ino, Ino::ROOT, &file_name("named")).unwrap();
    drop(handle);
    let after = harness.snapshot().unwrap();
    assert!(!harness.restored_tree(Some(before)).contains_key("/named"));
    let restored = harness.restored_tree(Some(after));
    assert_eq!(restored["/named"].content.as_deref(), Some(&b"unnamed"[..]));
    assert_eq!(harness.fs().read(attr.ino, 0, 100).unwrap(), b"unnamed");
}

#[test]
fn a_file_that_is_deleted_while_open_lives_until_it_is_closed() {
    let mut harness = Harness::new();
    let ino = make(&harness, "f", &[3; 3000]);
    let handle = harness.fs().open_handle(ino).unwrap();
    harness.fs().unlink(Ino::ROOT, &file_name("f")).unwrap();
    harness.snapshot().unwrap();
    harness.evict();
    assert_eq!(harness.fs().read(ino, 0, 9999).unwrap(), [3; 3000]);
    drop(handle);
    assert!(harness.fs().getattr(ino).is_err());
    let gone = harness.snapshot().unwrap();
    assert_eq!(harness.restored_tree(Some(gone)), tree(harness.fs()));
    // The same, but the process ends with the file open.
    let other = make(&harness, "g", &[4; 3000]);
    let handle = harness.fs().open_handle(other).unwrap();
    harness.fs().unlink(Ino::ROOT, &file_name("g")).unwrap();
    harness.snapshot().unwrap();
    std::mem::forget(handle);
    harness.leak_and_reopen();
    while harness.fs().reap(1000).unwrap() {}
    assert!(harness.fs().getattr(other).is_err());
}

/// The task fails at the upload and never comes to the eviction; that an eviction itself takes
/// nothing that is not safe is tested stage by stage (`stages.rs`).
#[test]
fn a_task_does_not_begin_to_evict_while_an_upload_fails() {
    let harness = Harness::new();
    let ino = make(&harness, "f", &[5; 4000]);
    harness.cloud.break_at(0, Fault::Crash);
    harness.perform(Task::Snapshot).unwrap_err();
    let resident = harness.fs().usage().unwrap().resident_bytes;
    harness.evict_without_cloud();
    assert_eq!(harness.fs().usage().unwrap().resident_bytes, resident);
    harness.perform(Task::Upload).unwrap();
    harness.evict();
    assert_eq!(harness.fs().resident_bytes(ino).unwrap(), 0);
}

#[test]
fn damage_is_an_error_that_names_the_tarball_and_the_other_copy_helps() {
    let mut harness = Harness::new();
    let ino = make(&harness, "f", &(0..4000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    let whole = harness.fs().read(ino, 0, 4000).unwrap();
    harness.snapshot().unwrap();
    harness.evict();
    let flip = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() / 4;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    for path in harness.local_tarballs() {
        flip(&path);
    }
    harness.reopen();
    assert_eq!(harness.fs().read(ino, 0, 4000).unwrap(), whole, "the cloud has a good copy");
    harness.evict();
    harness.damage_cloud();
    harness.reopen();
    let error = harness.fs().read(ino, 0, 4000).unwrap_err();
    let kvfs::FsError::Recall { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::Damaged);
    assert!(source.to_string().contains("s0000000001-p000000"), "{source}");
}
