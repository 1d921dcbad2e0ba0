//! A cloud is the one that it was: a disk that is not mounted, an empty directory under its path,
//! and another cloud there cost uploads and cold reads, and nothing that is stored.

use std::fs;
use std::path::Path;

use crate::harness::{Run, Store, tier};

/// A new file of the tree, imported.
fn add(store: &Store, name: &str) {
    fs::write(store.tree().join(name), name.repeat(100_000)).unwrap();
    store.import();
}

fn refused(run: &Run, why: &str) {
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.err.contains(why), "{}", run.err);
}

/// What works while the cloud is not there: all but uploads, and nothing becomes safe.
fn works_without(store: &Store, why: &str) {
    assert_eq!(store.run("cat", &["/later"]).ok(), "later".repeat(100_000));
    refused(&store.run("snapshot", &[]), why);
    refused(&store.run("push", &[]), why);
    let snapshots = store.run("snapshots", &[]).ok();
    let last = snapshots.lines().last().unwrap();
    assert!(last.contains("indexed"), "made here, and not in the cloud: {snapshots}");
    // Another one is made behind it, and what was safe before can go.
    add(store, "more");
    let run = store.run("snapshot", &[]);
    refused(&run, why);
    assert!(run.out.contains("persisted here, and not uploaded"), "{}", run.out);
    assert_eq!(store.run("snapshots", &[]).ok().matches("indexed").count(), 2);
    let run = store.run("evict", &["--all"]);
    refused(&run, "what was safe is evicted, and more is not safe yet");
    assert!(run.out.contains("Evicted ") && !run.out.contains("Evicted 0 B"), "{}", run.out);
    assert!(store.run("ls", &["/later", "-l"]).ok().contains("hot"), "it is nowhere else");
    assert!(store.run("status", &[]).ok().contains(why), "status says what is wrong");
}

/// The cloud is back: what was not uploaded is, and a restore has all of it.
fn is_whole_again(store: &Store) {
    store.run("push", &[]).ok();
    store.run("evict", &["--all"]).ok();
    assert!(store.run("ls", &["/later", "-l"]).ok().contains("cold"));
    let (new, identity) = (store.at("restored"), store.at("store/identity.key"));
    tier(&["restore", &new, "--cloud", &store.cloud_url(), "--identity", &identity]).ok();
    store.check_export(&new, "out");
}

/// A store with a snapshot in the cloud, and a file more.
fn with_a_snapshot() -> Store {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    add(&store, "later");
    store
}

#[test]
fn a_cloud_on_a_disk_that_is_not_mounted_is_waited_for() {
    let store = with_a_snapshot();
    fs::rename(store.at("cloud"), store.at("elsewhere")).unwrap();
    works_without(&store, "is its disk mounted?");
    let (new, identity) = (store.at("restored"), store.at("store/identity.key"));
    let restored = tier(&["restore", &new, "--cloud", &store.cloud_url(), "--identity", &identity]);
    refused(&restored, "is its disk mounted?");
    assert!(!Path::new(&store.at("cloud")).exists(), "it is not made anew");
    assert!(!Path::new(&new).exists(), "nothing was made");
    fs::rename(store.at("elsewhere"), store.at("cloud")).unwrap();
    is_whole_again(&store);

    // What was restored has no tarballs of its own: without the cloud they are not lost.
    let index = store.at("restored/index");
    fs::rename(store.at("cloud"), store.at("elsewhere")).unwrap();
    refused(&tier(&["index", "rebuild", &new]), "is its disk mounted?");
    fs::rename(store.at("elsewhere"), store.at("cloud")).unwrap();
    assert!(Path::new(&index).exists(), "the index in use stays");
    tier(&["index", "check", &new]).ok();
    store.check_export(&new, "out again");
}

/// The directory on which the disk is mounted is there also without the disk.
#[test]
fn an_empty_directory_is_not_the_cloud() {
    let store = with_a_snapshot();
    fs::rename(store.at("cloud"), store.at("elsewhere")).unwrap();
    fs::create_dir(store.at("cloud")).unwrap();
    works_without(&store, "is not the cloud of this store");
    assert_eq!(store.objects("cloud"), Vec::<std::path::PathBuf>::new(), "nothing was put there");
    fs::remove_dir(store.at("cloud")).unwrap();
    fs::rename(store.at("elsewhere"), store.at("cloud")).unwrap();
    is_whole_again(&store);
}

#[test]
fn another_cloud_under_the_same_path_is_not_written_to() {
    let store = with_a_snapshot();
    fs::rename(store.at("cloud"), store.at("elsewhere")).unwrap();
    tier(&["init", &store.at("other"), "--cloud", &store.cloud_url()]).ok();
    let before = store.objects("cloud");
    works_without(&store, "is another cloud than that of this store");
    assert_eq!(store.objects("cloud"), before, "nothing was put there");
    fs::remove_dir_all(store.at("cloud")).unwrap();
    fs::rename(store.at("elsewhere"), store.at("cloud")).unwrap();
    is_whole_again(&store);
}

#[test]
fn a_cloud_is_shared_only_if_that_is_said() {
    let store = with_a_snapshot();
    let (other, url) = (store.at("other"), store.cloud_url());
    let before = store.objects("cloud");
    refused(&tier(&["init", &other, "--cloud", &url]), "--adopt-cloud");
    assert!(!Path::new(&other).exists(), "nothing was made");
    assert_eq!(store.objects("cloud"), before);
    tier(&["init", &other, "--cloud", &url, "--adopt-cloud"]).ok();
    tier(&["import", &other, &store.tree().display().to_string()]).ok();
    tier(&["snapshot", &other]).ok();
    // Each goes on beside the other.
    is_whole_again_beside(&store);
    store.check_export(&other, "others");
}

fn is_whole_again_beside(store: &Store) {
    store.run("snapshot", &[]).ok();
    assert_eq!(store.run("cat", &["/later"]).ok(), "later".repeat(100_000));
    store.run("verify", &["--read-data"]).ok();
}

/// An archive that has lost the object is restored all the same, and not written to.
#[test]
fn a_cloud_without_its_identity_is_restored_from() {
    let store = with_a_snapshot();
    store.run("snapshot", &[]).ok();
    fs::remove_file(store.at("cloud/tier-cloud")).unwrap();
    let (new, identity) = (store.at("restored"), store.at("store/identity.key"));
    tier(&["restore", &new, "--cloud", &store.cloud_url(), "--identity", &identity]).ok();
    store.check_export(&new, "out");
    refused(&tier(&["takeover", &new]), "does not know the identity of its cloud");
}
