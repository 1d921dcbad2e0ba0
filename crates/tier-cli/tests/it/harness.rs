//! Running the program on a store in a temporary directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) struct Store {
    dir: tempfile::TempDir,
}

/// What a run came to.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tier"));
    command.args(args);
    command
}

pub(crate) fn tier(args: &[&str]) -> Run {
    Run::of(&command(args).output().unwrap())
}

impl Store {
    /// A store with a cloud directory, and a tree in it.
    pub(crate) fn new(extra: &[&str]) -> Self {
        let store = Self { dir: tempfile::tempdir().unwrap() };
        let cloud = store.cloud_url();
        tier(&[&["init", &store.path(), "--cloud", &cloud], extra].concat()).ok();
        make_tree(&store.tree());
        store
    }

    /// A store of which nothing can go anywhere.
    pub(crate) fn without_cloud() -> Self {
        let store = Self { dir: tempfile::tempdir().unwrap() };
        tier(&["init", &store.path()]).ok();
        store
    }

    pub(crate) fn path(&self) -> String {
        self.at("store")
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    pub(crate) fn cloud_url(&self) -> String {
        format!("file://{}", self.at("cloud"))
    }

    /// Runs a command whose first argument is the store.
    pub(crate) fn run(&self, command: &str, args: &[&str]) -> Run {
        let mut all: Vec<&str> = command.split(' ').collect();
        let path = self.path();
        all.push(&path);
        all.extend(args);
        tier(&all)
    }

    pub(crate) fn import(&self) {
        // One at a time, so that numbers are the same in each run.
        self.run("import", &["--jobs", "1", &self.tree().display().to_string()]).ok();
    }

    /// Exports everything, and compares it with the tree.
    pub(crate) fn check_export(&self, store: &str, name: &str) {
        let out = self.at(name);
        tier(&["export", store, "/", &out]).ok();
        assert_same(&self.tree(), Path::new(&out));
    }

    /// Exports a directory, and compares it with the tree.
    pub(crate) fn check_export_of(&self, path: &str, name: &str) {
        let out = self.at(name);
        self.run("export", &[path, &out]).ok();
        assert_same(&self.tree(), Path::new(&out));
    }

    /// The tarballs below a directory of this test.
    pub(crate) fn tarballs(&self, directory: &str) -> Vec<PathBuf> {
        let mut found = self.objects(directory);
        found.retain(|path| path.to_string_lossy().contains(".tar.zst"));
        found
    }

    /// Copies back what an eviction dropped here because the cloud has it.
    pub(crate) fn bring_back(&self) {
        let (cloud, here) = (self.at("cloud"), self.dir.path().join("store/tarballs"));
        for object in self.objects("cloud") {
            let name = object.strip_prefix(&cloud).unwrap();
            let is_data = name.components().any(|part| part.as_os_str() == "data");
            if is_data && !here.join(name).exists() {
                fs::copy(&object, here.join(name)).unwrap();
            }
        }
    }

    /// All files below a directory of this test.
    pub(crate) fn objects(&self, directory: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find(&self.dir.path().join(directory), &mut found);
        found.sort();
        found
    }

    /// What differs from run to run is replaced.
    pub(crate) fn stable(&self, text: &str) -> String {
        let id = self.filesystem();
        let text = text.replace(&id, "FILESYSTEM").replace(&self.at(""), "DIR/");
        // Times compress better or worse.
        let blank = |line: &str| match line.split_once(" tarballs ") {
            Some((start, _)) => format!("{start} tarballs  SIZE"),
            None if line.starts_with("kvs on disk") => "kvs on disk  SIZE".to_string(),
            None if line.starts_with("space  ") => "space        SIZE".to_string(),
            None => line.to_string(),
        };
        text.lines().map(|line| blank(line) + "\n").collect()
    }

    fn filesystem(&self) -> String {
        let config = fs::read_to_string(self.dir.path().join("store/tier.toml")).unwrap();
        config.split('"').nth(1).unwrap().to_string()
    }
}

pub(crate) fn find(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { find(&path, found) } else { found.push(path) }
    }
}

pub(crate) fn make_tree(tree: &Path) {
    fs::create_dir_all(tree.join("dir/sub")).unwrap();
    fs::write(tree.join("hello"), "hello\n").unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::write(tree.join("dir/text"), "some text\n".repeat(30_000)).unwrap();
    let noise: Vec<u8> =
        (0..2_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(tree.join("dir/sub/noise"), noise).unwrap();
    fs::write(tree.join("new\nline"), "odd\n").unwrap();
    fs::hard_link(tree.join("hello"), tree.join("dir/hard")).unwrap();
    symlink("../hello", tree.join("dir/link")).unwrap();
}

pub(crate) fn assert_same(a: &Path, b: &Path) {
    let script = "cd \"$1\" && find . -printf '%p %y %m %s %l %n\\n' | LC_ALL=C sort";
    let list = |dir: &Path| {
        let output = Command::new("sh").args(["-c", script, "sh"]).arg(dir).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .replace("./ d", ". d")
            .lines()
            .filter(|l| !l.contains(" d "))
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(list(a), list(b));
    let output = Command::new("diff").arg("-r").args([a, b]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
