//! What the program prints, as a whole: the help of every command, and the lists.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::harness::{Store, tier};

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    // A long description goes on in lines that are indented more.
    let names = lines.filter_map(|line| line.strip_prefix("  "));
    let names =
        names.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next());
    names.filter(|name| *name != "help").map(str::to_string).collect()
}

#[test]
fn every_command_helps() {
    let mut text = tier(&["help"]).ok();
    let mut todo: Vec<Vec<String>> = listed(&text).into_iter().map(|name| vec![name]).collect();
    todo.reverse();
    while let Some(command) = todo.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = tier(&arguments).ok();
        text.push_str(&format!("\n===== tier {}\n\n{help}", command.join(" ")));
        let below = listed(&help).into_iter().map(|name| [command.clone(), vec![name]].concat());
        todo.extend(below.collect::<Vec<_>>().into_iter().rev());
    }
    insta::assert_snapshot!("help", text);
}

/// A store in clear with a tree whose modes and times are known.
fn store() -> Store {
    let store = Store::new(&["--no-encryption"]);
    let tree = store.at("known");
    let tree = Path::new(&tree);
    fs::create_dir_all(tree.join("dir")).unwrap();
    fs::write(tree.join("dir/large"), "0123456789".repeat(30_000)).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::write(tree.join("small"), "hello\n").unwrap();
    fs::write(tree.join("new\nline"), "odd\n").unwrap();
    fs::hard_link(tree.join("small"), tree.join("dir/other name")).unwrap();
    for (name, mode) in [
        ("dir/large", 0o600),
        ("empty", 0o4755),
        ("small", 0o644),
        ("new\nline", 0o640),
        ("dir", 0o1777),
    ] {
        let path = tree.join(name);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(1_480_000_000);
        File::open(&path).unwrap().set_modified(time).unwrap();
    }
    symlink("dir/large", tree.join("link")).unwrap();
    store.run("import", &["--jobs", "1", &tree.display().to_string()]).ok();
    store
}

/// The list without what differs from run to run, in columns as wide: owner and group, and the
/// times of what has no time of its own.
fn stable_list(text: &str) -> String {
    let line = |line: &str| {
        let time = if line.starts_with('l') { "TIME                " } else { &line[37..57] };
        format!("{}   UID    GID{}{time}{}\n", &line[..10], &line[23..37], &line[57..])
    };
    text.lines().map(line).collect()
}

#[test]
fn a_list_shows_modes_sizes_times_and_tiers() {
    let store = store();
    let hot = stable_list(&store.run("ls", &["-l"]).ok());
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    let cold = stable_list(&store.run("ls", &["-l", "-R"]).ok());
    let short = store.run("ls", &["/", "-R"]).ok();
    insta::assert_snapshot!("ls", format!("{hot}\n{cold}\n{short}"));
}

#[test]
fn snapshots_are_listed_with_what_they_hold() {
    let store = store();
    assert_eq!(store.run("snapshots", &[]).ok(), "");
    store.run("snapshot", &[]).ok();
    store.import();
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    let line = |line: &str| {
        let (start, end) = line.split_once(" tarballs  ").unwrap();
        let time = start.split("  ").find(|column| column.ends_with('Z')).unwrap();
        let start = start.replace(time, "YYYY-MM-DDThh:mm:ssZ");
        format!("{start} tarballs  {:>12}{}\n", "SIZE", &end[12..])
    };
    let text = store.run("snapshots", &[]).ok();
    insta::assert_snapshot!("snapshots", text.lines().map(line).collect::<String>());
}

#[test]
fn a_tarball_lists_its_members() {
    let store = store();
    store.run("snapshot", &[]).ok();
    let tarball = store.tarballs("cloud").remove(0);
    let text = tier(&["tarball", "ls", &tarball.display().to_string()]).ok();
    // Tables of contents hold digests and times, and compress better or worse.
    let line = |line: &str| match line.split_once(" .tier/toc") {
        Some((_, name)) => format!("{}        SIZE .tier/toc{name}\n", &line[..10]),
        None => format!("{line}\n"),
    };
    let text: String = store.stable(&text).lines().map(line).collect();
    insta::assert_snapshot!("tarball", text);
}
