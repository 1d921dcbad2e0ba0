//! The commands, one after another, as an operator types them.

use std::fs;

use crate::harness::{Store, tier};

#[test]
fn the_whole_life_of_a_store() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    let evicted = store.run("evict", &["--all", "--dry-run"]).ok();
    assert!(evicted.contains("Would evict"), "{evicted}");
    assert!(store.run("ls", &["/", "-l"]).ok().contains(" hot "));
    store.run("evict", &["--all"]).ok();
    insta::assert_snapshot!("index", store.run("index dump", &[]).ok());
    assert!(!store.run("ls", &["/", "-l", "-R"]).ok().contains(" hot "));
    assert_eq!(store.run("cat", &["/hello"]).ok(), "hello\n");
    store.check_export(&store.path(), "out");
    store.run("evict", &["--all"]).ok();
    for rebuild in [&[][..], &["--full-scan"], &["--from-cloud"]] {
        store.run("index rebuild", rebuild).ok();
        store.run("index check", &[]).ok();
    }
    store.run("verify", &["--read-data"]).ok();
    let restored = store.at("restored");
    let identity = store.at("store/identity.key");
    tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &identity]).ok();
    store.check_export(&restored, "out-restored");
    // The restored store lives on: it evicts what it recalled, and takes snapshots of its own.
    tier(&["evict", &restored, "--all"]).ok();
    tier(&["takeover", &restored]).ok();
    let tree = store.tree().display().to_string();
    tier(&["import", &restored, &tree, "--into", "/again"]).ok();
    tier(&["snapshot", &restored]).ok();
    tier(&["verify", &restored]).ok();
    let listed = tier(&["snapshots", &restored, "--json"]).ok();
    assert_eq!(listed.matches("\"snapshot\":").count(), 3, "{listed}");
    assert!(listed.contains("\"epoch\": 2"), "{listed}");
}

#[test]
fn an_old_snapshot_is_exported_and_restored_as_it_was() {
    let store = Store::new(&["--no-encryption"]);
    store.import();
    store.run("snapshot", &[]).ok();
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/late"), "late\n").unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    store.run("export", &["/", &store.at("old"), "--snapshot", "1"]).ok();
    assert!(!fs::exists(store.at("old/late")).unwrap());
    store.run("export", &["/", &store.at("new")]).ok();
    assert_eq!(fs::read_to_string(store.at("new/late")).unwrap(), "late\n");
    let (cloud, identity) = (store.cloud_url(), store.at("store/identity.key"));
    let restored = store.at("restored");
    let base = ["restore", &restored, "--cloud", &cloud, "--identity", &identity];
    tier(&[&base[..], &["--snapshot", "1"]].concat()).ok();
    store.check_export(&restored, "restored-out");
    tier(&["takeover", &restored, "--at", "1"]).ok();
    tier(&["import", &restored, &store.at("more")]).ok();
    tier(&["snapshot", &restored]).ok();
    tier(&["evict", &restored, "--all"]).ok();
    assert_eq!(tier(&["cat", &restored, "/late"]).ok(), "late\n");
}

#[test]
fn a_store_with_other_chunks_lives_the_same_life() {
    let store = Store::new(&["--chunk-bytes", "4096"]);
    store.import();
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    store.check_export(&store.path(), "out");
    store.run("index rebuild", &[]).ok();
    store.run("fsck", &[]).ok();
    let (restored, key) = (store.at("restored"), store.at("store/identity.key"));
    let args = ["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &key];
    tier(&args).ok();
    store.check_export(&restored, "out-restored");
    assert_eq!(tier(&["init", &store.at("other"), "--chunk-bytes", "100"]).code, 2);
}

#[test]
fn status_says_where_everything_stands() {
    // In clear: the length of an age header is random.
    let store = Store::new(&["--no-encryption"]);
    store.import();
    let before = store.stable(&store.run("status", &[]).ok());
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    let after = store.stable(&store.run("status", &[]).ok());
    insta::assert_snapshot!("status", format!("{before}\n---\n\n{after}"));
}

#[test]
fn reports_are_json_where_asked() {
    let store = Store::new(&[]);
    store.import();
    for (command, args) in [
        ("snapshot", &[][..]),
        ("status", &[]),
        ("snapshots", &[]),
        ("stats", &[]),
        ("ls", &["/"]),
        ("evict", &["--all"]),
        ("recall", &["/"]),
        ("index check", &[]),
        ("verify", &[]),
    ] {
        let out = store.run(command, &[args, &["--json"]].concat()).ok();
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&out);
        assert!(parsed.is_ok(), "{command}: {out}");
    }
    let log = store.run("log", &["--json"]).ok();
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn local_copies_count_for_the_disk_and_not_for_what_is_resident() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    // Each twice: what is only said first, and then done.
    let evict = |goal: &[&str]| {
        let dry = store.run("evict", &[goal, &["--dry-run", "--json"]].concat()).ok();
        let done = store.run("evict", &[goal, &["--json"]].concat()).ok();
        let [dry, done] =
            [dry, done].map(|out| -> serde_json::Value { serde_json::from_str(&out).unwrap() });
        for field in ["dropped", "dropped_bytes", "evicted", "bytes"] {
            assert_eq!(dry[field], done[field], "{goal:?}: {field}");
        }
        [&done["bytes"], &done["dropped_bytes"]].map(|bytes| bytes.as_u64().unwrap() > 0)
    };
    assert_eq!(evict(&["--to", "50"]), [true, false]);
    assert_eq!(evict(&["--bytes", "1"]), [false, true], "the cloud has it as well");
    assert_eq!(evict(&["--to", "0"]), [true, false]);
}

