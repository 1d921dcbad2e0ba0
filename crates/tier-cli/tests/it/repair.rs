//! A store whose key-value store was damaged is put right, and what was put right is archived.

use std::fs;
use std::path::PathBuf;

use rocksdb::{DB, IteratorMode, Options};

use crate::harness::{Store, assert_same, tier};
use crate::mount::Mounted;

fn tamper(store: &Store, change: impl FnOnce(&DB)) {
    let path = store.at("store/kvs");
    let tables = DB::list_cf(&Options::default(), &path).unwrap();
    change(&DB::open_cf(&Options::default(), &path, tables).unwrap());
}

/// Deletes all rows of a table that end so.
fn delete(db: &DB, table: &str, end: &[u8]) {
    let table = db.cf_handle(table).unwrap();
    let rows: Vec<_> = db.iterator_cf(table, IteratorMode::Start).map(Result::unwrap).collect();
    let wanted: Vec<_> = rows.iter().filter(|(key, _)| key.ends_with(end)).collect();
    assert!(!wanted.is_empty());
    for (key, _) in wanted {
        db.delete_cf(table, key).unwrap();
    }
}

#[test]
fn a_damaged_filesystem_is_put_right_and_archived() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    tamper(&store, |db| {
        // Every first chunk: what is not a second one of a large file.
        delete(db, "chunks", &0_u64.to_be_bytes());
        delete(db, "entries", b"hello");
        delete(db, "entries", b"text");
        delete(db, "links", b"text");
        delete(db, "cookies", b"");
        delete(db, "resident", b"");
    });
    let found = store.run("fsck", &[]);
    assert_eq!(found.code, 3, "{}", found.err);
    assert!(found.out.contains("have neither data nor detour"), "{}", found.out);
    assert!(!found.out.contains("repaired"), "{}", found.out);
    assert_ne!(store.run("cat", &["/dir/hard"]).code, 0);

    let said = store.run("fsck", &["--repair"]).ok();
    assert!(said.contains("repaired: inode"), "{said}");
    assert!(said.contains(" 0 contradictions left, "), "{said}");
    store.run("fsck", &[]).ok();
    assert_eq!(store.run("fsck", &["--repair"]).ok().matches("repaired: ").count(), 0);

    // All is there again: data from the archive, and what has lost its name in a place of its own.
    assert_eq!(store.run("cat", &["/hello"]).ok(), "hello\n");
    let list = store.run("ls", &["/lost+found"]).ok();
    let name = list.lines().find(|line| line.starts_with('#')).unwrap();
    let out = PathBuf::from(store.at("out"));
    store.run("export", &["/", &store.at("out")]).ok();
    fs::rename(out.join("lost+found").join(name), out.join("dir/text")).unwrap();
    fs::remove_dir(out.join("lost+found")).unwrap();
    assert_same(&store.tree(), &out);

    // What the repair changed is in the next snapshot.
    store.run("snapshot", &[]).ok();
    store.run("index check", &[]).ok();
    let (restored, key) = (store.at("restored"), store.at("store/identity.key"));
    tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &key]).ok();
    tier(&["fsck", &restored]).ok();
    let names = |path: &str| {
        let list = tier(&["ls", path, "/", "-R"]).ok();
        let mut names: Vec<_> = list.lines().map(str::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(names(&restored), names(&store.path()));
}

#[test]
fn an_interrupted_repair_is_to_be_finished_first() {
    let store = Store::new(&[]);
    store.import();
    tamper(&store, |db| db.put_cf(db.cf_handle("meta").unwrap(), "repairing", "").unwrap());
    for command in ["ls", "snapshot"] {
        let run = store.run(command, &["/"][..usize::from(command == "ls")]);
        assert_eq!(run.code, 3, "{}", run.err);
        assert!(run.err.contains("--repair"), "{}", run.err);
    }
    store.run("fsck", &[]).ok();
    store.run("fsck", &["--repair"]).ok();
    store.run("snapshot", &[]).ok();
}

#[test]
fn a_mounted_store_is_not_repaired() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    store.run("fsck", &[]).ok();
    let refused = store.run("fsck", &["--repair"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("unmount it first"), "{}", refused.err);
    mounted.unmount();
    store.run("fsck", &["--repair"]).ok();
}
