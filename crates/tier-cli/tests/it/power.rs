//! Loss of power: a mounted store on a disk of which only what was synced is sure to survive.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::fragile_disk::{DiskImage, FragileDisk};
use crate::harness::{command, tier};

const RECORD_BYTES: usize = 4096;
/// A file that is written over in place, larger than three chunks.
const N_LARGE_RECORDS: usize = 52;
const N_WRITERS: usize = 3;
/// Times that the power is lost, in copies.
const N_LOSSES: usize = 6;
/// Rounds of the writers between two losses.
const N_ROUNDS: usize = 12;

/// A directory in which a writer makes promises, and how many it made.
struct Writer {
    name: String,
    /// Rounds whose every sync has returned.
    n_rounds: AtomicU64,
}

fn content(round: u64) -> Vec<u8> {
    let line = format!("round {round:08}\n");
    line.bytes().cycle().take(RECORD_BYTES).collect()
}

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

impl Writer {
    /// Appends to a log, replaces a file, makes one and removes the one before, writes over a large
    /// one, and syncs each.
    fn round(&self, mount: &Path) {
        let round = self.n_rounds.load(Ordering::SeqCst) + 1;
        let directory = mount.join(&self.name);
        let mut log = OpenOptions::new().append(true).open(directory.join("log")).unwrap();
        log.write_all(&content(round)).unwrap();
        log.sync_data().unwrap();
        fs::write(directory.join("new"), content(round)).unwrap();
        sync(&directory.join("new"));
        fs::rename(directory.join("new"), directory.join("replaced")).unwrap();
        fs::write(directory.join(format!("made-{round}")), content(round)).unwrap();
        sync(&directory.join(format!("made-{round}")));
        fs::remove_file(directory.join(format!("made-{}", round - 1))).unwrap();
        sync(&directory);
        let large = OpenOptions::new().write(true).open(directory.join("large")).unwrap();
        large.write_all_at(&content(round).repeat(N_LARGE_RECORDS), 0).unwrap();
        large.sync_data().unwrap();
        self.n_rounds.store(round, Ordering::SeqCst);
    }

    /// What a restart shows must hold what had been promised before the loss, `n_rounds`, and may
    /// hold what was promised by its end, `n_rounds_after`.
    fn check(&self, directory: &Path, n_rounds: u64, n_rounds_after: u64) {
        let directory = directory.join(&self.name);
        let log = fs::read(directory.join("log")).unwrap();
        let n_records = u64::try_from(log.len() / RECORD_BYTES).unwrap();
        assert!(n_records >= n_rounds, "{}: {n_records} of {n_rounds} records", self.name);
        for (record, round) in log.chunks_exact(RECORD_BYTES).zip(1..) {
            assert!(record == content(round), "{}: record {round} is wrong", self.name);
        }
        let replaced = fs::read(directory.join("replaced")).unwrap();
        // A round may have been under way, and some may have ended while the power went.
        let newer = n_rounds..=n_rounds_after + 1;
        assert!(newer.clone().any(|round| replaced == content(round)), "{}: torn", self.name);
        let large = fs::read(directory.join("large")).unwrap();
        assert_eq!(large.len(), N_LARGE_RECORDS * RECORD_BYTES);
        for record in large.chunks_exact(RECORD_BYTES) {
            assert!(newer.clone().any(|round| record == content(round)), "{}: torn", self.name);
        }
        let made = |round: u64| fs::read(directory.join(format!("made-{round}"))).ok();
        assert!(newer.clone().any(|round| made(round) == Some(content(round))), "{}", self.name);
        let back = (0..n_rounds).find(|round| made(*round).is_some());
        assert_eq!(back, None, "{}: a removed file is back", self.name);
    }
}

/// `None`, said loudly, on a machine that cannot mount.
fn disk(directory: &Path) -> Option<FragileDisk> {
    fs::create_dir_all(directory).unwrap();
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
        return None;
    }
    Some(FragileDisk::mount(directory).unwrap())
}

/// A store with buffers so small that files of the key-value store come and go all the time.
fn init(store: &Path, cloud: &Path) {
    let (store, cloud) = (store.display().to_string(), cloud.display());
    tier(&["init", &store, "--cloud", &format!("file://{cloud}")]).ok();
    let settings = Path::new(&store).join("tier.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let small = text.replace("kvs_write_buffer = 50331648", "kvs_write_buffer = 1048576");
    assert_ne!(small, text);
    fs::write(&settings, small).unwrap();
    sync(&settings);
}

/// A mount.
struct Mount {
    child: Child,
    on: PathBuf,
    /// Kept, because a process that writes there must not meet a closed pipe.
    _said: BufReader<ChildStderr>,
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.on).stderr(Stdio::null()).status();
    }
}

