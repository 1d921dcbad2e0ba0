//! What a store does not do.

use std::fs;

use tier_persist::Keys;
use tier_status::NullSink;
use tier_store::{
    Filesystem, Layout, NewStore, OpenMode, RestoreSource, Store, StoreDir, StoreError,
    new_identity, restore,
};
use tier_types::{ErrorKind, HasKind, SystemClock};

use crate::harness::{Restored, World};

#[test]
fn two_processes_never_have_it_open() {
    let world = World::new();
    let _held = StoreDir::open(&world.path("store")).unwrap();
    let second = StoreDir::open(&world.path("store")).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Busy);
    assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
}

#[test]
fn a_directory_with_something_in_it_becomes_no_store() {
    let world = World::new();
    let path = world.path("taken");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "content").unwrap();
    let refused = NewStore::default().prepare(&path).unwrap_err();
    assert!(matches!(refused, StoreError::NotEmpty(_)), "{refused}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was made in it");
    let error = StoreDir::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{error}");
}

#[test]
fn a_filesystem_with_other_chunks_is_refused() {
    let world = World::new();
    let ports = world.with_files(&[("a", b"b")]).ports();
    let other = Filesystem { chunk_bytes: ports.chunk_bytes * 2, ..ports };
    let dir = StoreDir::open(&world.path("store")).unwrap();
    let error = Store::open(dir, other, std::sync::Arc::new(NullSink), OpenMode::Current);
    let error = error.unwrap_err();
    assert!(error.to_string().contains("chunk_bytes"), "{error}");
}

#[test]
fn a_restore_that_cannot_be_leaves_nothing_behind() {
    let world = World::new();
    let identity = Layout::new(&world.path("store")).identity();
    let empty = RestoreSource::new(world.cloud(), &identity);
    let new = world.path("new");
    let nothing = restore(&new, &empty, &mut Restored::default(), &mut |_| {}).unwrap_err();
    assert!(nothing.to_string().contains("no filesystem"), "{nothing}");
    let opened = world.with_files(&[("a", b"b")]);
    opened.perform(tier_agent::Task::Snapshot);
    let foreign = world.path("foreign.key");
    new_identity(&foreign, &Keys::generate().unwrap(), &SystemClock).unwrap();
    let source = RestoreSource { identity: foreign, ..empty };
    let error = restore(&new, &source, &mut Restored::default(), &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey, "{error}");
    assert!(!new.exists());
}
