//! A directory as an object store.

use tier_cloud::DirStore;
use tier_testkit::contract::{check_object_store, check_staging_store};
use tier_types::{ObjectStore, StagingStore};

#[test]
fn a_directory_keeps_the_contracts() {
    let dir = tempfile::tempdir().unwrap();
    check_object_store(&DirStore::open(&dir.path().join("objects")).unwrap());
    check_staging_store(&DirStore::open(&dir.path().join("staged")).unwrap());
}

#[test]
fn what_a_crash_left_is_no_object_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("half.1-1.tmp"), b"half").unwrap();
    assert_eq!(store.list("").unwrap(), []);
    store.discard_staged().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
