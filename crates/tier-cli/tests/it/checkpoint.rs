//! Stores with checkpoints, and stores that are restored by them and live on.

use std::fs;
use std::path::Path;

use crate::harness::{Store, assert_same, tier};

/// With a checkpoint behind each snapshot.
fn store() -> Store {
    let store = Store::new(&[]);
    let path = store.at("store/tier.toml");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("checkpoint_bytes = 16777216", "checkpoint_bytes = 1");
    assert_ne!(text, changed);
    fs::write(path, changed).unwrap();
    store.run("import", &[&store.tree().display().to_string(), "--into", "/tree"]).ok();
    store.run("snapshot", &[]).ok();
    for n in 0..3 {
        fs::create_dir_all(store.at("more")).unwrap();
        fs::write(store.at("more/file"), format!("{n}\n").repeat(1000)).unwrap();
        store.run("import", &[&store.at("more"), "--into", "/more"]).ok();
        store.run("snapshot", &[]).ok();
    }
    store
}

fn restore(store: &Store, name: &str, args: &[&str]) -> String {
    let (restored, key) = (store.at(name), store.at("store/identity.key"));
    let cloud = store.cloud_url();
    let base = ["restore", &restored, "--cloud", &cloud, "--identity", &key];
    tier(&[&base[..], args].concat()).ok();
    restored
}

/// Compares the tree in a store with that of the host.
fn check(store: &Store, path: &str, name: &str) {
    let out = store.at(name);
    tier(&["export", path, "/tree", &out]).ok();
    assert_same(&store.tree(), Path::new(&out));
}

fn files(directory: &str, ending: &str) -> Vec<String> {
    let listed = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = listed.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort_unstable();
    names
}

fn manifests(store: &str) -> Vec<String> {
    let archive = fs::read_dir(format!("{store}/tarballs")).unwrap().next().unwrap().unwrap();
    files(archive.path().join("manifests").to_str().unwrap(), ".manifest")
}

fn states(store: &str) -> Vec<(u64, String, String)> {
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&tier(&["snapshots", store, "--json"]).ok()).unwrap();
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_string();
    let states = rows
        .iter()
        .map(|row| (row["snapshot"].as_u64().unwrap(), text(row, "kind"), text(row, "state")));
    states.collect()
}

#[test]
fn a_store_that_was_restored_by_a_checkpoint_lives_on() {
    let store = store();
    let kinds: Vec<_> = states(&store.path()).into_iter().map(|(_, kind, _)| kind).collect();
    assert_eq!(kinds, ["snapshot", "checkpoint"].repeat(4));
    store.run("index check", &[]).ok();
    store.run("verify", &["--read-data"]).ok();
    let restored = restore(&store, "restored", &[]);
    assert_eq!(manifests(&restored), ["e00000001-s0000000008.manifest"]);
    assert_eq!(files(&format!("{restored}/status"), ".status").len(), 1);
    assert_eq!(tier(&["cat", &restored, "/more/file"]).ok(), "2\n".repeat(1000));
    check(&store, &restored, "out");
    let all: Vec<_> = states(&restored).into_iter().map(|(_, _, state)| state).collect();
    assert_eq!(all, ["in the cloud"; 8]);
    tier(&["index", "check", &restored]).ok();
    tier(&["verify", &restored, "--read-data"]).ok();
    tier(&["fsck", &restored]).ok();
    // It becomes the writer, and its own snapshots go on from there.
    tier(&["takeover", &restored]).ok();
    let tree = store.tree().display().to_string();
    tier(&["import", &restored, &tree, "--into", "/again"]).ok();
    tier(&["snapshot", &restored]).ok();
    tier(&["evict", &restored, "--all"]).ok();
    assert_eq!(tier(&["cat", &restored, "/again/hello"]).ok(), "hello\n");
    for args in [&[][..], &["--tables"], &["--full-scan"]] {
        tier(&[&["index", "rebuild", &restored], args].concat()).ok();
        tier(&["verify", &restored]).ok();
        // What is safe is found again: nothing is uploaded a second time.
        let pushed = tier(&["push", &restored]).ok();
        assert!(pushed.starts_with("0 snapshots"), "{pushed}");
    }
    let second = restore(&store, "second", &[]);
    check(&store, &second, "out-second");
    assert_eq!(tier(&["cat", &second, "/again/hello"]).ok(), "hello\n");
}

#[test]
fn an_old_snapshot_is_restored_past_later_checkpoints() {
    let store = store();
    let restored = restore(&store, "old", &["--snapshot", "3"]);
    assert_eq!(tier(&["cat", &restored, "/more/file"]).ok(), "0\n".repeat(1000));
    store.run("export", &["/more", &store.at("export"), "--snapshot", "5"]).ok();
    assert_eq!(fs::read_to_string(store.at("export/file")).unwrap(), "1\n".repeat(1000));
    // The checkpoint of that moment is a state like the snapshot that it follows.
    let restored = restore(&store, "at-checkpoint", &["--snapshot", "4"]);
    assert_eq!(tier(&["cat", &restored, "/more/file"]).ok(), "0\n".repeat(1000));
}

#[test]
fn another_cloud_is_filled_by_a_store_that_was_restored_by_a_checkpoint() {
    let store = store();
    let restored = restore(&store, "restored", &[]);
    tier(&["takeover", &restored]).ok();
    let other = store.at("other");
    fs::create_dir(&other).unwrap();
    tier(&["cloud", "add", &restored, &format!("file://{other}")]).ok();
    tier(&["push", &restored, "--all"]).ok();
    fs::remove_dir_all(store.at("cloud")).unwrap();
    let key = store.at("store/identity.key");
    let second = store.at("second");
    let cloud = format!("file://{other}");
    tier(&["restore", &second, "--cloud", &cloud, "--identity", &key]).ok();
    check(&store, &second, "out");
    tier(&[
        "restore",
        &store.at("first"),
        "--cloud",
        &cloud,
        "--identity",
        &key,
        "--snapshot",
        "1",
    ])
    .ok();
    tier(&["verify", &second, "--read-data"]).ok();
}
