//! The filesystem as the kernel sees it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Run, Store, command, tier};

/// A last guard: nothing here takes long.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// A store that is mounted by a process of its own.
pub(crate) struct Mounted<'a> {
    store: &'a Store,
    directory: PathBuf,
    child: Child,
    said: BufReader<ChildStderr>,
}

impl<'a> Mounted<'a> {
    /// `None`, said loudly, on a machine that cannot mount.
    pub(crate) fn new(store: &'a Store, args: &[&str]) -> Option<Self> {
        Self::of(store, &store.path(), args)
    }

    /// Mounts the store at this path of a test.
    pub(crate) fn of(store: &'a Store, path: &str, args: &[&str]) -> Option<Self> {
        Self::started(store, command(&[]), path, args)
    }

    /// Mounts the store by a program that is started in this way.
    fn started(store: &'a Store, mut program: Command, path: &str, args: &[&str]) -> Option<Self> {
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
            return None;
        }
        let directory = PathBuf::from(store.at("mnt"));
        fs::create_dir_all(&directory).unwrap();
        let on = directory.display().to_string();
        program.args(["mount", path, &on]).args(args);
        let mut child = program.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.starts_with("Mounted "), "{line}");
        Some(Self { store, directory, child, said })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn signal(&self, signal: &str) {
        run("kill", [format!("-{signal}"), self.child.id().to_string()]);
    }

    /// Unmounts and returns what the process said meanwhile.
    pub(crate) fn unmount(mut self) -> String {
        self.signal("INT");
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn xattr(&self, name: &str, attribute: &str) -> String {
        let path = self.path(name);
        let arguments = ["--only-values".into(), "-n".into(), attribute.into(), path.into()];
        run::<std::ffi::OsString>("getfattr", arguments)
    }

    pub(crate) fn evict_all(&self) {
        self.store.run("snapshot", &[]).ok();
        self.store.run("evict", &["--all"]).ok();
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ =
            Command::new("umount").arg("-l").arg(&self.directory).stderr(Stdio::null()).status();
    }
}

/// Runs a program that must succeed, and returns what it prints.
fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn same(a: &Path, b: &Path) {
    run("diff", [Path::new("-r"), a, b]);
}

#[test]
fn a_mount_is_a_directory_like_any_other() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    let copy = mounted.path("copy");
    run("cp", [Path::new("-a"), &store.tree(), &copy]);
    same(&store.tree(), &copy);
    assert_eq!(fs::metadata(copy.join("hello")).unwrap().nlink(), 2);
    fs::rename(copy.join("dir/sub"), mounted.path("moved")).unwrap();
    fs::rename(mounted.path("moved"), copy.join("dir/sub")).unwrap();
    run("setfattr", ["-n", "user.a", "-v", "1", &copy.join("hello").display().to_string()]);
    assert_eq!(mounted.xattr("copy/dir/hard", "user.a"), "1");

    // Open without a name.
    let path = mounted.path("gone");
    fs::write(&path, "still here").unwrap();
    let mut open = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!((content.as_str(), open.metadata().unwrap().nlink()), ("still here", 0));
    drop(open);

    assert!(mounted.unmount().ends_with("Unmounted.\n"));
    store.check_export_of("/copy", "out");
}

#[test]
fn holes_are_found_even_where_data_has_not_left_the_kernel() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    let mut file =
        OpenOptions::new().read(true).write(true).create_new(true).open(mounted.path("sparse"));
    let file = file.as_mut().unwrap();
    file.set_len(10 << 20).unwrap();
    file.write_all_at(b"in the middle", 5 << 20).unwrap();
    let seek = |whence: &str| {
        let script = "import os,sys; f=os.open(sys.argv[1],os.O_RDONLY); \
                      print(os.lseek(f,0,getattr(os,sys.argv[2])))";
        let path = mounted.path("sparse").display().to_string();
        run("python3", ["-c", script, &path, whence]).trim().parse::<u64>().unwrap()
    };
    assert_eq!((seek("SEEK_DATA"), seek("SEEK_HOLE")), (5 << 20, 0));
    let blocks = |file: &File| file.metadata().unwrap().blocks() * 512;
    file.sync_all().unwrap();
    assert!(blocks(file) <= 64 << 10, "{}", blocks(file));
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content.len(), 10 << 20);
    assert_eq!(&content[5 << 20..][..13], b"in the middle");
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 13);
}

