//! A directory as an object store.

use tier_cloud::DirStore;
use tier_testkit::contract::{check_object_store, check_staging_store};
use tier_types::{Call, ErrorKind, ObjectName, ObjectStore, StagingStore};

#[test]
fn a_directory_keeps_the_contracts() {
    let dir = tempfile::tempdir().unwrap();
    check_object_store(&DirStore::create(&dir.path().join("objects")).unwrap());
    check_staging_store(&DirStore::create(&dir.path().join("staged")).unwrap());
}

#[test]
fn what_a_crash_left_is_no_object_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::create(dir.path()).unwrap();
    std::fs::write(dir.path().join("half.1-1.tmp"), b"half").unwrap();
    assert_eq!(store.names(&Call::bulk(), "").unwrap(), []);
    store.discard_staged().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A disk that is not mounted.
#[test]
fn a_root_that_is_not_there_is_away_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mnt/objects");
    let (store, call) = (DirStore::at(&root), Call::bulk());
    let name = ObjectName::new("x/a").unwrap();
    let content = &&b"bytes"[..];
    let answers = [
        store.put(&call, &name, content),
        store.create(&call, &name, content).map(drop),
        store.metadata(&call, &name).map(drop),
        store.read_range(&call, &name, 0, &mut [0]),
        store.stream(&call, &name, 0, &mut |_| Ok(())),
        store.list(&call, "", None).map(drop),
        store.delete(&call, &name, None),
        store.stage(&name).map(drop),
    ];
    for answer in answers {
        let error = answer.expect_err("the directory is not there");
        assert_eq!(error.kind(), ErrorKind::Away, "{error}");
        assert!(error.to_string().contains("is its disk mounted?"), "{error}");
    }
    assert!(!dir.path().join("mnt").exists(), "nothing was made");
}

#[test]
fn what_is_no_object_stops_no_listing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, call) = (DirStore::create(dir.path()).unwrap(), Call::bulk());
    let name = ObjectName::new("x/a").unwrap();
    store.put(&call, &name, &&b"bytes"[..]).unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::write(dir.path().join("lost+found/a"), b"").unwrap();
    std::fs::write(dir.path().join("a file of another program"), b"").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
    std::os::unix::fs::symlink(".", dir.path().join("x/circle")).unwrap();
    assert_eq!(store.names(&call, "").unwrap(), [name]);
}
