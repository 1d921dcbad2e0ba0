//! The damage matrix: every kind of file of a store, damaged in every way, before every command.
//!
//! Whatever was damaged, a command does its work on what is whole, or ends with the exit code of
//! damage and names what is damaged; for the settings and the key, which an operator edits and
//! moves, a plain failure will do. It never panics, never hangs, and never gives out other data.
//! What is derived (the index, status logs, the evicter's files) is made anew, or a message says
//! how.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{Run, Store, command};

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Missing,
    Truncated,
    Flipped,
    Zeros,
}

impl Damage {
    fn apply(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        match self {
            Self::Missing => return fs::remove_file(path).unwrap(),
            Self::Truncated => bytes.truncate(middle),
            Self::Flipped => {
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            Self::Zeros => bytes.fill(0),
        }
        fs::write(path, bytes).unwrap();
    }
}

/// The commands, in the order in which an operator would try them.
const COMMANDS: [&str; 8] =
    ["status", "export", "fsck", "verify", "index rebuild", "snapshot", "evict", "export"];

/// Longer than any of them takes on a busy machine.
const HANG: Duration = Duration::from_mins(1);

/// A store in which there is something of everything, and a copy of it.
struct Pristine {
    store: Store,
    /// Content by path.
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Pristine {
    fn new() -> Self {
        let store = Store::new(&[]);
        store.import();
        store.run("snapshot", &[]).ok();
        store.run("evict", &["--all"]).ok();
        // Brings one file back: evicted, recalled and hot data are all there.
        store.run("cat", &["/dir/text"]).ok();
        let more = PathBuf::from(store.at("more"));
        fs::create_dir(&more).unwrap();
        for number in 0..20 {
            let content = format!("{number} ").repeat(3000 * (number % 3 + 1));
            fs::write(more.join(format!("more-{number}")), content).unwrap();
        }
        store.run("import", &[&store.at("more")]).ok();
        // Opening brings what is logged into table files.
        store.run("status", &[]).ok();
        store.run("snapshot", &[]).ok();
        fs::write(more.join("late"), "late\n".repeat(1000)).unwrap();
        store.run("import", &[&store.at("more")]).ok();
        let mut files = BTreeMap::new();
        for directory in ["tree", "more"] {
            read_files(Path::new(&store.at(directory)), Path::new(""), &mut files);
        }
        let pristine = Self { store, files };
        pristine.copy("store", "kept-store");
        pristine.copy("cloud", "kept-cloud");
        pristine
    }

    /// Puts the store back as it was.
    fn reset(&self) {
        self.copy("kept-store", "store");
        self.copy("kept-cloud", "cloud");
    }

    fn copy(&self, from: &str, to: &str) {
        let to = self.store.at(to);
        if Path::new(&to).exists() {
            fs::remove_dir_all(&to).unwrap();
        }
        let copied = Command::new("cp").args(["-a", &self.store.at(from), &to]).status().unwrap();
        assert!(copied.success());
    }

    /// One file of each kind, relative to the store.
    fn kinds(&self) -> Vec<PathBuf> {
        let root = PathBuf::from(self.store.path());
        let mut by_kind = BTreeMap::new();
        for path in self.store.objects("store") {
            let relative = path.strip_prefix(&root).unwrap().to_path_buf();
            let is_empty = fs::metadata(&path).unwrap().len() == 0;
            let kind = kind_of(&relative).filter(|_| !is_empty);
            // The last one is the newest.
            by_kind.extend(kind.map(|kind| (kind, relative)));
        }
        by_kind.into_values().collect()
    }

    /// Runs a command, and tells what it said; it must end by itself.
    fn run(&self, name: &str) -> Run {
        let mut args: Vec<_> = name.split(' ').map(str::to_string).collect();
        args.push(self.store.path());
        if name == "export" {
            let out = self.store.at("out");
            if Path::new(&out).exists() {
                fs::remove_dir_all(&out).unwrap();
            }
            args.extend(["/".to_string(), out]);
        }
        if name == "evict" {
            args.push("--all".to_string());
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Run::of(&wait(child, name))
    }

    /// What is wrong with an export: files that differ, or that are missing without a word.
    fn wrong_export(&self, run: &Run, file: &Path) -> Option<String> {
        let out = PathBuf::from(self.store.at("out"));
        let mut found = BTreeMap::new();
        if out.exists() {
            read_files(&out, Path::new(""), &mut found);
        }
        let differs = |found: &(&PathBuf, &Vec<u8>)| self.files.get(found.0) != Some(found.1);
        if let Some((path, _)) = found.iter().find(differs) {
            return Some(format!("{} differs", path.display()));
        }
        // What was in the write-ahead log alone is told by a file beside it.
        let is_wal = kind_of(file).is_some_and(|kind| kind == "kvs/.log");
        let is_short = run.code == 0 && !is_wal && found.len() < self.files.len();
        is_short.then(|| "files are missing without a word".to_string())
    }
}

/// Waits for a process with a limit, on a thread of its own that waits without one.
fn wait(child: std::process::Child, name: &str) -> Output {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let ended = receiver.recv_timeout(HANG);
    ended.unwrap_or_else(|_| panic!("{name} hangs")).unwrap()
}

/// What kind of file it is; `None` for what tests of their own damage, and for what is no data.
fn kind_of(relative: &Path) -> Option<String> {
    let directory = relative.components().next()?.as_os_str().to_str()?;
    let name = relative.file_name()?.to_str()?;
    if matches!(directory, "tarballs" | "tmp") || matches!(name, "LOCK" | "LOG" | "lock") {
        return None;
    }
    // Numbers tell files of one kind apart.
    let kind: String = name.chars().filter(|c| !c.is_ascii_digit()).collect();
    Some(format!("{directory}/{kind}"))
}

fn read_files(root: &Path, relative: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(root.join(relative)).unwrap() {
        let entry = entry.unwrap();
        let path = relative.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            read_files(root, &path, files);
        } else if kind.is_file() {
            files.insert(path.clone(), fs::read(root.join(&path)).unwrap());
        }
    }
}

/// Whether a failure tells what is damaged: the file, or the part of the store that it is of.
fn names(run: &Run, file: &Path) -> bool {
    let said = [run.out.as_str(), run.err.as_str()].concat();
    let name = file.file_name().unwrap().to_str().unwrap();
    let part = file.components().next().unwrap().as_os_str().to_str().unwrap();
    let part = match part {
        "kvs" => "key-value store",
        "segments" => "log",
        part => part,
    };
    said.contains(name) || said.contains(part)
}

fn check(damage: Damage) {
    let pristine = Pristine::new();
    let kinds = pristine.kinds();
    assert!(kinds.len() >= 12, "{kinds:?}");
    let mut wrong = Vec::new();
    for file in kinds {
        pristine.reset();
        damage.apply(&Path::new(&pristine.store.path()).join(&file));
        for name in COMMANDS {
            let run = pristine.run(name);
            let problem = problem(&run, &file).map(str::to_string).or_else(|| {
                let is_export = name == "export";
                if is_export { pristine.wrong_export(&run, &file) } else { None }
            });
            wrong.extend(problem.map(|problem| {
                let (file, code) = (file.display(), run.code);
                format!("{file} {name} ({code}): {problem}:\n{}{}", run.out, run.err)
            }));
        }
    }
    assert!(wrong.is_empty(), "{damage:?}:\n{}", wrong.join("\n"));
}

/// What is wrong with the way in which a command ended.
fn problem(run: &Run, file: &Path) -> Option<&'static str> {
    // An operator edits the one and moves the other: a plain failure says it as well.
    let is_operators = matches!(file.to_str(), Some("tier.toml" | "identity.key"));
    let is_allowed = match run.code {
        0 | 3 => true,
        1 | 2 => is_operators,
        _ => false,
    };
    if run.err.contains("panicked") {
        Some("it panicked")
    } else if !is_allowed {
        Some("a wrong exit code")
    } else if run.code != 0 && !names(run, file) {
        Some("it names nothing")
    } else {
        None
    }
}

#[test]
fn files_that_are_missing() {
    check(Damage::Missing);
}

#[test]
fn files_that_are_truncated() {
    check(Damage::Truncated);
}

#[test]
fn files_with_a_flipped_bit() {
    check(Damage::Flipped);
}

#[test]
fn files_that_are_zeros() {
    check(Damage::Zeros);
}