#[test]
fn cold_files_are_read_and_changed_like_hot_ones() {
    let store = Store::new(&[]);
    store.import();
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    assert_eq!(mounted.xattr("dir/sub/noise", "user.tier.state"), "hot");
    mounted.evict_all();
    assert_eq!(mounted.xattr("dir/sub/noise", "user.tier.state"), "cold");
    assert_eq!(mounted.xattr("dir/sub/noise", "user.tier.snapshot"), "1");
    assert_eq!(fs::metadata(mounted.path("dir/sub/noise")).unwrap().blocks(), 1);

    // What is not needed does not come back.
    let noise = OpenOptions::new().write(true).open(mounted.path("dir/sub/noise")).unwrap();
    noise.write_all_at(&[7; 4096], 1 << 20).unwrap();
    noise.sync_all().unwrap();
    assert_eq!(mounted.xattr("dir/sub/noise", "user.tier.state"), "mixed");
    let resident = noise.metadata().unwrap().blocks() * 512;
    assert!(resident <= 1 << 20, "{resident} bytes came for 4096");
    let text = OpenOptions::new().write(true).open(mounted.path("dir/text")).unwrap();
    text.set_len(0).unwrap();
    assert_eq!(text.metadata().unwrap().blocks(), 0);

    // The same is done to the tree; then all is as there.
    let tree = |name: &str| OpenOptions::new().write(true).open(store.tree().join(name)).unwrap();
    tree("dir/sub/noise").write_all_at(&[7; 4096], 1 << 20).unwrap();
    tree("dir/text").set_len(0).unwrap();
    same(&store.tree(), &mounted.directory);
    assert_eq!(mounted.xattr("hello", "user.tier.state"), "warm");

    let hello = mounted.path("hello").display().to_string();
    run("setfattr", ["-n", "user.tier.pin", "-v", "1", &hello]);
    mounted.evict_all();
    assert_eq!(mounted.xattr("hello", "user.tier.state"), "warm", "pinned");
    assert_eq!(mounted.xattr("dir/sub/noise", "user.tier.state"), "cold");
    same(&store.tree(), &mounted.directory);
}

#[test]
fn commands_work_on_a_mounted_store() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    // The kernel remembers that there is no such name, until an import makes it.
    fs::metadata(mounted.path("hello")).unwrap_err();
    store.import();
    same(&store.tree(), &mounted.directory);
    let status = store.run("status", &["--json"]).ok();
    assert!(
        status.contains(&format!("\"mountpoint\": \"{}\"", mounted.directory.display())),
        "{status}"
    );
    store.run("pause", &[]).ok();
    assert!(store.run("status", &[]).ok().contains("agent        paused"));
    store.run("resume", &[]).ok();
    store.run("snapshot", &[]).ok();
    store.run("index check", &[]).ok();
    store.run("verify", &["--read-data"]).ok();
    assert_eq!(store.run("cat", &["/hello"]).ok(), "hello\n");
    store.check_export_of("/", "out");

    // Only what needs the store for itself does not.
    let other = store.at("other");
    fs::create_dir(&other).unwrap();
    let refused = tier(&["mount", &store.path(), &other]);
    let pid = mounted.child.id().to_string();
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains(&pid), "{}", refused.err);
    assert_eq!(store.run("cat", &["/nothing"]).code, 1);
}

