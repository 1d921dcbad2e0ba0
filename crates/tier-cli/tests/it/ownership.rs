//! The writer of an archive: drills, takeovers, copies and stores that were put back.

use std::fs;
use std::path::Path;

use crate::harness::{Run, Store, tier};
use crate::mount::Mounted;

fn refused(run: &Run, why: &str) {
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.err.contains(why), "{}", run.err);
}

impl Store {
    /// Restores the cloud into a store of this name.
    fn restored(&self, name: &str) -> String {
        let (restored, key) = (self.at(name), self.at("store/identity.key"));
        tier(&["restore", &restored, "--cloud", &self.cloud_url(), "--identity", &key]).ok();
        restored
    }

    /// Puts a file with this content into a store.
    fn put(&self, store: &str, name: &str, content: &str) {
        let from = self.at("put");
        let _ = fs::remove_dir_all(&from);
        fs::create_dir(&from).unwrap();
        fs::write(Path::new(&from).join(name), content).unwrap();
        tier(&["import", store, &from]).ok();
    }
}

fn with_a_snapshot() -> Store {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    store
}

fn cat(store: &str, path: &str) -> String {
    tier(&["cat", store, path]).ok()
}

fn role(store: &str) -> String {
    let status: serde_json::Value =
        serde_json::from_str(&tier(&["status", store, "--json"]).ok()).unwrap();
    status["role"].as_str().unwrap().to_owned()
}

#[test]
fn a_drill_reads_everything_and_takes_nothing_over() {
    let store = with_a_snapshot();
    let drill = store.restored("drill");
    assert_eq!((role(&drill).as_str(), role(&store.path()).as_str()), ("follower", "writer"));
    store.check_export(&drill, "out");
    let tree = store.tree().display().to_string();
    for run in [
        tier(&["import", &drill, &tree, "--into", "/again"]),
        tier(&["snapshot", &drill]),
        tier(&["push", &drill]),
        tier(&["pin", &drill, "/hello"]),
    ] {
        refused(&run, "tier takeover makes it the writer");
    }
    // The store that is the writer goes on as if nothing had been.
    store.put(&store.path(), "later", "later\n");
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    let again = store.restored("again");
    assert_eq!(cat(&again, "/later"), "later\n");
    if let Some(mounted) = Mounted::of(&store, &drill, &[]) {
        assert_eq!(fs::read_to_string(mounted.path("hello")).unwrap(), "hello\n");
        fs::write(mounted.path("new"), "x").unwrap_err();
        mounted.unmount();
    }
}

#[test]
fn a_takeover_brings_a_follower_up_to_date_and_fences_the_writer() {
    let store = with_a_snapshot();
    let new = store.restored("new");
    store.put(&store.path(), "later", "later\n");
    store.run("snapshot", &[]).ok();
    let text = tier(&["takeover", &new]).ok();
    assert!(text.contains("goes on from snapshot 2"), "{text}");
    assert!(tier(&["takeover", &new]).ok().contains("is the writer already"));
    assert_eq!((role(&new).as_str(), cat(&new, "/later").as_str()), ("writer", "later\n"));
    store.put(&new, "mine", "mine\n");
    tier(&["snapshot", &new]).ok();
    // The former writer evicts what was safe, and nothing else; it says why it uploads nothing.
    store.put(&store.path(), "theirs", "theirs\n");
    refused(&store.run("snapshot", &[]), "was taken over by");
    let status = store.run("status", &[]).ok();
    assert!(status.contains("was taken over by"), "{status}");
    store.run("evict", &["--all"]);
    assert_eq!(cat(&store.path(), "/theirs"), "theirs\n");
    let check = tier(&["cloud", "check", &store.path()]);
    refused(&check, "was taken over by");
    assert!(check.out.contains("epoch 2"), "{}", check.out);
    // A restore has the history of the new writer.
    let again = store.restored("again");
    assert_eq!(cat(&again, "/mine"), "mine\n");
    assert_ne!(tier(&["cat", &again, "/theirs"]).code, 0);
    tier(&["verify", &again]).ok();
}

