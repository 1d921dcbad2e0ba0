//! The contract of object stores.

use std::sync::Arc;

use tier_persist::LocalStore;
use tier_testkit::{Fault, FaultyStore, MemoryStore, check_object_store};
use tier_types::{ObjectName, ObjectStore};

#[test]
fn a_folder_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    check_object_store(&LocalStore::open(dir.path()).unwrap());
}

#[test]
fn the_fake_keeps_the_contract() {
    check_object_store(&MemoryStore::default());
    check_object_store(&FaultyStore::new(Arc::new(MemoryStore::default())));
}

#[test]
fn a_faulty_store_breaks_where_it_was_told() {
    let store = FaultyStore::new(Arc::new(MemoryStore::default()));
    let name = ObjectName::new("a").unwrap();
    store.break_at(1, Fault::Crash);
    store.put(&name, 1, &mut &b"x"[..]).unwrap();
    store.len_bytes(&name).unwrap_err();
    store.len_bytes(&name).unwrap_err();
    assert_eq!(store.broken().unwrap(), "Crash in operation 1, len a");
    store.break_at(0, Fault::FlippedBit);
    let mut buffer = [0];
    store.read_range(&name, 0, &mut buffer).unwrap();
    assert_eq!(buffer, [b'x' ^ 1]);
}

#[test]
fn what_a_crash_left_is_no_object_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("half.1-1.tmp"), b"half").unwrap();
    assert_eq!(store.list("").unwrap(), []);
    store.remove_temporaries().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
