//! A real distributed object store, on machines that fail, and two machines that use it.
//!
//! `cargo xtask cluster` runs it, with `TIER_CLUSTER_SECONDS` for how long each of its servers is
//! away. Without that nothing is done here: it takes minutes, root, and ten namespaces.

mod network;
mod servers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tier_testkit::{noise, servers::Seaweed};
use tier_types::{to_u64, to_usize};

use crate::full_disk::mounted::Mounted;
use crate::harness::{Run, command};
use crate::random::number;
use network::{Machine, Network};
use servers::{Cluster, MACHINES, OTHER, WRITER, wait};

/// A reader waits no longer than its recall may take, and a little.
const READ_MAX: Duration = Duration::from_secs(40);

struct Scene {
    dir: tempfile::TempDir,
    cluster: Cluster,
    network: Network,
}

impl Scene {
    fn start() -> Option<(Self, Duration)> {
        let Some(seconds) = number("TIER_CLUSTER_SECONDS") else {
            println!("not wanted: cargo xtask cluster runs it");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let network = Network::new(&MACHINES)?;
        let cluster = Cluster::start(dir.path(), &network)?;
        let scene = Self { dir, cluster, network };
        scene.on(WRITER, &["keygen", "-o", "DIR/id"]).ok();
        scene.on(WRITER, &["init", "DIR/store", "--identity", "DIR/id", "--cloud", "URL"]).ok();
        Some((scene, Duration::from_secs(seconds)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command on a machine.
    fn on(&self, machine: usize, args: &[&str]) -> Run {
        let (dir, url) = (self.dir.path().display().to_string(), self.cluster.url());
        let args = args.iter().map(|arg| arg.replace("DIR", &dir).replace("URL", &url));
        let mut command = program(&self.network.machine(machine));
        Run::of(&command.args(args).output().unwrap())
    }
}

/// The program on a machine, with keys.
fn program(machine: &Machine) -> Command {
    let plain = command(&[]);
    let mut command = machine.command(&plain.get_program().to_string_lossy());
    command.envs(Seaweed::ENVIRONMENT);
    command
}

/// The content of a file.
fn content(number: u64) -> Vec<u8> {
    noise(to_usize(20_000 + number * 7919 % 400_000), number)
}

/// Files that are in the mount.
#[derive(Default)]
struct Written {
    n_files: Mutex<u64>,
    has_ended: AtomicBool,
}

impl Written {
    fn n_files(&self) -> u64 {
        *self.n_files.lock().unwrap()
    }

    /// Writes files, one after the other.
    fn write(&self, on: &Path) {
        while !self.has_ended.load(Ordering::SeqCst) {
            let next = self.n_files() + 1;
            fs::write(on.join(next.to_string()), content(next)).unwrap();
            *self.n_files.lock().unwrap() = next;
            wait(Duration::from_millis(20));
        }
    }

    /// Reads files by chance, whether they were evicted or not. The longest time that one took.
    fn read(&self, on: &Path) -> Duration {
        let (mut most, mut chance) = (Duration::ZERO, 1_u64);
        while !self.has_ended.load(Ordering::SeqCst) {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n_files = self.n_files();
            if n_files == 0 {
                continue;
            }
            let (began, number) = (Instant::now(), 1 + (chance >> 33) % n_files);
            let read = fs::read(on.join(number.to_string()));
            let read = read.unwrap_or_else(|error| panic!("{number}: {error}"));
            assert!(read == content(number), "{number} is another one");
            most = most.max(began.elapsed());
        }
        most
    }
}

#[test]
fn readers_and_writers_go_on_while_servers_fail() {
    let Some((mut scene, away)) = Scene::start() else { return };
    let on = scene.path("mnt");
    fs::create_dir(&on).unwrap();
    let mut mount = program(&scene.network.machine(WRITER));
    mount.arg("mount").arg(scene.path("store")).arg(&on);
    let mounted = Mounted::started_by(mount, &on);
    let written = Written::default();
    let most = thread::scope(|scope| {
        let end = EndOnDrop(&written.has_ended);
        let reader = scope.spawn(|| written.read(&on));
        scope.spawn(|| written.write(&on));
        let tier = |scene: &Scene| {
            // A snapshot may fail while servers are away, and what it has is safe here.
            drop(scene.on(WRITER, &["snapshot", "DIR/store"]));
            drop(scene.on(WRITER, &["evict", "DIR/store", "--all"]));
        };
        let go_on = |scene: &Scene| {
            let began = Instant::now();
            while began.elapsed() < away && !reader.is_finished() {
                tier(scene);
            }
        };
        go_on(&scene);
        println!("a volume server dies, {} files", written.n_files());
        scene.cluster.volume(0).kill();
        go_on(&scene);
        println!("it comes back, and another one is cut off, {} files", written.n_files());
        scene.cluster.volume(0).start_again();
        go_on(&scene);
        scene.cluster.volume(1).set_cut(true);
        go_on(&scene);
        scene.cluster.volume(1).set_cut(false);
        println!("it is back, and a master dies, {} files", written.n_files());
        scene.cluster.master(0).kill();
        go_on(&scene);
        println!("it comes back, {} files", written.n_files());
        scene.cluster.master(0).start_again();
        go_on(&scene);
        drop(end);
        reader.join().unwrap()
    });
    println!("{} files; the slowest read took {most:?}", written.n_files());
    assert!(most < READ_MAX, "{most:?}");
    scene.on(WRITER, &["snapshot", "DIR/store"]).ok();
    scene.on(WRITER, &["evict", "DIR/store", "--all"]).ok();
    let compare = |on: &Path| {
        for number in 1..=written.n_files() {
            let read = fs::read(on.join(number.to_string())).unwrap();
            assert!(read == content(number), "{number} is another one");
        }
    };
    compare(&on);
    mounted.unmount();
    scene.on(WRITER, &["fsck", "DIR/store"]).ok();
    scene.on(WRITER, &["verify", "DIR/store", "--read-data"]).ok();
    scene.on(OTHER, &["restore", "DIR/new", "--cloud", "URL", "--identity", "DIR/id"]).ok();
    scene.on(OTHER, &["export", "DIR/new", "/", "DIR/out"]).ok();
    compare(&scene.path("out"));
    assert!(written.n_files() > to_u64(10), "it was used");
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn of_two_machines_one_writes() {
    let Some((scene, _)) = Scene::start() else { return };
    let put = |machine: usize, store: &str, name: &str| {
        let tree = scene.path(&format!("tree-{name}"));
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join(name), name).unwrap();
        scene.on(machine, &["import", store, &tree.display().to_string()]).ok();
    };
    let cat = |machine: usize, store: &str, name: &str| {
        let path = format!("/{name}");
        assert_eq!(scene.on(machine, &["cat", store, &path]).ok(), name);
    };
    put(WRITER, "DIR/store", "first");
    scene.on(WRITER, &["snapshot", "DIR/store"]).ok();
    scene.on(OTHER, &["restore", "DIR/new", "--cloud", "URL", "--identity", "DIR/id"]).ok();
    cat(OTHER, "DIR/new", "first");
    // The writer is cut off, and writes on.
    let cable = scene.network.machine(WRITER);
    cable.set_cut(true);
    put(WRITER, "DIR/store", "alone");
    let alone = scene.on(WRITER, &["snapshot", "DIR/store"]);
    assert_eq!(alone.code, 1, "{}", alone.out);
    assert!(alone.err.contains("cannot be reached"), "{}", alone.err);
    cat(WRITER, "DIR/store", "first");
    scene.on(OTHER, &["takeover", "DIR/new"]).ok();
    put(OTHER, "DIR/new", "after");
    scene.on(OTHER, &["snapshot", "DIR/new"]).ok();
    scene.on(OTHER, &["evict", "DIR/new", "--all"]).ok();
    // It is back, and was replaced.
    cable.set_cut(false);
    let fenced = scene.on(WRITER, &["snapshot", "DIR/store"]);
    assert_eq!(fenced.code, 1, "{}", fenced.out);
    assert!(fenced.err.contains("was taken over by"), "{}", fenced.err);
    for name in ["first", "alone"] {
        cat(WRITER, "DIR/store", name);
    }
    for name in ["first", "after"] {
        cat(OTHER, "DIR/new", name);
    }
    scene.on(OTHER, &["verify", "DIR/new", "--read-data"]).ok();
    // Both histories are whole.
    for (epoch, name) in [("1", "first"), ("2", "after")] {
        let store = format!("DIR/epoch-{epoch}");
        let restore =
            ["restore", &store, "--cloud", "URL", "--identity", "DIR/id", "--epoch", epoch];
        scene.on(OTHER, &restore).ok();
        cat(OTHER, &store, name);
    }
    scene.on(WRITER, &["takeover", "DIR/store", "--keep-local"]).ok();
    scene.on(WRITER, &["snapshot", "DIR/store"]).ok();
    cat(WRITER, "DIR/store", "alone");
}