#[test]
fn a_fenced_store_goes_on_from_what_it_has_if_that_is_said() {
    let store = with_a_snapshot();
    let new = store.restored("new");
    tier(&["takeover", &new]).ok();
    store.put(&new, "mine", "mine\n");
    tier(&["snapshot", &new]).ok();
    store.put(&store.path(), "theirs", "theirs\n");
    refused(&store.run("snapshot", &[]), "--keep-local");
    refused(&tier(&["takeover", &store.path()]), "--keep-local");
    let text = tier(&["takeover", &store.path(), "--keep-local"]).ok();
    assert!(text.contains("epoch 3"), "{text}");
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    assert_eq!(cat(&store.path(), "/theirs"), "theirs\n");
    store.run("verify", &["--read-data"]).ok();
    store.put(&new, "more", "more\n");
    refused(&tier(&["snapshot", &new]), "was taken over by");
    // Both histories stay readable.
    let (newest, key) = (store.restored("newest"), store.at("store/identity.key"));
    assert_eq!(cat(&newest, "/theirs"), "theirs\n");
    let other = store.at("other");
    let base = ["restore", &other, "--cloud", &store.cloud_url(), "--identity", &key];
    tier(&[&base[..], &["--epoch", "2"]].concat()).ok();
    assert_eq!(cat(&other, "/mine"), "mine\n");
    // The other one becomes what the archive has.
    let text = tier(&["takeover", &new, "--discard-local"]).ok();
    assert!(text.contains("epoch 4"), "{text}");
    assert_eq!(cat(&new, "/theirs"), "theirs\n");
    assert_ne!(tier(&["cat", &new, "/more"]).code, 0);
    store.put(&new, "last", "last\n");
    tier(&["snapshot", &new]).ok();
    tier(&["fsck", &new]).ok();
    tier(&["index", "check", &new]).ok();
}

fn copy(from: &str, to: &str) {
    let run = std::process::Command::new("cp").args(["-a", from, to]).status().unwrap();
    assert!(run.success());
}

#[test]
fn of_a_store_and_its_copy_the_second_to_write_is_fenced() {
    let store = with_a_snapshot();
    let copied = store.at("copied");
    copy(&store.path(), &copied);
    store.put(&store.path(), "original", "original\n");
    store.put(&copied, "copy", "copy\n");
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    refused(&tier(&["snapshot", &copied]), "is a copy of it");
    tier(&["evict", &copied, "--all"]);
    assert_eq!(cat(&copied, "/copy"), "copy\n");
    assert_eq!(cat(&store.path(), "/original"), "original\n");
    // What the copy has persisted under a number that was taken is persisted again.
    tier(&["takeover", &copied, "--keep-local"]).ok();
    tier(&["snapshot", &copied]).ok();
    tier(&["evict", &copied, "--all"]).ok();
    assert_eq!(cat(&copied, "/copy"), "copy\n");
    for store in [&copied, &store.restored("again")] {
        assert_eq!(cat(store, "/copy"), "copy\n");
        tier(&["verify", store, "--read-data"]).ok();
        tier(&["index", "check", store]).ok();
    }
}

#[test]
fn a_store_that_was_put_back_is_fenced_and_takes_what_the_archive_has() {
    let store = with_a_snapshot();
    let back = store.at("back");
    copy(&store.path(), &back);
    store.put(&store.path(), "later", "later\n");
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    fs::rename(store.path(), store.at("gone")).unwrap();
    fs::rename(&back, store.path()).unwrap();
    store.put(&store.path(), "other", "other\n");
    refused(&store.run("snapshot", &[]), "was put back to an earlier state");
    tier(&["takeover", &store.path(), "--discard-local"]).ok();
    assert_eq!(cat(&store.path(), "/later"), "later\n");
    store.run("snapshot", &[]).ok();
    store.run("fsck", &[]).ok();
}

#[test]
fn what_is_no_claim_and_no_manifest_stops_nothing() {
    let store = with_a_snapshot();
    let mut cloud = fs::read_dir(store.at("cloud")).unwrap().map(|entry| entry.unwrap().path());
    let filesystem = cloud.find(|path| path.is_dir()).unwrap();
    fs::write(filesystem.join("claims/e00000002.claim"), "garbage").unwrap();
    fs::write(filesystem.join("manifests/e00000077-s0000000009.manifest"), "garbage").unwrap();
    store.put(&store.path(), "later", "later\n");
    store.run("snapshot", &[]).ok();
    let (restored, key) = (store.at("restored"), store.at("store/identity.key"));
    let run = tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &key]);
    assert_eq!(run.code, 3, "what cannot be read may have been newer: {}", run.err);
    assert!(run.out.contains("e00000077-s0000000009.manifest"), "{}", run.out);
    assert_eq!(cat(&restored, "/later"), "later\n");
    assert!(tier(&["takeover", &restored]).ok().contains("epoch 3"));
    store.put(&restored, "mine", "mine\n");
    tier(&["snapshot", &restored]).ok();
    refused(&store.run("push", &["--all"]), "was taken over by");
}

