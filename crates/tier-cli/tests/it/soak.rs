//! A soak: a store that may take a quarter of what is in it, with its agent at work, readers of
//! what is evicted, and writers that append, write over, cut, rename and remove; every few seconds
//! its process is killed. Whatever comes of that, each file is what its history says.
//!
//! `TIER_SOAK_SECONDS` says how long it lasts, `TIER_SOAK_SEED` which moments are chosen; `cargo
//! xtask soak` runs it for minutes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::endless::Version;
use crate::harness::tier;
use crate::random::{self, Random};
use crate::work::{Found, Mount, Tolerance, Work, WorkStore};

const SECONDS_USUAL: u64 = 60;
/// What the store may take.
const CAPACITY_BYTES: u64 = 64 << 20;
/// Files that are written once, of four times as much.
const N_FILES: u64 = 128;
const FILE_BYTES: usize = 2 << 20;
const N_STEPS_MAX: u64 = 400;
/// A snapshot that is asked for may find no room, and the agent makes some; a writer waits for it.
const TOLERANCE: Tolerance = Tolerance { of_steps: &[], of_commands: &[0, 1] };

fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    Version(number + 1).fill(0, &mut bytes);
    bytes
}

fn path_of(mount: &Path, number: u64) -> PathBuf {
    mount.join("fixed").join(number.to_string())
}

/// Writes what stays, through a mount whose writers wait for room nearly all the time.
fn write_fixed(mount: &Path) {
    fs::create_dir(mount.join("fixed")).unwrap();
    for number in 0..N_FILES {
        let mut file = File::create(path_of(mount, number)).unwrap();
        file.write_all(&content(number)).unwrap();
        file.sync_all().unwrap();
    }
}

/// Reads what stays until it is told to end. An error counts only before.
fn read_fixed(mount: &Path, seed: u64, is_ended: &AtomicBool, n_reads: &AtomicU64) {
    let mut random = Random::new(seed);
    while !is_ended.load(Ordering::SeqCst) {
        let number = random.below(N_FILES);
        match fs::read(path_of(mount, number)) {
            Ok(bytes) => {
                assert!(bytes == content(number), "file {number} differs");
                n_reads.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                assert!(is_ended.load(Ordering::SeqCst), "file {number}: {error}");
            }
        }
    }
}

fn set_capacity(store: &WorkStore) {
    let path = store.path().join("tier.toml");
    let text = fs::read_to_string(&path).unwrap();
    let small = text
        .replace("capacity_bytes = 0", &format!("capacity_bytes = {CAPACITY_BYTES}"))
        .replace("snapshot_seconds = 300", "snapshot_seconds = 5");
    assert_ne!(small, text);
    fs::write(&path, small).unwrap();
}

#[test]
fn a_full_store_that_is_killed_again_and_again_keeps_every_file() {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
        return;
    }
    let seconds = random::number("TIER_SOAK_SECONDS").unwrap_or(SECONDS_USUAL);
    let seed = random::seed("TIER_SOAK_SEED");
    println!("TIER_SOAK_SEED={seed}");
    let (begin, dir) = (Instant::now(), tempfile::tempdir().unwrap());
    let (on, out) = (dir.path().join("mnt"), dir.path().join("out"));
    let mut random = Random::new(seed);
    let store = WorkStore::init(dir.path());
    set_capacity(&store);
    let work = Work::new(&mut random);
    let mut found: Option<Vec<Found>> = None;
    let (n_reads, mut n_kills) = (AtomicU64::new(0), 0);
    while begin.elapsed() < Duration::from_secs(seconds) || n_kills < 2 {
        let mounted = Mount::new(&store.path(), &on);
        match &found {
            None => {
                write_fixed(&on);
                work.begin(&on);
            }
            Some(found) => work.adopt(&on, found),
        }
        let n_steps = random.below(N_STEPS_MAX);
        let is_ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let (on, is_ended, n_reads, seed) = (&on, &is_ended, &n_reads, random.next());
            scope.spawn(move || read_fixed(on, seed, is_ended, n_reads));
            work.during(&store, on, TOLERANCE, |progress| {
                progress.wait(n_steps);
                progress.end();
                is_ended.store(true, Ordering::SeqCst);
                mounted.kill();
            });
        });
        n_kills += 1;
        work.writers.iter().for_each(|writer| writer.history.lock().forget_before_reached());
        found = Some(store.check(&out, &work.writers, &work.histories()));
        for number in 0..N_FILES {
            let bytes = fs::read(path_of(&out, number)).unwrap();
            assert!(bytes == content(number), "file {number} differs, kill {n_kills}");
        }
    }
    tier(&["verify", &store.name()]).ok();
    let (n_reads, elapsed) = (n_reads.into_inner(), begin.elapsed());
    println!("{n_kills} kills and {n_reads} reads of evicted files in {elapsed:?}");
}