#[test]
fn an_index_is_rebuilt_while_it_is_in_use() {
    let store = Store::new(&[]);
    store.import();
    let Some(mounted) = Mounted::new(&store, &["--no-agent"]) else { return };
    mounted.evict_all();
    store.bring_back();
    let indexes = || {
        let names = fs::read_dir(store.at("store/index")).unwrap();
        names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let dump = store.run("index dump", &[]).ok();
    for (how, number) in [([].as_slice(), "2"), (&["--full-scan"], "3"), (&["--from-cloud"], "4")] {
        let said = store.run("index rebuild", how).ok();
        assert!(said.contains("from 1 tarballs"), "{said}");
        assert_eq!(indexes(), [number], "what was replaced is gone");
        assert_eq!(store.run("index dump", &[]).ok(), dump);
    }
    same(&store.tree(), &mounted.directory);

    // What is damaged would not be in a new one: the one that is there knows more.
    let tarballs = ["store", "cloud"].map(|directory| store.tarballs(directory).remove(0));
    let whole = fs::read(&tarballs[0]).unwrap();
    for tarball in &tarballs {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(tarball, bytes).unwrap();
    }
    let refused = store.run("index rebuild", &["--full-scan"]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains("the index in use stays"), "{}", refused.err);
    assert_eq!(indexes(), ["4"]);
    assert_eq!(store.run("index dump", &[]).ok(), dump);
    for tarball in &tarballs {
        fs::write(tarball, &whole).unwrap();
    }
    mounted.kill();
    // What a crash leaves: an index in the making, or one that is whole but was not in use yet.
    // What is no index is left alone.
    let at = |name: &str| Path::new(&store.at("store/index")).join(name);
    fs::create_dir_all(at("new-x/index")).unwrap();
    fs::create_dir(at("lost+found")).unwrap();
    run::<PathBuf>("cp", ["-a".into(), at("4"), at("5")]);
    assert_eq!(store.run("index dump", &[]).ok(), dump);
    let mut left = indexes();
    left.sort();
    assert_eq!(left, ["5", "lost+found"]);
    store.run("fsck", &[]).ok();
}

#[test]
fn an_index_of_a_restored_store_is_rebuilt_while_it_is_in_use() {
    let original = Store::new(&[]);
    original.import();
    original.run("snapshot", &[]).ok();
    let (restored, key) = (original.at("restored"), original.at("store/identity.key"));
    tier(&["restore", &restored, "--cloud", &original.cloud_url(), "--identity", &key]).ok();
    tier(&["takeover", &restored]).ok();
    let Some(mounted) = Mounted::of(&original, &restored, &["--no-agent"]) else { return };
    fs::write(mounted.path("late"), "late").unwrap();
    // Committed here, and not in the cloud, which has all that was before.
    let (cloud, away) = (original.at("cloud"), original.at("cloud.away"));
    fs::rename(&cloud, &away).unwrap();
    fs::write(&cloud, "").unwrap();
    assert_ne!(tier(&["snapshot", &restored]).code, 0);
    fs::remove_file(&cloud).unwrap();
    fs::rename(&away, &cloud).unwrap();
    let dump = tier(&["index", "dump", &restored]).ok();
    assert!(dump.lines().filter(|line| line.starts_with("tarball ")).count() == 2, "{dump}");
    for how in [[].as_slice(), &["--full-scan"], &["--from-cloud"]] {
        tier(&[&["index", "rebuild", &restored], how].concat()).ok();
        assert_eq!(tier(&["index", "dump", &restored]).ok(), dump);
    }
    tier(&["index", "check", &restored]).ok();
    assert_eq!(fs::read_to_string(mounted.path("late")).unwrap(), "late");
    assert_eq!(fs::read_to_string(mounted.path("hello")).unwrap(), "hello\n");
    mounted.unmount();
}

#[test]
fn what_was_synced_survives_a_kill() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    let mut file = File::create(mounted.path("new")).unwrap();
    file.write_all(b"safe").unwrap();
    file.sync_all().unwrap();
    fs::rename(mounted.path("new"), mounted.path("old")).unwrap();
    File::open(&mounted.directory).unwrap().sync_all().unwrap();
    mounted.kill();
    // The socket that is left is no hindrance.
    assert!(Path::new(&store.at("store/control.sock")).exists());
    assert_eq!(store.run("cat", &["/old"]).ok(), "safe");
    let mounted = Mounted::new(&store, &["--read-only"]).unwrap();
    assert_eq!(fs::read(mounted.path("old")).unwrap(), b"safe");
    fs::write(mounted.path("old"), "x").unwrap_err();
    mounted.unmount();
}