fn mount(store: &Path, on: &Path) -> Mount {
    fs::create_dir_all(on).unwrap();
    let args = ["mount", &store.display().to_string(), &on.display().to_string()];
    let mut child = command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("Mounted "), "{line}");
    Mount { child, on: on.to_path_buf(), _said: said }
}

#[test]
fn a_loss_of_power_takes_nothing_that_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = disk(&dir.path().join("disk")) else { return };
    let (store, on) = (dir.path().join("disk/store"), dir.path().join("mnt"));
    init(&store, &dir.path().join("disk/cloud"));
    let writers: Vec<_> = (0..N_WRITERS)
        .map(|n| Writer { name: format!("writer-{n}"), n_rounds: AtomicU64::new(0) })
        .collect();
    let mounted = mount(&store, &on);
    for writer in &writers {
        fs::create_dir(on.join(&writer.name)).unwrap();
        let directory = on.join(&writer.name);
        fs::write(directory.join("log"), "").unwrap();
        fs::write(directory.join("replaced"), content(0)).unwrap();
        fs::write(directory.join("made-0"), content(0)).unwrap();
        fs::write(directory.join("large"), content(0).repeat(N_LARGE_RECORDS)).unwrap();
        sync(&directory.join("large"));
        sync(&directory);
    }
    sync(&on);
    let losses = lose_power(&disk, &store, &on, &writers);
    drop((mounted, disk));
    let mut coin = 0x9e37_79b9_7f4a_7c15_u64;
    for (number, loss) in losses.iter().enumerate() {
        // Once exactly what was synced, then more by chance.
        for variant in 0..3 {
            let directory = dir.path().join(format!("left-{number}-{variant}"));
            let mut reached = || {
                coin ^= coin << 13;
                coin ^= coin >> 7;
                coin ^= coin << 17;
                variant > 0 && coin & 1 == 1
            };
            loss.image.write(&directory, &mut reached).unwrap();
            move_cloud(&directory, &dir.path().join("disk"));
            check(&directory, &writers, loss);
        }
    }
}

/// What was left, and how many rounds each writer had promised before and after.
struct Loss {
    before: Vec<u64>,
    after: Vec<u64>,
    image: DiskImage,
}

/// Says the end when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Lets all writers work, with snapshots and evictions, and loses the power again and again.
fn lose_power(disk: &FragileDisk, store: &Path, on: &Path, writers: &[Writer]) -> Vec<Loss> {
    let ended = AtomicBool::new(false);
    let (sender, rounds) = channel();
    thread::scope(|scope| {
        // Also if what follows fails: then the others must end.
        let _end = End(&ended);
        for writer in writers {
            let (sender, ended): (Sender<()>, _) = (sender.clone(), &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    writer.round(on);
                    let _ = sender.send(());
                }
            });
        }
        scope.spawn(|| {
            let store = store.display().to_string();
            while !ended.load(Ordering::SeqCst) {
                tier(&["snapshot", &store]).ok();
                tier(&["evict", "--all", &store]).ok();
            }
        });
        drop(sender);
        let promised = || writers.iter().map(|w| w.n_rounds.load(Ordering::SeqCst)).collect();
        let lose = |_| {
            // Fewer, if all writers have failed.
            assert_eq!(rounds.iter().take(N_ROUNDS).count(), N_ROUNDS);
            let before = promised();
            let image = disk.lose_power();
            Loss { before, image, after: promised() }
        };
        (0..N_LOSSES).map(lose).collect()
    })
}

/// The cloud was lost with the store, and is where that is now.
fn move_cloud(directory: &Path, disk: &Path) {
    let settings = directory.join("store/tier.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let (from, to) = (disk.display().to_string(), directory.display().to_string());
    fs::write(&settings, text.replace(&from, &to)).unwrap();
}

fn check(directory: &Path, writers: &[Writer], loss: &Loss) {
    let (store, out) = (directory.join("store").display().to_string(), directory.join("out"));
    tier(&["fsck", &store]).ok();
    tier(&["index", "check", &store]).ok();
    tier(&["export", &store, "/", &out.display().to_string()]).ok();
    for (writer, (before, after)) in writers.iter().zip(loss.before.iter().zip(&loss.after)) {
        writer.check(&out, *before, *after);
    }
    tier(&["snapshot", &store]).ok();
    tier(&["fsck", &store]).ok();
}
