//! A mounted store on a disk that loses its power, fills up, fails syncs and flips bits.
//!
//! After every fault the store is checked, and each writer's files are compared with what it did
//! (`work`): what a sync covered is there, and everything else is as it was at some moment since.
//!
//! `TIER_POWER_ROUNDS=500` makes the long run of it, which `cargo xtask full` does. A test that
//! fails names its seed, which `TIER_POWER_SEED` gives to the next run, and keeps the disk as the
//! last fault left it.

mod flips;
mod full;
mod loss;
mod syncs;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;

use tempfile::TempDir;

use crate::fragile_disk::{DiskImage, FragileDisk};
use crate::random::{self, Random};
use crate::work::{Found, History, Mount, Work, WorkStore, remove_directory};

/// Faults that one store meets.
const N_ROUNDS_OF_STORE: u64 = 20;

/// A store on a fragile disk, and the work on it.
struct Bench {
    seed: u64,
    random: Random,
    dir: TempDir,
    disk: Option<FragileDisk>,
    store: WorkStore,
    work: Work,
    /// The disk as the last fault left it.
    left: Option<DiskImage>,
}

/// Runs a test on as many stores as it takes for so many rounds: those of the long run, of which
/// the test does a share, or else its usual ones.
fn on_stores(n_usual: u64, share: u64, test: impl Fn(&mut Bench, u64)) {
    let mut n_left = random::number("TIER_POWER_ROUNDS").map_or(n_usual, |n| n.div_ceil(share));
    let first = random::seed("TIER_POWER_SEED");
    for seed in first.. {
        let n_rounds = n_left.min(N_ROUNDS_OF_STORE);
        if n_rounds == 0 {
            break;
        }
        let Some(mut bench) = Bench::new(seed) else { return };
        test(&mut bench, n_rounds);
        n_left -= n_rounds;
    }
}

impl Bench {
    /// `None`, said loudly, on a machine that cannot mount.
    fn new(seed: u64) -> Option<Self> {
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let on = dir.path().join("disk");
        fs::create_dir(&on).unwrap();
        let disk = Some(FragileDisk::mount(&on).unwrap());
        let store = WorkStore::init(&on);
        let mut random = Random::new(seed);
        let work = Work::new(&mut random);
        let bench = Self { seed, random, dir, disk, store, work, left: None };
        let mounted = bench.mount();
        bench.work.begin(mounted.directory());
        mounted.unmount();
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self) -> Mount {
        Mount::new(&self.store.path(), &self.path("mnt"))
    }

    fn disk(&self) -> &FragileDisk {
        self.disk.as_ref().expect("it is mounted but for a moment")
    }

    /// What is left of a disk. Of all that was not synced a share reached it, from nothing to
    /// everything.
    fn left(&mut self, image: &DiskImage) -> DiskImage {
        let (share, random) = (self.random.below(5), &mut self.random);
        image.left(&mut || random.below(4) < share)
    }

    /// Goes on with what is left of the disk, as a machine does that starts again. Returns what is
    /// found.
    fn restart(&mut self, left: DiskImage, histories: &[History]) -> Vec<Found> {
        let left = self.left.insert(left);
        // One after the other: both are mounted on one directory.
        drop(self.disk.take());
        self.disk = Some(FragileDisk::mount_image(&self.dir.path().join("disk"), left).unwrap());
        self.store.check(&self.path("out"), &self.work.writers, histories)
    }

    /// Checks a copy of what is left of the disk.
    fn check_copy(&mut self, left: DiskImage, histories: &[History]) {
        let directory = self.path("copy");
        let left = self.left.insert(left);
        left.write(&directory).unwrap();
        let store = WorkStore::moved(&directory, &self.path("disk"));
        store.check(&self.path("out"), &self.work.writers, histories);
        store.go_on();
        remove_directory(&directory);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        eprintln!("TIER_POWER_SEED={} repeats it", self.seed);
        let Some(left) = &self.left else { return };
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-{}", self.seed));
        match left.write(&kept) {
            Ok(()) => eprintln!("the disk as the last fault left it: {}", kept.display()),
            Err(error) => eprintln!("the disk cannot be kept in {}: {error}", kept.display()),
        }
    }
}
