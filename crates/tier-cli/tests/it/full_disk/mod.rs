//! A mounted store on a disk that another program fills to the last byte at any moment, under load:
//! no error but `ENOSPC`, nothing lost that was acknowledged, and writing goes on by itself when
//! the other program gives some of it back.
//!
//! Each session mounts the store, has writers work on the mount, and fills the disk at moments that
//! a seed chooses; with each filling a snapshot is under way. A session ends with an unmount, or
//! with the process killed, on a full disk or on one with room. Then the store is checked, and
//! every writer compares what the next mount shows with what it was promised.
//!
//! `TIER_FULL_DISK_SESSIONS` says how many sessions there are, `TIER_FULL_DISK_SEED` which moments
//! are chosen. A run that fails says its seed and keeps its directory.

pub(crate) mod disk;
mod model;
pub(crate) mod mounted;
mod writer;

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::{Run, command, tier};
use disk::LoopDisk;
use mounted::Mounted;
use writer::{End, Progress, Random, Signals, Writer};

const DISK_BYTES: u64 = 1 << 30;
const GIVEN_BACK_BYTES: u64 = 100_000_000;
const N_WRITERS: u64 = 4;
/// One for each way to end.
const N_SESSIONS: u64 = 3;
/// A store keeps its tarballs, so that one disk has room for those of so many sessions.
const N_SESSIONS_DISK: usize = 12;
/// Times that the disk is filled in a session.
const N_FILLINGS: usize = 2;
/// Writes of each writer that show that it goes on.
const N_WRITES: u64 = 3;
/// Steps of all writers between one event and the next.
const N_STEPS_MAX: usize = 200;
/// The same while the disk is full.
const N_STEPS_FULL_MAX: usize = 12;
/// How often the other program looks for room.
const FILL_INTERVAL: Duration = Duration::from_millis(200);
/// A last guard: RocksDB tries every 5 seconds whether it can go on.
const WAIT_MAX: Duration = Duration::from_mins(2);

/// The number that a variable of the environment gives, or another one without it.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Asks again and again, until it is so or a writer has failed.
fn wait_for(what: &str, signals: &Signals, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    let (_never, timer) = mpsc::channel::<()>();
    while !is_so() {
        assert!(!signals.failed.load(Ordering::SeqCst), "a writer failed");
        assert!(begin.elapsed() < WAIT_MAX, "it does not come that {what}");
        // Nothing is sent: this lets the others have the processor.
        let _ = timer.recv_timeout(Duration::from_millis(5));
    }
}

/// How a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Unmount,
    Kill,
    KillOnFullDisk,
}

const ENDINGS: [Ending; 3] = [Ending::Unmount, Ending::KillOnFullDisk, Ending::Kill];

/// The store, its disk, and all that is known of it.
struct Scene {
    random: Random,
    store: PathBuf,
    mount: PathBuf,
    /// Whether the other program has the whole disk.
    is_full: bool,
    disk: LoopDisk,
    // The last one, because the disk is in it.
    dir: TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("the disk is kept: {}", self.dir.path().join("image").display());
        }
    }
}

impl Scene {
    /// `None`, said loudly, on a machine that cannot mount.
    fn new(seed: u64) -> Option<Self> {
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = LoopDisk::new(dir.path(), DISK_BYTES)?;
        let (store, mount) = (disk.path().join("store"), dir.path().join("mnt"));
        fs::create_dir(&mount).unwrap();
        // Not on that disk, which is full.
        let cloud = format!("file://{}", dir.path().join("cloud").display());
        tier(&["init", &store.display().to_string(), "--cloud", &cloud]).ok();
        // The agent tries to make room for as long as operations wait, and this disk is full for
        // good until it is given back.
        let config = store.join("tier.toml");
        let text = fs::read_to_string(&config).unwrap();
        let brief = text.replace("stall_seconds = 300", "stall_seconds = 20");
        assert_ne!(brief, text, "the setting is there");
        fs::write(&config, brief).unwrap();
        Some(Self { random: Random::new(seed), store, mount, is_full: false, disk, dir })
    }

    fn tier(&self, name: &str, args: &[&str]) -> Run {
        tier(&[&[name], args, &[&self.store.display().to_string()]].concat())
    }

    /// Lets the writers do so many steps as chance says. On a full disk a step may take as long as
    /// operations wait for room.
    fn wait_a_moment(&mut self, signals: &Signals, progress: &[Arc<Progress>]) {
        let n_steps = || progress.iter().map(|one| one.n_steps()).sum::<u64>();
        let n_wanted = if self.is_full { N_STEPS_FULL_MAX } else { N_STEPS_MAX };
        let until = n_steps() + u64::try_from(self.random.below(n_wanted)).unwrap();
        wait_for("the writers go on", signals, || n_steps() >= until);
    }

    /// The other program takes the disk, and again what the store gives back of it meanwhile, until
    /// every writer was refused.
    fn fill(&mut self, signals: &Signals, progress: &[Arc<Progress>]) {
        self.disk.fill();
        self.is_full = true;
        let mut filled = Instant::now();
        let refused = |one: &Progress| one.refused.load(Ordering::SeqCst);
        let before: Vec<_> = progress.iter().map(|one| refused(one)).collect();
        wait_for("every writer is refused", signals, || {
            // The store makes room, as it should, and its writers would go on with that for ever.
            if filled.elapsed() >= FILL_INTERVAL {
                self.disk.fill();
                filled = Instant::now();
            }
            progress.iter().zip(&before).all(|(one, before)| refused(one) > *before)
        });
    }