#[test]
fn data_that_does_not_come_is_an_error_until_it_comes_again() {
    let store = Store::new(&[]);
    store.import();
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    mounted.evict_all();
    let directories = ["store/tarballs", "cloud"].map(|directory| store.at(directory));
    for directory in &directories {
        fs::rename(directory, format!("{directory}.away")).unwrap();
    }
    let error = fs::read(mounted.path("dir/sub/noise")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    for directory in &directories {
        let _ = fs::remove_dir_all(directory);
        fs::rename(format!("{directory}.away"), directory).unwrap();
    }
    same(&store.tree(), &mounted.directory);
    let said = mounted.unmount();
    assert!(said.contains("cannot recall the data of inode"), "{said}");
}

#[test]
fn a_process_that_waits_for_data_can_be_killed() {
    let store = Store::new(&[]);
    store.import();
    // Longer than this test may take.
    let config = store.at("store/tier.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("timeout_seconds = 30", "timeout_seconds = 300")).unwrap();
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    mounted.evict_all();
    // An archive that does not answer: opening a pipe waits for its other end.
    let mut pipes = store.tarballs("store/tarballs");
    pipes.extend(store.tarballs("cloud"));
    for pipe in &pipes {
        fs::remove_file(pipe).unwrap();
        run("mkfifo", [pipe]);
    }
    let path = mounted.path("dir/text");
    let mut waits = Command::new("truncate").arg("-s").arg("100").arg(path).spawn().unwrap();
    let begin = Instant::now();
    let waiting = format!("/proc/{}/wchan", waits.id());
    while !fs::read_to_string(&waiting).is_ok_and(|at| at.contains("request_wait_answer")) {
        assert!(waits.try_wait().unwrap().is_none(), "it did not wait");
        assert!(begin.elapsed() < WAIT_MAX, "it does not begin to wait");
        std::thread::yield_now();
    }
    run("kill", ["-INT".to_string(), waits.id().to_string()]);
    assert!(!waits.wait().unwrap().success());
    assert!(begin.elapsed() < WAIT_MAX);
    // Others are served all the while.
    assert_eq!(fs::read_link(mounted.path("dir/link")).unwrap(), Path::new("../hello"));
    for pipe in &pipes {
        let _ = OpenOptions::new().read(true).write(true).open(pipe);
    }
    mounted.kill();
}

#[test]
fn a_mount_in_use_goes_on_until_it_is_not() {
    let store = Store::new(&[]);
    store.import();
    let Some(mut mounted) = Mounted::new(&store, &[]) else { return };
    let mut open = File::open(mounted.path("dir/text")).unwrap();
    mounted.signal("TERM");
    let mut line = String::new();
    mounted.said.read_line(&mut line).unwrap();
    assert!(line.contains("is in use"), "{line}");
    assert!(!mounted.path("dir").exists(), "it is out of sight");
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content.len(), 300_000);
    drop(open);
    assert!(mounted.child.wait().unwrap().success());
}

#[test]
fn a_mount_is_known_by_its_type_its_source_and_its_options() {
    let store = Store::new(&[]);
    let options = "ro,rw,exec,nosuid,nodev,noexec,noatime,_netdev";
    let Some(mounted) = Mounted::new(&store, &["-o", options]) else { return };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let at = mounted.directory().display().to_string();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&at)).unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!((fields[0], fields[2]), (store.path().as_str(), "fuse.tier"));
    for option in ["rw", "nosuid", "nodev", "noexec"] {
        assert!(fields[3].split(',').any(|it| it == option), "{line}");
    }
    fs::write(mounted.path("f"), "x").unwrap();
    let accessed = fs::metadata(mounted.path("f")).unwrap().atime_nsec();
    assert_eq!(fs::read(mounted.path("f")).unwrap(), b"x");
    assert_eq!(fs::metadata(mounted.path("f")).unwrap().atime_nsec(), accessed);
    mounted.unmount();
    let mounted = Mounted::new(&store, &["-o", "ro"]).unwrap();
    assert!(fs::write(mounted.path("f"), "y").is_err());
    let refused = tier(&["mount", &store.path(), &at, "-o", "no_such_option"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
}

#[test]
fn a_mount_waits_for_its_predecessor_to_close_the_store() {
    let store = Store::new(&[]);
    let Some(mut mounted) = Mounted::new(&store, &[]) else { return };
    for _ in 0..5 {
        // Not synced, so that closing takes a moment.
        fs::write(mounted.path("f"), vec![7; 20_000_000]).unwrap();
        run("umount", [mounted.directory()]);
        let next = Mounted::new(&store, &[]).unwrap();
        let mut before = std::mem::replace(&mut mounted, next);
        assert!(before.child.wait().unwrap().success());
        // Its directory is that of the next one.
        std::mem::forget(before);
    }
    mounted.unmount();
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let store = Store::new(&[]);
    let mut nohup = Command::new("nohup");
    nohup.arg(command(&[]).get_program());
    let Some(mounted) = Mounted::started(&store, nohup, &store.path(), &[]) else { return };
    mounted.signal("HUP");
    // A process that heeded it would be told of it before this.
    store.run("snapshot", &[]).ok();
    fs::write(mounted.path("f"), "x").unwrap();
    mounted.unmount();
}

#[test]
fn the_helper_of_mount_returns_when_the_store_is_mounted_or_says_why_not() {
    let store = Store::new(&[]);
    let Some(mounted) = Mounted::new(&store, &[]) else { return };
    let directory = mounted.directory().to_path_buf();
    mounted.unmount();
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/mount.fuse.tier");
    let mount = |options: &str| {
        let mut helper = Command::new(&helper);
        helper.args([&store.path(), &directory.display().to_string()]).args(["-s", "-o", options]);
        helper.env("TIER", env!("CARGO_BIN_EXE_tier")).env("TIER_MOUNT_LOG", store.at("log"));
        Run::of(&helper.output().unwrap())
    };
    let has_option = |option: &str| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let at = directory.display().to_string();
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&at)).unwrap();
        line.split([' ', ',']).any(|it| it == option)
    };
    mount("rw,nosuid,noatime,nofail,x-systemd.automount,user=me").ok();
    assert!(has_option("fuse.tier") && has_option("nosuid") && has_option("rw"));
    fs::write(directory.join("f"), "content").unwrap();
    run("umount", [&directory]);
    mount("ro").ok();
    assert!(has_option("ro"));
    assert_eq!(fs::read(directory.join("f")).unwrap(), b"content");
    run("umount", [&directory]);
    let refused = mount("no_such_option");
    assert_eq!(refused.code, 32);
    assert!(refused.err.contains("no_such_option"), "{}", refused.err);
    let log = fs::read_to_string(store.at("log")).unwrap();
    assert_eq!(log.matches("Mounted ").count(), 2, "{log}");
    // The process of the last mount has ended when it lets go of the store.
    Mounted::new(&store, &[]).unwrap().unmount();
}
