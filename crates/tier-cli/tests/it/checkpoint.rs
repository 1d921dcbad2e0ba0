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

/// The objects of a kind in the cloud that a step wrote.
fn objects(store: &Store, step: u64, ending: &str) -> Vec<std::path::PathBuf> {
    let mut objects = store.objects("cloud");
    let of_step = format!("/s{step:010}-");
    objects.retain(|path| {
        let path = path.to_string_lossy();
        path.contains(&of_step) && path.contains(ending)
    });
    assert!(!objects.is_empty(), "{ending} of step {step}");
    objects
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_restore_goes_past_a_checkpoint_that_is_damaged() {
    let store = store();
    let key = store.at("store/identity.key");
    for (name, ending) in [("steps", ".steps"), ("inodes", ".inodes")] {
        let object = objects(&store, 8, ending).remove(0);
        let whole = fs::read(&object).unwrap();
        fs::remove_file(&object).unwrap();
        let restored = store.at(name);
        let run = tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &key]);
        assert_eq!(run.code, 3, "{}{}", run.out, run.err);
        assert!(run.out.contains("s0000000008.manifest"), "{}", run.out);
        check(&store, &restored, &format!("out-{name}"));
        assert_eq!(tier(&["cat", &restored, "/more/file"]).ok(), "2\n".repeat(1000));
        fs::write(object, whole).unwrap();
        tier(&["verify", &restored]).ok();
    }
    // And past a manifest that only an older restore needs.
    let manifest = store
        .objects("cloud")
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with("s0000000003.manifest"));
    fs::remove_file(manifest.unwrap()).unwrap();
    restore(&store, "newest", &[]);
    flip(&objects(&store, 4, ".inodes")[0]);
    let old = store.at("old");
    let cloud = store.cloud_url();
    let args = ["restore", &old, "--cloud", &cloud, "--identity", &key, "--snapshot", "5"];
    let run = tier(&args);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert_eq!(tier(&["cat", &old, "/more/file"]).ok(), "1\n".repeat(1000));
}

#[test]
fn a_missing_tarball_is_told_by_a_restore_from_a_checkpoint() {
    let store = store();
    let tarball = objects(&store, 1, ".tar").remove(0);
    fs::remove_file(&tarball).unwrap();
    let (restored, key) = (store.at("restored"), store.at("store/identity.key"));
    let run = tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &key]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert!(run.out.contains("it is missing"), "{}", run.out);
    assert_eq!(tier(&["cat", &restored, "/more/file"]).ok(), "2\n".repeat(1000));
}

#[test]
fn no_checkpoint_vouches_for_a_snapshot_whose_log_was_moved_away() {
    let store = store();
    let logs = files(&store.at("store/status"), ".status");
    fs::remove_file(store.at(&format!("store/status/{}", logs[0]))).unwrap();
    let states = states(&store.path());
    assert_eq!((states[0].2.as_str(), states[2].2.as_str()), ("indexed", "in the cloud"));
    // An index that is made anew has no mark, and goes by the logs.
    store.run("index rebuild", &[]).ok();
    let pushed = store.run("push", &[]).ok();
    assert!(pushed.starts_with("1 snapshots"), "{pushed}");
}

#[test]
fn all_is_compared_again_also_what_came_before_a_restore() {
    let store = store();
    let restored = restore(&store, "restored", &[]);
    tier(&["takeover", &restored]).ok();
    tier(&["push", &restored, "--all"]).ok();
    tier(&["verify", &restored]).ok();
    flip(&objects(&store, 1, ".tar")[0]);
    let run = tier(&["push", &restored, "--all"]);
    assert_ne!(run.code, 0, "{}", run.out);
    let states = states(&restored);
    assert_ne!(states[0].2, "in the cloud", "{states:?}");
}

#[test]
fn a_damaged_object_of_a_checkpoint_holds_nothing_up() {
    let store = store();
    let restored = restore(&store, "restored", &[]);
    tier(&["takeover", &restored]).ok();
    flip(&objects(&store, 8, ".inodes")[0]);
    let run = tier(&["verify", &restored]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    let tree = store.tree().display().to_string();
    tier(&["import", &restored, &tree, "--into", "/again"]).ok();
    tier(&["snapshot", &restored]).ok();
    tier(&["evict", &restored, "--all"]).ok();
    let listed = tier(&["ls", &restored, "/again", "-l"]).ok();
    assert!(listed.lines().any(|line| line.contains(" cold ")), "{listed}");
    check(&store, &restored, "out");
    tier(&["verify", &restored]).ok();
}