    /// The other program gives some of it back, and every writer goes on.
    fn give_back(&mut self, signals: &Signals, progress: &[Arc<Progress>]) {
        self.disk.give_back(GIVEN_BACK_BYTES);
        self.is_full = false;
        let written = |one: &Progress| one.written.load(Ordering::SeqCst);
        let before: Vec<_> = progress.iter().map(|one| written(one)).collect();
        wait_for("every writer writes again", signals, || {
            progress.iter().zip(&before).all(|(one, before)| written(one) >= before + N_WRITES)
        });
    }

    /// Fills the disk while a snapshot is made, and gives room back.
    fn filling(&mut self, signals: &Signals, progress: &[Arc<Progress>]) {
        let snapshot = self.start_snapshot();
        self.wait_a_moment(signals, progress);
        self.fill(signals, progress);
        self.wait_a_moment(signals, progress);
        if self.random.below(2) == 0 {
            // Also what the store has freed meanwhile, and what it kept for its recovery.
            self.fill(signals, progress);
            self.wait_a_moment(signals, progress);
        }
        self.give_back(signals, progress);
        is_made(&Run::of(&snapshot.wait_with_output().unwrap()));
        wait_for("a snapshot is made again", signals, || is_made(&self.tier("snapshot", &[])));
        self.tier("evict", &["--all"]).ok();
    }

    fn start_snapshot(&self) -> Child {
        let mut snapshot = command(&["snapshot", &self.store.display().to_string()]);
        snapshot.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Has the writers work on a mount until it ends in one way or another.
    fn session(&mut self, mounted: Mounted, writers: &mut [Writer], ending: Ending) {
        let signals = Signals::default();
        let progress: Vec<_> = writers.iter().map(Writer::progress).collect();
        let still_mounted = thread::scope(|scope| {
            // Also if what follows fails: then the writers must end. What was moved in here, the
            // mount, ends before they are waited for.
            let _end = End(&signals);
            for writer in &mut *writers {
                let signals = &signals;
                scope.spawn(move || writer.run(signals));
            }
            if self.is_full {
                self.give_back(&signals, &progress);
            }
            for _ in 0..N_FILLINGS {
                self.filling(&signals, &progress);
            }
            if ending == Ending::KillOnFullDisk {
                self.fill(&signals, &progress);
            }
            self.wait_a_moment(&signals, &progress);
            if ending == Ending::Unmount {
                return Some(mounted);
            }
            signals.killed.store(true, Ordering::SeqCst);
            mounted.kill();
            None
        });
        if let Some(mounted) = still_mounted {
            writers.iter().for_each(Writer::check);
            mounted.unmount();
        }
        self.check_store();
    }

    /// The store is whole. On a full disk it may not open: the room that was kept for that may be
    /// used up, and then it opens when there is some again.
    fn check_store(&mut self) {
        let checked = self.tier("fsck", &[]);
        if self.is_full && checked.code == 1 && is_no_space(&checked.err) {
            self.disk.give_back(GIVEN_BACK_BYTES);
            self.is_full = false;
            self.tier("fsck", &[]).ok();
        } else {
            checked.ok();
        }
    }
}

/// Whether a snapshot was made, for which there may have been no room.
fn is_made(snapshot: &Run) -> bool {
    let Run { code, err, .. } = snapshot;
    assert!(*code == 0 || (*code == 1 && is_no_space(err)), "{err}");
    *code == 0
}

/// Whether the disk is what a command failed for: there is no room, or the key-value store was
/// opened again after there was none.
fn is_no_space(said: &str) -> bool {
    let reasons = ["the store is full", "is full", "No space left", "publish again"];
    reasons.iter().any(|reason| said.contains(reason))
}

/// Sessions on one disk.
fn sessions(seed: u64, n_sessions: usize) {
    eprintln!("TIER_FULL_DISK_SEED={seed}");
    let Some(mut scene) = Scene::new(seed) else { return };
    let mut mounted = Mounted::new(&scene.store, &scene.mount);
    let new_writer = |number| {
        let directory = scene.mount.join(format!("writer-{number}"));
        fs::create_dir(&directory).unwrap();
        Writer::new(number, seed, directory)
    };
    let mut writers: Vec<_> = (0..N_WRITERS).map(new_writer).collect();
    for ending in ENDINGS.iter().cycle().take(n_sessions) {
        scene.session(mounted, &mut writers, *ending);
        mounted = Mounted::new(&scene.store, &scene.mount);
        writers.iter_mut().for_each(Writer::check_and_settle);
    }
    mounted.unmount();
}

#[test]
fn a_disk_that_another_program_fills_costs_nothing_that_was_acknowledged() {
    let n_sessions = usize::try_from(setting("TIER_FULL_DISK_SESSIONS", N_SESSIONS)).unwrap();
    let seeds = setting("TIER_FULL_DISK_SEED", 1)..;
    for (seed, begun) in seeds.zip((0..n_sessions).step_by(N_SESSIONS_DISK)) {
        sessions(seed, N_SESSIONS_DISK.min(n_sessions - begun));
    }
}
