//! A store of which a part is missing or was put back: exit code 3, what is missing, what to do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::Store;

/// Imports a file of this name into the root.
fn import(store: &Store, name: &str) -> crate::harness::Run {
    let directory = store.at(&format!("new-{name}"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(Path::new(&directory).join(name), name.repeat(1000)).unwrap();
    store.run("import", &[&directory])
}

/// A store with `a` in its first snapshot and `b` in its second. `between` is called after the
/// first one.
fn two_snapshots(between: impl FnOnce(&Store)) -> Store {
    let store = Store::new(&[]);
    import(&store, "a").ok();
    store.run("snapshot", &[]).ok();
    between(&store);
    import(&store, "b").ok();
    store.run("snapshot", &[]).ok();
    store
}

fn newest(directory: &str, extension: &str) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|path| path.extension().is_some_and(|it| it == extension)).max();
    newest.unwrap()
}

#[test]
fn without_the_newest_segment_no_number_is_given_out_again() {
    let store = two_snapshots(|_| {});
    let segment = newest(&store.at("store/segments"), "segment");
    let content = fs::read(&segment).unwrap();
    fs::remove_file(&segment).unwrap();
    for run in [import(&store, "c"), store.run("cat", &["/b"]), store.run("fsck", &["--repair"])] {
        assert_eq!(run.code, 3, "{}", run.err);
        let file = segment.file_name().unwrap().to_str().unwrap();
        assert!(run.err.contains(file) && run.err.contains("tier restore"), "{}", run.err);
    }
    fs::write(&segment, content).unwrap();
    import(&store, "c").ok();
    for name in ["a", "b", "c"] {
        assert_eq!(store.run("cat", &[&format!("/{name}")]).ok(), name.repeat(1000));
    }
    store.run("fsck", &[]).ok();
}

#[test]
fn a_flipped_bit_in_the_write_ahead_log_undoes_nothing_silently() {
    let store = two_snapshots(|_| {});
    import(&store, "c").ok();
    let log = newest(&store.at("store/kvs"), "log");
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, &bytes).unwrap();
    for run in [store.run("ls", &["/"]), import(&store, "d"), store.run("ls", &["/"])] {
        assert_eq!(run.code, 3, "{}", run.err);
        assert!(run.err.contains("are missing") && run.err.contains("witness"), "{}", run.err);
    }
    bytes[middle] ^= 1;
    fs::write(&log, &bytes).unwrap();
    assert_eq!(store.run("cat", &["/c"]).ok(), "c".repeat(1000), "the log was left as it was");
}

#[test]
fn a_store_that_is_behind_its_archive_is_read_and_not_written() {
    let parts = ["kvs", "segments", "witness"];
    let store = two_snapshots(|store| {
        for part in parts {
            copy(&store.at(&format!("store/{part}")), &store.at(&format!("old/{part}")));
        }
    });
    for part in parts {
        let path = store.at(&format!("store/{part}"));
        if Path::new(&path).is_dir() {
            fs::remove_dir_all(&path).unwrap();
        }
        copy(&store.at(&format!("old/{part}")), &path);
    }
    fs::create_dir(store.at("mnt")).unwrap();
    let last_xid = || {
        let status: serde_json::Value =
            serde_json::from_str(&store.run("status", &["--json"]).ok()).unwrap();
        status["last_xid"].as_u64().unwrap()
    };
    let before = last_xid();
    let refused = [
        import(&store, "c"),
        store.run("snapshot", &[]),
        store.run("evict", &["--all"]),
        store.run("pin", &["/a"]),
        store.run("fsck", &["--repair"]),
        store.run("mount", &[&store.at("mnt")]),
    ];
    for run in refused {
        assert_eq!(run.code, 3, "{}", run.err);
        let says = ["its archive", "tier restore"].iter().all(|text| run.err.contains(text));
        assert!(says, "{}", run.err);
    }
    assert_eq!(store.run("cat", &["/a"]).ok(), "a".repeat(1000));
    assert_eq!(last_xid(), before);
    // The archive has what the store lost.
    let (restored, identity) = (store.at("restored"), store.at("store/identity.key"));
    let cloud = store.cloud_url();
    crate::harness::tier(&["restore", &restored, "--cloud", &cloud, "--identity", &identity]).ok();
    assert_eq!(crate::harness::tier(&["cat", &restored, "/b"]).ok(), "b".repeat(1000));
}

fn copy(from: &str, to: &str) {
    fs::create_dir_all(Path::new(to).parent().unwrap()).unwrap();
    if !Path::new(from).is_dir() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), Path::new(to).join(entry.file_name())).unwrap();
    }
}
