//! An archive with holes: what one copy has lost the other gives back, and what is damaged does not
//! count as safe.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Run, Store, tier};

pub(crate) fn restore(store: &Store, name: &str, args: &[&str]) -> (String, Run) {
    let (restored, key) = (store.at(name), store.at("store/identity.key"));
    let cloud = store.cloud_url();
    let base = ["restore", &restored, "--cloud", &cloud, "--identity", &key];
    let run = tier(&[&base[..], args].concat());
    (restored, run)
}

pub(crate) fn with_two_snapshots() -> Store {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/second"), "second\n".repeat(1000)).unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    store
}

pub(crate) fn manifests(store: &Store, copy: &str) -> Vec<PathBuf> {
    let mut found = store.objects(copy);
    found.retain(|path| path.extension().is_some_and(|ending| ending == "manifest"));
    found
}

pub(crate) fn flip(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

pub(crate) fn damage_found(run: &Run, what: &str) {
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert!(run.out.contains(what), "{}", run.out);
}

#[test]
fn each_copy_is_put_right_from_the_other() {
    let store = with_two_snapshots();
    flip(&store.tarballs("store")[0]);
    flip(&store.tarballs("cloud")[1]);
    fs::remove_file(&manifests(&store, "store")[1]).unwrap();
    let run = store.run("verify", &[]);
    damage_found(&run, "1 snapshots do not count as safe any more");
    let states = store.run("snapshots", &[]).ok();
    assert!(states.lines().last().unwrap().ends_with("indexed"), "{states}");
    let repaired = store.run("repair", &[]).ok();
    assert!(
        repaired.contains("2 objects put right here, 1 snapshots uploaded again"),
        "{repaired}"
    );
    store.run("verify", &["--read-data"]).ok();
    assert!(store.run("repair", &[]).ok().contains("0 objects put right here, 0 snapshots"));
    let states = store.run("snapshots", &[]).ok();
    assert!(states.lines().all(|line| line.ends_with("in the cloud")), "{states}");
}

#[test]
fn nothing_is_evicted_against_what_is_damaged() {
    let store = with_two_snapshots();
    flip(&store.tarballs("store")[1]);
    flip(&store.tarballs("cloud")[1]);
    damage_found(&store.run("verify", &[]), "do not count as safe any more");
    store.run("evict", &["--all"]);
    let listed = store.run("ls", &["/", "-l"]).ok();
    let second = listed.lines().find(|line| line.ends_with("second")).unwrap();
    assert!(second.contains(" hot "), "{listed}");
    assert_eq!(store.run("cat", &["/second"]).ok(), "second\n".repeat(1000));
    store.run("repair", &[]).ok();
    store.run("evict", &["--all"]).ok();
    let listed = store.run("ls", &["/", "-l"]).ok();
    let second = listed.lines().find(|line| line.ends_with("second")).unwrap();
    assert!(second.contains(" cold "), "{listed}");
    assert_eq!(store.run("cat", &["/second"]).ok(), "second\n".repeat(1000));
}

#[test]
fn a_store_goes_on_without_manifests_that_the_cloud_has() {
    let store = with_two_snapshots();
    store.run("evict", &["--all"]).ok();
    for manifest in manifests(&store, "store") {
        fs::remove_file(manifest).unwrap();
    }
    assert_eq!(store.run("cat", &["/hello"]).ok(), "hello\n");
    fs::write(store.at("more/third"), "third\n").unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    let old = store.at("old");
    store.run("export", &["/", &old, "--snapshot", "2"]).ok();
    assert!(!fs::exists(store.at("old/third")).unwrap());
    for how in [[].as_slice(), &["--full-scan"]] {
        store.run("index check", &[]).ok();
        store.run("index rebuild", how).ok();
    }
    damage_found(&store.run("verify", &[]), ".manifest");
    assert!(store.run("repair", &[]).ok().contains("2 objects put right here"));
    store.run("verify", &[]).ok();
}

#[test]
fn a_restore_goes_past_manifests_that_are_lost() {
    let store = with_two_snapshots();
    fs::write(store.at("more/third"), "third\n").unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    fs::remove_file(&manifests(&store, "cloud")[1]).unwrap();
    let (restored, run) = restore(&store, "restored", &[]);
    damage_found(&run, "the manifest of snapshot 2 (epoch 1): it is missing");
    for (file, content) in [("hello", "hello\n"), ("third", "third\n")] {
        assert_eq!(tier(&["cat", &restored, &format!("/{file}")]).ok(), content);
    }
    // Nothing vouches for what has the number of the lost one.
    assert_ne!(tier(&["cat", &restored, "/second"]).code, 0);
    // The first snapshot needs nothing of what came later.
    let (first, run) = restore(&store, "first", &["--snapshot", "1"]);
    run.ok();
    assert_eq!(tier(&["cat", &first, "/hello"]).ok(), "hello\n");
    // The history goes on.
    damage_found(&tier(&["takeover", &restored]), "the manifest of snapshot 2 (epoch 1)");
    tier(&["import", &restored, &store.at("more"), "--into", "/again"]).ok();
    tier(&["snapshot", &restored]).ok();
    tier(&["evict", &restored, "--all"]).ok();
    assert_eq!(tier(&["cat", &restored, "/again/third"]).ok(), "third\n");
    let (again, run) = restore(&store, "again", &[]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert_eq!(tier(&["cat", &again, "/again/third"]).ok(), "third\n");
    damage_found(&tier(&["verify", &again]), "s0000000002.manifest");
}

#[test]
fn a_restore_goes_past_tarballs_that_are_damaged_or_lost() {
    let store = with_two_snapshots();
    let path = &store.tarballs("cloud")[0];
    let whole = fs::read(path).unwrap();
    // Its tables are at the end.
    let mut cut = whole.clone();
    let end = cut.len() - 2000;
    cut[end..].fill(0);
    fs::write(path, &cut).unwrap();
    let (restored, run) = restore(&store, "restored", &[]);
    damage_found(&run, ".tar.zst.age");
    assert_eq!(tier(&["cat", &restored, "/second"]).ok(), "second\n".repeat(1000));
    let listed = tier(&["ls", &restored, "/", "-R"]).ok();
    assert!(listed.contains("hello"), "what lies before the tables is found: {listed}");
    fs::remove_file(path).unwrap();
    let (other, run) = restore(&store, "other", &[]);
    damage_found(&run, "is missing");
    assert_eq!(tier(&["cat", &other, "/second"]).ok(), "second\n".repeat(1000));
}

fn set(store: &Store, from: &str, to: &str) {
    let path = store.at("store/tier.toml");
    let settings = fs::read_to_string(&path).unwrap();
    assert!(settings.contains(from), "{settings}");
    fs::write(&path, settings.replace(from, to)).unwrap();
}

fn listed(store: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(&tier(&["snapshots", store, "--json"]).ok()).unwrap()
}

fn is_part(snapshot: &serde_json::Value) -> bool {
    snapshot["is_part"].as_bool().unwrap()
}

#[test]
fn a_long_snapshot_comes_in_parts_and_goes_on_behind_the_last_one() {
    let store = Store::new(&[]);
    set(&store, "part_bytes = 17179869184", "part_bytes = 100000");
    for n in 0..4_u8 {
        fs::write(store.tree().join(format!("extra-{n}")), vec![n; 150_000]).unwrap();
    }
    store.import();
    let mut child = crate::harness::command(&["snapshot", &store.path()]).spawn().unwrap();
    while manifests(&store, "cloud").is_empty() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let first = listed(&store.path());
    assert!(first.iter().all(is_part) || !is_part(first.last().unwrap()), "{first:?}");
    let digests = |copy: &str| {
        let read = |path: &PathBuf| (path.clone(), fs::read(path).unwrap());
        manifests(&store, copy).iter().map(read).collect::<Vec<_>>()
    };
    let before = digests("store");
    store.run("snapshot", &[]).ok();
    let all = listed(&store.path());
    assert!(all.len() > 2 && !is_part(all.last().unwrap()), "{all:?}");
    assert!(digests("store").starts_with(&before), "no part is written again");
    store.run("evict", &["--all"]).ok();
    store.check_export(&store.path(), "out");
    store.run("verify", &["--read-data"]).ok();
    store.run("index check", &[]).ok();
    let run = store.run("export", &["/", &store.at("part"), "--snapshot", "1"]);
    assert!(run.code == 1 && run.err.contains("is a part of a longer one"), "{}", run.err);
    let (restored, run) = restore(&store, "restored", &[]);
    run.ok();
    store.check_export(&restored, "out-restored");
    // Without the last one, a restore has nothing that is of one moment.
    fs::remove_file(manifests(&store, "cloud").last().unwrap()).unwrap();
    let (none, run) = restore(&store, "none", &[]);
    assert!(run.code == 1 && !fs::exists(&none).unwrap(), "{}", run.err);
    let (parts, run) = restore(&store, "parts", &["--incomplete"]);
    run.ok();
    assert_eq!(tier(&["cat", &parts, "/hello"]).ok(), "hello\n");
}
