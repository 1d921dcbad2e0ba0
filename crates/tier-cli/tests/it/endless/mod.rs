//! A disk that never fills: many times as much data as a small disk holds is written through a
//! mount at full speed, with overwrites, deletions and reads of old files all the while, and a
//! cloud elsewhere that is away for a time in the middle. No error is seen but what a cold read
//! says while the cloud is away, every file reads back equal at the end, and the disk always has
//! room left.
//!
//! `TIER_ENDLESS_DISK_MB`, `TIER_ENDLESS_DATA_MB`, `TIER_ENDLESS_FILE_MB` (the largest file),
//! `TIER_ENDLESS_AWAY_SECONDS` and `TIER_ENDLESS_SEED` say how much of it there is; with
//! `TIER_ENDLESS_TARBALL_BYTES=0` tarballs are as long as a store makes them unless told otherwise.
//! `TIER_ENDLESS_CLOUD=seaweed` takes a bucket for the cloud. With `--nocapture` it tells how it
//! goes.

mod cloud;
mod content;
mod worker;

pub(crate) use content::Version;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tier_testkit::servers::Seaweed;

use crate::full_disk::disk::LoopDisk;
use crate::full_disk::mounted::Mounted;
use crate::harness::{Run, command};
use crate::random::{number, seed};
use cloud::Cloud;
use worker::{Shared, Worker};

const MB: u64 = 1 << 20;
const N_WORKERS: u64 = 2;

/// How much of it there is.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    disk_bytes: u64,
    data_bytes: u64,
    file_bytes_max: u64,
    away: Duration,
    tarball_bytes: u64,
}

impl Sizes {
    fn of_environment() -> Self {
        let megabytes = |name, default| number(name).unwrap_or(default) * MB;
        Self {
            disk_bytes: megabytes("TIER_ENDLESS_DISK_MB", 1000),
            data_bytes: megabytes("TIER_ENDLESS_DATA_MB", 4000),
            file_bytes_max: megabytes("TIER_ENDLESS_FILE_MB", 60),
            away: Duration::from_secs(number("TIER_ENDLESS_AWAY_SECONDS").unwrap_or(5)),
            tarball_bytes: number("TIER_ENDLESS_TARBALL_BYTES").unwrap_or(16 << 20),
        }
    }
}

fn set_tarball_bytes(store: &Path, bytes: u64) {
    let path = store.join("tier.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let changed =
        settings.replace("tarball_bytes = 134217728", &format!("tarball_bytes = {bytes}"));
    assert_ne!(changed, settings);
    fs::write(&path, changed).unwrap();
}

/// The cloud goes away while data is written, and comes back.
fn take_cloud_away(cloud: &Cloud, sizes: Sizes, shared: &Shared) {
    let (_never, timer) = mpsc::channel::<()>();
    // Nothing is sent: this waits for the time to pass.
    let wait = |time: Duration| {
        let _ = timer.recv_timeout(time);
    };
    while shared.written.load(Ordering::SeqCst) < sizes.data_bytes / 3 && !shared.is_over() {
        wait(Duration::from_millis(50));
    }
    shared.is_away.store(true, Ordering::SeqCst);
    cloud.set_away(true);
    let begin = Instant::now();
    let n_reads = shared.n_hot_reads.load(Ordering::SeqCst);
    while begin.elapsed() < sizes.away && !shared.has_failed() {
        wait(Duration::from_millis(50));
    }
    // Readers of what is hot do not wait with the writers.
    while shared.n_hot_reads.load(Ordering::SeqCst) < n_reads + 10 && !shared.has_failed() {
        wait(Duration::from_millis(5));
    }
    cloud.set_away(false);
    shared.is_away.store(false, Ordering::SeqCst);
}

/// The most that was taken of a disk, in bytes, until the end.
fn watch_disk(disk: &Path, shared: &Shared) -> u64 {
    let (mut most, begin) = (0, Instant::now());
    let (_never, timer) = mpsc::channel::<()>();
    let mut last_told = 0;
    while !shared.has_ended.load(Ordering::SeqCst) {
        let stat = rustix::fs::statvfs(disk).unwrap();
        most = most.max((stat.f_blocks - stat.f_bfree) * stat.f_frsize);
        if begin.elapsed().as_secs() >= last_told + 5 {
            last_told = begin.elapsed().as_secs();
            let written = shared.written.load(Ordering::SeqCst) / MB;
            println!("{last_told} s: {written} MiB written, at most {} MiB taken", most / MB);
        }
        let _ = timer.recv_timeout(Duration::from_millis(100));
    }
    most
}

#[test]
fn a_disk_never_fills_as_long_as_the_cloud_has_room() {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
        return;
    }
    let (sizes, seed) = (Sizes::of_environment(), seed("TIER_ENDLESS_SEED"));
    println!("TIER_ENDLESS_SEED={seed}, {sizes:?}");
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = LoopDisk::new(dir.path(), sizes.disk_bytes) else { return };
    let store = disk.path().join("store");
    let Some(cloud) = Cloud::of_environment(dir.path()) else { return };
    let on = dir.path().join("mnt");
    fs::create_dir(&on).unwrap();
    let tier = |args: &[&str]| {
        let mut command = command(args);
        Run::of(&command.envs(Seaweed::ENVIRONMENT).output().unwrap()).ok()
    };
    tier(&["init", &store.display().to_string(), "--cloud", &cloud.url()]);
    if sizes.tarball_bytes > 0 {
        set_tarball_bytes(&store, sizes.tarball_bytes);
    }
    let mounted = Mounted::with_keys(&store, &on, &Seaweed::ENVIRONMENT);
    let shared = Shared {
        left: AtomicU64::new(sizes.data_bytes),
        file_bytes_max: sizes.file_bytes_max,
        ..Shared::default()
    };
    let hot: PathBuf = on.join("hot");
    let workers = thread::scope(|scope| {
        let watching = scope.spawn(|| watch_disk(disk.path(), &shared));
        scope.spawn(|| worker::read_hot(&hot, &shared));
        let workers: Vec<_> = (0..N_WORKERS)
            .map(|n| {
                scope.spawn({
                    let (on, shared) = (&on, &shared);
                    move || Worker::new(on, n, seed).run(shared)
                })
            })
            .collect();
        if !sizes.away.is_zero() {
            take_cloud_away(&cloud, sizes, &shared);
        }
        let workers: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        shared.has_ended.store(true, Ordering::SeqCst);
        let most = watching.join().unwrap();
        assert!(most < sizes.disk_bytes / 100 * 99, "{most} bytes of the disk were taken");
        workers
    });
    for worker in workers {
        worker.unwrap().compare_all();
    }
    mounted.unmount();
    tier(&["fsck", &store.display().to_string()]);
    assert!(!AtomicBool::into_inner(shared.failed), "a worker failed");
}