#[test]
fn another_cloud_is_filled_and_counts_when_it_is() {
    let store = with_a_snapshot();
    store.run("evict", &["--all"]).ok();
    let new = store.restored("new");
    tier(&["takeover", &new]).ok();
    store.put(&new, "mine", "mine\n");
    let second = format!("file://{}", store.at("second"));
    refused(&tier(&["cloud", "add", &new, &store.cloud_url()]), "is this store's cloud already");
    tier(&["cloud", "add", &new, &second]).ok();
    let listed = tier(&["cloud", "list", &new]).ok();
    assert!(listed.lines().count() == 2 && listed.contains(&second), "{listed}");
    // Nothing counts there yet, and what is only in the former cloud is read from it.
    let states = tier(&["snapshots", &new]).ok();
    assert!(states.contains("indexed") && !states.contains("in the cloud"), "{states}");
    assert_eq!(cat(&new, "/hello"), "hello\n");
    tier(&["push", &new]).ok();
    tier(&["snapshot", &new]).ok();
    assert!(tier(&["cloud", "check", &new]).ok().contains("creates      only under a name"));
    fs::rename(store.at("cloud"), store.at("cloud.gone")).unwrap();
    let (restored, key) = (store.at("restored"), store.at("store/identity.key"));
    tier(&["restore", &restored, "--cloud", &second, "--identity", &key]).ok();
    assert_eq!(cat(&restored, "/mine"), "mine\n");
    assert_eq!(cat(&restored, "/hello"), "hello\n");
    tier(&["evict", &new, "--all"]).ok();
    assert_eq!(cat(&new, "/mine"), "mine\n");
}

fn manifests(store: &Store) -> Vec<std::path::PathBuf> {
    let mut found = store.objects("cloud");
    found.retain(|path| path.extension().is_some_and(|ending| ending == "manifest"));
    found
}

#[test]
fn what_the_cloud_has_lost_is_uploaded_again() {
    let store = with_a_snapshot();
    store.put(&store.path(), "second", "second\n");
    store.run("snapshot", &[]).ok();
    // The newest manifest goes, and the writer notices before it continues it.
    let manifests_before = manifests(&store);
    fs::remove_file(manifests_before.last().unwrap()).unwrap();
    store.put(&store.path(), "third", "third\n");
    store.run("snapshot", &[]).ok();
    assert_eq!(manifests(&store).len(), 3);
    // A tarball goes, which only a comparison finds.
    fs::remove_file(&store.tarballs("cloud")[0]).unwrap();
    store.run("push", &["--all"]).ok();
    let restored = store.restored("restored");
    tier(&["verify", &restored, "--read-data"]).ok();
    assert_eq!(cat(&restored, "/third"), "third\n");
}

#[test]
fn a_replica_of_the_cloud_is_compared_and_not_uploaded() {
    let store = with_a_snapshot();
    copy(&store.at("cloud"), &store.at("replica"));
    let replica = format!("file://{}", store.at("replica"));
    refused(&tier(&["cloud", "add", &store.path(), &replica]), "is a cloud already");
    tier(&["cloud", "add", &store.path(), &replica, "--adopt-cloud"]).ok();
    let states = store.run("snapshots", &[]).ok();
    assert!(!states.contains("in the cloud"), "a copy may lag behind: {states}");
    let modified = |path: &std::path::PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    let before: Vec<_> = store.objects("replica").iter().map(modified).collect();
    store.run("push", &[]).ok();
    assert_eq!(store.objects("replica").iter().map(modified).collect::<Vec<_>>(), before);
    assert!(store.run("snapshots", &[]).ok().contains("in the cloud"));
    // One that lags behind lacks what was taken since.
    store.put(&store.path(), "later", "later\n");
    store.run("snapshot", &[]).ok();
    tier(&["cloud", "add", &store.path(), &store.cloud_url(), "--adopt-cloud"]).ok();
    store.run("push", &[]).ok();
    assert_eq!(manifests(&store).len(), 2);
}

