//! Damage is told with exit code 3 and the name of the object; everything else is still readable.

use std::fs;

use crate::harness::{Store, tier};

/// A store with two tarballs, evicted: `/hello` in the first one, `/late` in the second.
fn evicted() -> Store {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/late"), "late\n".repeat(100)).unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    store
}

fn break_first_tarball(store: &Store, damage: impl Fn(&std::path::Path)) {
    for folder in ["store", "cloud"] {
        damage(&store.tarballs(folder)[0]);
    }
}

fn check(store: &Store) {
    let run = store.run("cat", &["/dir/sub/noise"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("s0000000001-p000000.tar.zst.age"), "{}", run.err);
    assert_eq!(store.run("cat", &["/late"]).ok(), "late\n".repeat(100));
    let run = store.run("verify", &[]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("s0000000001-p000000.tar.zst.age"), "{}", run.out);
}

#[test]
fn a_flipped_bit() {
    let store = evicted();
    break_first_tarball(&store, |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
    });
    check(&store);
}

#[test]
fn a_truncated_tarball() {
    let store = evicted();
    break_first_tarball(&store, |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 3]).unwrap();
    });
    check(&store);
}

#[test]
fn a_missing_tarball() {
    let store = evicted();
    break_first_tarball(&store, |path| fs::remove_file(path).unwrap());
    check(&store);
}

#[test]
fn a_detour_to_another_version() {
    let store = evicted();
    // The index of a store that never had the first snapshot's data.
    fs::remove_dir_all(store.at("store/index")).unwrap();
    for folder in ["store/tarballs", "cloud"] {
        for tarball in store.tarballs(folder) {
            fs::remove_file(tarball).unwrap();
        }
    }
    let run = store.run("cat", &["/late"]);
    assert_eq!(run.code, 3, "{}", run.err);
}

#[test]
fn a_wrong_identity() {
    let store = evicted();
    let other = store.at("other.key");
    tier(&["keygen", "-o", &other]).ok();
    let restored = store.at("restored");
    let run = tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &other]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.err.contains("cannot be decrypted with this identity"), "{}", run.err);
    let tarball = store.tarballs("cloud")[0].display().to_string();
    let run = tier(&["tarball", "ls", &tarball, "-i", &other]);
    assert_eq!(run.code, 1, "{}", run.err);
    let own = store.at("store/identity.key");
    assert!(tier(&["tarball", "cat", &tarball, "-i", &own]).ok().contains("ustar"));
}
