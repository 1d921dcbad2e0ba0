//! What `tier repair` does where no copy of the archive has all of it.

use std::fs;

use crate::archive::{damage_found, flip, manifests, restore, with_two_snapshots};
use crate::harness::{Store, tier};

fn remove_everywhere(store: &Store, path: &std::path::Path) {
    let name = path.file_name().unwrap();
    for copy in ["store", "cloud"] {
        let mut copies = store.objects(copy);
        copies.retain(|copy| copy.file_name() == Some(name));
        assert_eq!(copies.len(), 1, "{}", path.display());
        fs::remove_file(&copies[0]).unwrap();
    }
}

/// Everything is safe and whole, here and in a restore.
fn is_whole(store: &Store, name: &str) {
    store.run("verify", &["--read-data"]).ok();
    let pushed = store.run("push", &[]).ok();
    assert!(pushed.starts_with("0 snapshots"), "{pushed}");
    store.run("evict", &["--all"]).ok();
    assert_eq!(tier(&["cat", &store.path(), "/second"]).ok(), "second\n".repeat(1000));
    assert_eq!(tier(&["cat", &store.path(), "/hello"]).ok(), "hello\n");
    let (restored, run) = restore(store, name, &[]);
    run.ok();
    assert_eq!(tier(&["cat", &restored, "/second"]).ok(), "second\n".repeat(1000));
    assert_eq!(tier(&["cat", &restored, "/hello"]).ok(), "hello\n");
    store.run("index rebuild", &[]).ok();
    store.run("verify", &[]).ok();
    assert!(store.run("push", &[]).ok().starts_with("0 snapshots"));
}

#[test]
fn what_no_copy_has_is_persisted_again_from_the_filesystem() {
    let store = with_two_snapshots();
    remove_everywhere(&store, &store.tarballs("store")[0]);
    damage_found(&store.run("verify", &[]), "1 snapshots do not count as safe");
    let run = store.run("snapshot", &[]);
    assert_eq!(run.code, 3, "an upload cannot go past it: {}", run.err);
    let repaired = store.run("repair", &[]).ok();
    assert!(repaired.contains("snapshot 1: no copy had all of it; persisted again"), "{repaired}");
    is_whole(&store, "restored");
}

#[test]
fn a_manifest_that_no_copy_has_is_done_without() {
    let store = with_two_snapshots();
    remove_everywhere(&store, &manifests(&store, "store")[0]);
    damage_found(&store.run("verify", &[]), "1 snapshots do not count as safe");
    let repaired = store.run("repair", &[]).ok();
    assert!(repaired.contains("snapshot 1: no copy had all of it; persisted again"), "{repaired}");
    is_whole(&store, "restored");
    // What is in neither copy is known to be, and nothing else is lost with it.
    store.run("repair", &[]).ok();
    fs::write(store.at("more/third"), "third\n").unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    is_whole(&store, "again");
}

#[test]
fn what_neither_a_copy_nor_the_filesystem_has_is_lost_and_said() {
    let store = with_two_snapshots();
    store.run("evict", &["--all"]).ok();
    store.bring_back();
    // What is recalled is there to be persisted again.
    assert_eq!(tier(&["cat", &store.path(), "/hello"]).ok(), "hello\n");
    remove_everywhere(&store, &store.tarballs("store")[0]);
    let run = store.run("repair", &[]);
    damage_found(&run, "are lost: neither a copy nor the filesystem has them");
    assert!(!run.out.contains("/hello"), "{}", run.out);
    assert_eq!(tier(&["cat", &store.path(), "/hello"]).ok(), "hello\n");
    assert_eq!(tier(&["cat", &store.path(), "/second"]).ok(), "second\n".repeat(1000));
    damage_found(&store.run("verify", &[]), "are lost: they are in no object");
    assert_eq!(store.run("push", &[]).code, 0);
    let (restored, run) = restore(&store, "restored", &[]);
    damage_found(&run, "are lost");
    assert_eq!(tier(&["cat", &restored, "/hello"]).ok(), "hello\n");
    assert_eq!(tier(&["cat", &restored, "/second"]).ok(), "second\n".repeat(1000));
    // A file of which nothing is left reads as an error, and never as zeros.
    let lost = run.out.lines().find(|line| line.contains("are lost")).unwrap().to_string();
    assert!(lost.contains('/'), "{lost}");
}