#[test]
fn a_filesystem_that_was_put_back_alone_fences_nothing_when_it_would_be_kept() {
    let store = with_a_snapshot();
    let parts =
        ["kvs", "chunks", "segments", "witness"].map(|part| format!("{}/{part}", store.path()));
    let back = store.at("back");
    fs::create_dir(&back).unwrap();
    for part in parts.iter().filter(|part| Path::new(part).exists()) {
        copy(part, &back);
    }
    store.put(&store.path(), "later", "later\n");
    store.run("snapshot", &[]).ok();
    for part in parts.iter().filter(|part| Path::new(part).exists()) {
        let old = Path::new(&back).join(Path::new(part).file_name().unwrap());
        let _ = fs::remove_dir_all(part);
        let _ = fs::remove_file(part);
        fs::rename(old, part).unwrap();
    }
    let n_claims = |store: &Store| {
        let claims = fs::read_dir(filesystem_of(store).join("claims")).unwrap();
        claims.count()
    };
    assert_eq!(n_claims(&store), 1);
    refused(&tier(&["takeover", &store.path(), "--keep-local"]), "--discard-local");
    assert_eq!(n_claims(&store), 1, "nothing is claimed for what cannot go on");
    tier(&["takeover", &store.path(), "--discard-local"]).ok();
    assert_eq!(cat(&store.path(), "/later"), "later\n");
}

fn filesystem_of(store: &Store) -> std::path::PathBuf {
    let mut cloud = fs::read_dir(store.at("cloud")).unwrap().map(|entry| entry.unwrap().path());
    cloud.find(|path| path.is_dir()).unwrap()
}

#[test]
fn a_claim_that_is_lost_gives_the_archive_to_nobody_and_is_made_again() {
    let store = with_a_snapshot();
    let other = store.restored("other");
    tier(&["takeover", &other]).ok();
    store.put(&other, "theirs", "theirs\n");
    tier(&["snapshot", &other]).ok();
    let claim = filesystem_of(&store).join("claims/e00000002.claim");
    fs::remove_file(&claim).unwrap();
    store.put(&store.path(), "mine", "mine\n");
    refused(&store.run("snapshot", &[]), "the archive was taken over by another store (epoch 2)");
    let second = format!("file://{}", store.at("second"));
    refused(&tier(&["cloud", "add", &store.path(), &second]), "was taken over");
    refused(&tier(&["takeover", &store.path()]), "was taken over");
    let verified = tier(&["verify", &other]);
    assert_eq!(verified.code, 3, "{}{}", verified.out, verified.err);
    assert!(verified.out.contains("e00000002.claim"), "{}", verified.out);
    assert!(tier(&["repair", &other]).ok().contains("e00000002.claim: made again"));
    assert!(claim.exists());
    tier(&["verify", &other]).ok();
    refused(&store.run("snapshot", &[]), "was taken over by");
}

#[test]
fn a_former_cloud_that_is_gone_for_good_can_be_forgotten() {
    let store = with_a_snapshot();
    store.run("evict", &["--all"]).ok();
    let (new, second) = (store.restored("new"), format!("file://{}", store.at("second")));
    tier(&["takeover", &new]).ok();
    tier(&["cloud", "add", &new, &second]).ok();
    fs::remove_dir_all(store.at("cloud")).unwrap();
    let run = tier(&["repair", &new]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    refused(&tier(&["cloud", "forget", &new, &second]), "is this store's cloud");
    refused(&tier(&["cloud", "forget", &new, "file:///else"]), "is no former cloud");
    let text = tier(&["cloud", "forget", &new, &store.cloud_url()]).ok();
    assert!(text.contains("tier repair"), "{text}");
    let run = tier(&["repair", &new]);
    assert_eq!(run.code, 3, "what was only there is lost, and said: {}{}", run.out, run.err);
    store.put(&new, "mine", "mine\n");
    tier(&["snapshot", &new]).ok();
    assert_eq!(cat(&new, "/mine"), "mine\n");
}
