//! The process is killed half way; the next one goes on as if nothing had been.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::harness::{Store, command};

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