#[test]
fn pinned_files_stay() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    store.run("pin", &["/dir"]).ok();
    store.run("evict", &["--all"]).ok();
    let listed = store.run("ls", &["/", "-l", "-R"]).ok();
    let tier_of = |name: &str| listed.lines().find(|line| line.ends_with(name)).unwrap();
    assert!(tier_of("dir/text").contains(" hot "), "{listed}");
    assert!(tier_of("dir/hard").contains(" hot "), "{listed}");
    assert!(tier_of("new\\nline").contains(" cold "), "{listed}");
    store.run("unpin", &["/dir"]).ok();
    store.run("evict", &["--all"]).ok();
    assert!(!store.run("ls", &["/", "-l", "-R"]).ok().contains(" hot "));
}

#[test]
fn wrong_input_is_told_apart_by_its_exit_code() {
    let store = Store::new(&[]);
    let check = |args: &[&str], code: i32, says: &str| {
        let run = tier(args);
        assert_eq!(run.code, code, "{args:?}: {}{}", run.out, run.err);
        assert!(run.err.contains(says), "{args:?}: {}", run.err);
    };
    check(&["nonsense"], 2, "unrecognized subcommand");
    check(&["evict", &store.path()], 2, "--bytes");
    check(&["status", &store.at("nowhere")], 1, "nowhere a store?");
    check(&["init", &store.path()], 1, "is not empty");
    check(&["init", &store.at("x"), "--cloud", "ftp://x"], 1, "not a URL");
    check(&["cat", &store.path(), "/no"], 1, "no such file");
    check(&["cat", &store.path(), "/"], 1, "is a directory");
    check(&["import", &store.path(), &store.at("no")], 1, "cannot look at");
    check(&["tarball", "ls", &store.at("store/tier.toml")], 3, "tier.toml");
    let lock = fs::File::options().write(true).open(store.at("store/lock")).unwrap();
    lock.lock().unwrap();
    check(&["status", &store.path()], 4, "in use by process");
}

#[test]
fn a_restored_store_keeps_to_its_history_when_its_index_is_rebuilt() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/hello"), "later\n").unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    let (restored, key) = (store.at("restored"), store.at("store/identity.key"));
    let cloud = store.cloud_url();
    let args = ["restore", &restored, "--cloud", &cloud, "--identity", &key, "--snapshot", "1"];
    tier(&args).ok();
    let dump = tier(&["index", "dump", &restored]).ok();
    for how in [[].as_slice(), &["--full-scan"], &["--from-cloud"]] {
        tier(&[&["index", "rebuild", &restored], how].concat()).ok();
        assert_eq!(tier(&["index", "dump", &restored]).ok(), dump, "{how:?}");
        tier(&["index", "check", &restored]).ok();
    }
    tier(&["takeover", &restored, "--at", "1"]).ok();
    // What is new, here and not yet in the cloud, is in a new index as well.
    fs::write(store.at("more/hello"), "another\n").unwrap();
    tier(&["import", &restored, &store.at("more"), "--into", "/new"]).ok();
    let away = store.at("cloud.away");
    fs::rename(store.at("cloud"), &away).unwrap();
    fs::write(store.at("cloud"), "").unwrap();
    assert_ne!(tier(&["snapshot", &restored]).code, 0);
    fs::remove_file(store.at("cloud")).unwrap();
    fs::rename(&away, store.at("cloud")).unwrap();
    let dump = tier(&["index", "dump", &restored]).ok();
    for how in [[].as_slice(), &["--full-scan"], &["--from-cloud"]] {
        tier(&[&["index", "rebuild", &restored], how].concat()).ok();
        assert_eq!(tier(&["index", "dump", &restored]).ok(), dump, "{how:?}");
    }
    let out = store.at("out");
    tier(&["export", &restored, "/", &out, "--snapshot", "1"]).ok();
    assert_eq!(fs::read_to_string(store.at("out/hello")).unwrap(), "hello\n");
    assert_eq!(tier(&["cat", &restored, "/new/hello"]).ok(), "another\n");
}
