//! The process is killed half way; the next one goes on as if nothing had been.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::harness::{Store, command, tier};
use crate::random::Random;

/// Kills the process as soon as a condition holds, or lets it end. Whether it was killed.
fn kill_when(mut child: Child, condition: impl Fn() -> bool) -> bool {
    while child.try_wait().unwrap().is_none() {
        if condition() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
    false
}

fn start(store: &Store, args: &[&str]) -> Child {
    let path = store.path();
    let n_words = if args[0] == "index" { 2 } else { 1 };
    let (name, rest) = args.split_at(n_words);
    let mut command = command(&[name, &[path.as_str()], rest].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn any_file(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| {
        let (name, path) = (entry.file_name(), entry.path());
        wanted(&name.to_string_lossy()) || (path.is_dir() && any_file(&path, wanted))
    })
}

#[test]
fn a_snapshot_that_is_killed_at_any_step_is_finished_by_the_next_one() {
    type Condition<'a> = &'a dyn Fn(&str) -> bool;
    let steps: [(&str, Condition<'_>); 6] = [
        ("store/segments", &|name| name.ends_with(".segment")),
        ("store/status", &|name| name.ends_with(".status")),
        ("store/tarballs", &|name| name.contains(".tmp")),
        ("store/tarballs", &|name| name.ends_with(".tar.zst.age")),
        ("store/tarballs", &|name| name.ends_with(".manifest")),
        ("cloud", &|name| name.contains(".tar.zst")),
    ];
    for (directory, wanted) in steps {
        let store = Store::new(&[]);
        store.import();
        let directory = store.at(directory);
        kill_when(start(&store, &["snapshot"]), || any_file(Path::new(&directory), wanted));
        store.run("snapshot", &[]).ok();
        store.run("verify", &["--read-data"]).ok();
        store.run("index check", &[]).ok();
        store.run("evict", &["--all"]).ok();
        store.check_export(&store.path(), "out");
        assert!(!any_file(Path::new(&store.at("store/tarballs")), &|name| name.contains(".tmp")));
    }
}

/// Bytes of all status logs of a store: they grow with each step of persisting and uploading.
fn status_bytes(store: &Store) -> u64 {
    let Ok(entries) = fs::read_dir(store.at("store/status")) else { return 0 };
    entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Killed at a random step each time; `TIER_PUSH_KILLS` sets how often.
#[test]
fn snapshots_that_are_killed_at_random_are_finished_and_push_nothing_twice() {
    let n_kills = std::env::var("TIER_PUSH_KILLS").map_or(12, |n| n.parse().unwrap());
    let mut random = Random::new(7);
    let store = Store::new(&[]);
    // Several tarballs for each snapshot.
    let path = store.at("store/tier.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, settings.replace("tarball_bytes = 134217728", "tarball_bytes = 20000"))
        .unwrap();
    let from = store.at("from");
    fs::create_dir(&from).unwrap();
    let mut n_killed = 0;
    for n in 0..n_kills {
        for file in 0..4 {
            let noise: Vec<u8> = (0..30_000).map(|_| random.below(256).to_le_bytes()[0]).collect();
            fs::write(format!("{from}/file-{file}"), noise).unwrap();
        }
        fs::write(format!("{from}/kept-{n}"), n.to_string()).unwrap();
        store.run("import", &[&from]).ok();
        let until = status_bytes(&store) + random.below(1200);
        n_killed +=
            u64::from(kill_when(start(&store, &["snapshot"]), || status_bytes(&store) >= until));
    }
    assert!(n_killed >= n_kills / 3, "only {n_killed} of {n_kills} were killed");
    store.run("snapshot", &[]).ok();
    store.run("verify", &["--read-data"]).ok();
    store.run("index check", &[]).ok();
    store.run("evict", &["--all"]).ok();
    let (out, key) = (store.at("out"), store.at("store/identity.key"));
    let restored = store.at("restored");
    let cloud = store.cloud_url();
    tier(&["restore", &restored, "--cloud", &cloud, "--identity", &key]).ok();
    for (store, name) in [(&store.path(), "here"), (&restored, "restored")] {
        let out = format!("{out}-{name}");
        tier(&["export", store, "/", &out]).ok();
        for entry in fs::read_dir(&from).unwrap() {
            let name = entry.unwrap().file_name();
            let read = |dir: &str| fs::read(Path::new(dir).join(&name)).unwrap();
            assert!(read(&from) == read(&out), "{name:?}");
        }
    }
    for entry in fs::read_dir(store.at("store/status")).unwrap() {
        let log = fs::read_to_string(entry.unwrap().path()).unwrap();
        let pushed = log.lines().filter_map(|line| line.split(" pushed name=").nth(1));
        let mut names: Vec<_> = pushed.map(|rest| rest.split(' ').next().unwrap()).collect();
        let n_pushed = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_pushed, "an object that was verified was pushed again: {log}");
    }
}

#[test]
fn a_rebuild_of_the_index_that_is_killed_leaves_a_whole_one() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    let dump = store.run("index dump", &[]).ok();
    let directory = store.at("store/index");
    let names = || {
        let names = fs::read_dir(&directory).unwrap();
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    // While it is made, and as soon as it is in its place.
    for place in ["new-", ""] {
        let was_killed = (0..50).any(|_| {
            let number: u32 = names()[0].parse().unwrap();
            let wanted = if place.is_empty() { (number + 1).to_string() } else { place.into() };
            let there = || names().iter().any(|name| name.starts_with(&wanted));
            let was_killed = kill_when(start(&store, &["index", "rebuild"]), there);
            assert!(there() || !was_killed, "{wanted}");
            assert_eq!(store.run("index dump", &[]).ok(), dump);
            assert_eq!(names().len(), 1);
            was_killed
        });
        assert!(was_killed, "it was always faster");
    }
    store.run("index check", &[]).ok();
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    for kill_after in [0, 100, 1_000, 10_000, 100_000] {
        let store = Store::new(&[]);
        let tree = store.tree();
        // Files that are copied in pieces, new ones and such as replace others.
        for number in 0..4_u8 {
            fs::write(tree.join(format!("large-{number}")), vec![number; 3 << 20]).unwrap();
        }
        store.import();
        for number in 2..6_u8 {
            fs::write(tree.join(format!("large-{number}")), vec![number + 10; 5 << 20]).unwrap();
        }
        let polls = std::cell::Cell::new(0);
        let count = || polls.replace(polls.get() + 1) >= kill_after;
        kill_when(start(&store, &["import", &tree.display().to_string()]), count);
        store.import();
        store.check_export(&store.path(), "out");
        let names = store.run("ls", &["/", "-R"]).ok();
        assert!(!names.contains(".tier-import"), "{names}");
        store.run("fsck", &[]).ok();
    }
}

#[test]
fn an_eviction_or_an_import_that_is_killed_loses_nothing() {
    for kill_after in [0, 50, 500, 5_000] {
        let store = Store::new(&[]);
        let tree = store.tree().display().to_string();
        let polls = std::cell::Cell::new(0);
        let count = || polls.replace(polls.get() + 1) >= kill_after;
        kill_when(start(&store, &["import", &tree]), count);
        // Whatever came in is whole; the rest comes under another name.
        store.run("import", &[&tree, "--into", "/again"]).ok();
        store.run("snapshot", &[]).ok();
        polls.set(0);
        kill_when(start(&store, &["evict", "--all"]), count);
        store.check_export_of("/again", "out");
        store.run("evict", &["--all"]).ok();
        assert!(!store.run("ls", &["/again", "-l", "-R"]).ok().contains(" hot "));
    }
}
