//! The capacity of a store, as an operator meets it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tier_testkit::noise;

use crate::harness::{Store, tier};

const CAPACITY_BYTES: u64 = 60_000_000;

/// Bytes that a directory takes on the disk.
fn disk_bytes(directory: &str) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1", directory]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

/// What a store may take, and how many files of 4 MB are to go into it.
struct Sizes {
    capacity_bytes: u64,
    n_files: u64,
}

/// Twice as much as the store may take.
const SMALL: Sizes = Sizes { capacity_bytes: CAPACITY_BYTES, n_files: 30 };

impl Sizes {
    fn setting(&self) -> String {
        format!("capacity_bytes = {}", self.capacity_bytes)
    }
}

/// Gives a store a capacity.
fn limit(store: &Store, sizes: &Sizes) {
    let config = Path::new(&store.path()).join("tier.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("capacity_bytes = 0", &sizes.setting());
    assert!(text.contains(&sizes.setting()), "{text}");
    fs::write(&config, text).unwrap();
}

/// Gives a store a capacity, and makes a tree for it.
fn small_store(store: &Store, sizes: &Sizes) -> String {
    limit(store, sizes);
    let tree = store.at("large");
    fs::create_dir(&tree).unwrap();
    for file in 0..sizes.n_files {
        let name = Path::new(&tree).join(format!("f{file:03}"));
        fs::write(name, noise(4_000_000, file)).unwrap();
    }
    tree
}

/// Everything that was imported comes out again.
fn check_export(store: &Store, tree: &str, sizes: &Sizes) {
    let out = store.at("out");
    tier(&["export", &store.path(), "/", &out]).ok();
    for file in 0..sizes.n_files {
        let name = format!("f{file:03}");
        let (was, is) = (Path::new(tree).join(&name), Path::new(&out).join(&name));
        assert!(fs::read(was).unwrap() == fs::read(is).unwrap(), "{name}");
    }
}

/// A tree that is larger than its store goes to the cloud as it comes.
#[test]
fn an_import_that_finds_no_room_tiers_itself_out() {
    let store = Store::new(&[]);
    // A part with its largest file fits into the reserve.
    let sizes = Sizes { capacity_bytes: 400_000_000, n_files: 200 };
    let tree = small_store(&store, &sizes);
    let run = store.run("import", &["--jobs", "2", &tree]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.err.contains("the store is full: what came so far goes to the cloud"),
        "{}",
        run.err
    );
    let status: Value =
        serde_json::from_str(&tier(&["status", &store.path(), "--json"]).ok()).unwrap();
    assert!(number(&status, "used_bytes") <= sizes.capacity_bytes / 20 * 19, "{status}");
    check_export(&store, &tree, &sizes);
}

/// A file that is larger than what is free beside it goes up as it is persisted. Without the cloud
/// it waits for that, and not for an operator to make room.
#[test]
fn what_has_room_with_the_cloud_alone_waits_for_the_cloud() {
    let store = Store::new(&[]);
    store.run("snapshot", &[]).ok();
    limit(&store, &SMALL);
    let tree = store.at("large");
    fs::create_dir(&tree).unwrap();
    fs::write(Path::new(&tree).join("file"), noise(50_000_000, 7)).unwrap();
    store.run("import", &[&tree]).ok();
    let (cloud, elsewhere) = (store.at("cloud"), store.at("elsewhere"));
    fs::rename(&cloud, &elsewhere).unwrap();
    let run = store.run("snapshot", &[]);
    assert_ne!(run.code, 0);
    assert!(run.err.contains("no room to persist while the cloud is away"), "{}", run.err);
    assert!(run.err.contains("is its disk mounted?"), "{}", run.err);
    fs::rename(&elsewhere, &cloud).unwrap();
    store.run("snapshot", &[]).ok();
}

#[test]
fn a_store_stays_within_its_capacity_and_says_what_to_do() {
    let store = Store::without_cloud();
    let config = Path::new(&store.path()).join("tier.toml");
    let tree = small_store(&store, &SMALL);
    let run = store.run("import", &[&tree]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.err.contains("the store is full"), "{}", run.err);
    assert!(run.err.contains("space.capacity_bytes"), "{}", run.err);
    // A write buffer is on its way from memory to the disk at most.
    // The ballast is there where the disk below is nearly full, and is room that is kept.
    let ballast = Path::new(&store.path()).join("ballast");
    let kept = fs::metadata(ballast).map_or(0, |metadata| metadata.len());
    let taken = disk_bytes(&store.path()) - kept;
    assert!(taken <= CAPACITY_BYTES + (8 << 20), "{taken}");
    assert!(taken >= CAPACITY_BYTES / 2, "it was refused too early: {taken}");
    let status: Value =
        serde_json::from_str(&tier(&["status", &store.path(), "--json"]).ok()).unwrap();
    assert_eq!(number(&status, "limit_bytes"), CAPACITY_BYTES / 20 * 19);
    assert!(number(&status, "used_bytes") >= CAPACITY_BYTES / 2, "{status}");
    let shown = tier(&["status", &store.path()]).ok();
    assert!(shown.contains("space "), "{shown}");
    // With more capacity it goes on where it was.
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(&SMALL.setting(), "capacity_bytes = 0")).unwrap();
    store.run("import", &[&tree]).ok();
    check_export(&store, &tree, &SMALL);
}