#[test]
fn what_is_left_of_a_snapshot_is_checked_and_put_right_as_before() {
    for is_manifest_lost in [true, false] {
        let store = with_two_snapshots();
        let (manifest, tarball) =
            (manifests(&store, "store").remove(0), store.tarballs("store").remove(0));
        let (lost, damaged) = match is_manifest_lost {
            true => (manifest, tarball),
            false => (tarball, manifest),
        };
        remove_everywhere(&store, &lost);
        store.run("repair", &[]).ok();
        store.run("verify", &[]).ok();
        let in_cloud = store.objects("cloud").into_iter();
        let in_cloud = in_cloud.filter(|path| path.file_name() == damaged.file_name());
        in_cloud.for_each(|path| flip(&path));
        damage_found(&store.run("verify", &[]), "1 snapshots do not count as safe");
        let run = store.run("repair", &[]);
        assert!(run.out.contains("snapshot 1: uploaded and verified again"), "{}", run.out);
        run.ok();
        store.run("verify", &[]).ok();
    }
}

#[test]
fn a_store_that_was_restored_is_repaired_before_anything_is_written() {
    let store = with_two_snapshots();
    remove_everywhere(&store, &store.tarballs("store")[0]);
    let (restored, run) = restore(&store, "restored", &[]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    tier(&["takeover", &restored]).ok();
    let run = tier(&["repair", &restored]);
    assert!(run.out.contains("snapshot 1: no copy had all of it"), "{}{}", run.out, run.err);
    tier(&["push", &restored]).ok();
    let run = tier(&["verify", &restored]);
    assert!(run.out.contains("; 0 damaged or missing"), "{}{}", run.out, run.err);
    assert_eq!(tier(&["cat", &restored, "/second"]).ok(), "second\n".repeat(1000));
    assert!(tier(&["push", &restored]).ok().starts_with("0 snapshots"));
}

#[test]
fn a_former_cloud_whose_disk_is_not_mounted_may_have_what_seems_lost() {
    let store = with_two_snapshots();
    let (restored, run) = restore(&store, "restored", &[]);
    run.ok();
    tier(&["takeover", &restored]).ok();
    let other = store.at("other");
    fs::create_dir(&other).unwrap();
    tier(&["cloud", "add", &restored, &format!("file://{other}")]).ok();
    // The directory stays when its disk goes.
    fs::rename(store.at("cloud"), store.at("elsewhere")).unwrap();
    fs::create_dir(store.at("cloud")).unwrap();
    let run = tier(&["repair", &restored]);
    assert_ne!(run.code, 0);
    assert!(run.err.contains("is its disk mounted"), "{}{}", run.out, run.err);
    fs::remove_dir(store.at("cloud")).unwrap();
    fs::rename(store.at("elsewhere"), store.at("cloud")).unwrap();
    tier(&["push", &restored, "--all"]).ok();
    tier(&["verify", &restored]).ok();
    assert_eq!(tier(&["cat", &restored, "/second"]).ok(), "second\n".repeat(1000));
    fs::remove_dir_all(store.at("cloud")).unwrap();
    assert_eq!(tier(&["cat", &restored, "/hello"]).ok(), "hello\n");
}

#[test]
fn an_index_that_was_made_past_a_lost_tarball_is_no_reason_to_forget_it() {
    let store = with_two_snapshots();
    remove_everywhere(&store, &store.tarballs("store")[0]);
    assert_eq!(store.run("index rebuild", &["--full-scan"]).code, 3);
    store.run("repair", &[]).ok();
    is_whole(&store, "restored");
}
