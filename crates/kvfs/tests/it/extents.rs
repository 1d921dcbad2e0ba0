//! Chunk data in extent files: what a snapshot holds, what comes back to the disk, and what a loss
//! of power leaves.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvfs::{Core, Kvfs, KvfsOptions, NoArchive};
use proptest::prelude::*;
use tempfile::TempDir;
use tier_testkit::{OneByOne, VirtualClock};
use tier_types::{ChunkNo, ChunkRange, Ino, LogService, MountedInstance};

use crate::common::{self, create, file, name};
use crate::fsck::check;

const BLOCK: usize = 4096;
/// Blocks in which the filesystem below keeps where the holes of a file are.
const N_TREE_BLOCKS: usize = 2;

/// A filesystem whose chunks are blocks of the disk.
fn blocks() -> (TempDir, Arc<Kvfs>) {
    let dir = tempfile::tempdir().unwrap();
    let options =
        KvfsOptions { chunk_bytes: 4096, extent_bytes_min: 4096, ..KvfsOptions::default() };
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let core = Core::create(dir.path(), &options, clock).unwrap();
    (dir, Arc::new(Kvfs::new(Arc::new(core), Arc::new(NoArchive))))
}

fn extent_files(dir: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path().join("chunks")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Bytes that the extent files take on the disk.
fn disk_bytes(dir: &TempDir) -> u64 {
    extent_files(dir).iter().map(|path| fs::metadata(path).unwrap().blocks() * 512).sum()
}

fn blocks_of(n: usize) -> u64 {
    u64::try_from(n * BLOCK).unwrap()
}

#[test]
fn what_is_written_over_cut_punched_and_removed_comes_back_to_the_disk() {
    let (dir, fs) = blocks();
    let kept = file(&fs, Ino::ROOT, "kept");
    fs.write(kept, 0, &vec![1; 3 * BLOCK]).unwrap();
    let [over, cut, punched, removed] = ["over", "cut", "punched", "removed"].map(|text| {
        let ino = file(&fs, Ino::ROOT, text);
        fs.write(ino, 0, &vec![2; 10 * BLOCK]).unwrap();
        ino
    });
    fs.fsync().unwrap();
    assert_eq!(disk_bytes(&dir), blocks_of(43));
    fs.write(over, 0, &vec![3; 10 * BLOCK]).unwrap();
    fs.truncate(cut, blocks_of(2)).unwrap();
    fs.punch_hole(punched, blocks_of(1), blocks_of(7)).unwrap();
    fs.unlink(Ino::ROOT, &name("removed")).unwrap();
    assert!(fs.read(removed, 0, 1).is_err());
    fs.reclaim(&|| false).unwrap();
    let left = disk_bytes(&dir) - blocks_of(3 + 10 + 2 + 3);
    assert!(left <= blocks_of(N_TREE_BLOCKS), "{left}");
    assert_eq!(fs.read(over, 0, 99 * BLOCK).unwrap(), vec![3; 10 * BLOCK]);
    assert_eq!(fs.read(cut, 0, 99 * BLOCK).unwrap(), vec![2; 2 * BLOCK]);
    let left = [vec![2; BLOCK], vec![0; 7 * BLOCK], vec![2; 2 * BLOCK]].concat();
    assert_eq!(fs.read(punched, 0, 99 * BLOCK).unwrap(), left);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

/// A file of many runs: every second block is data.
fn scattered(fs: &Kvfs, text: &str) -> Ino {
    let ino = file(fs, Ino::ROOT, text);
    for number in 0..200 {
        fs.write(ino, blocks_of(2 * number), &[4; BLOCK]).unwrap();
    }
    ino
}

#[test]
fn what_the_reaper_deletes_comes_back_to_the_disk() {
    let (dir, fs) = blocks();
    let [cut, over, removed] = ["cut", "over", "removed"].map(|text| scattered(&fs, text));
    fs.fsync().unwrap();
    assert_eq!(disk_bytes(&dir), blocks_of(600));
    fs.truncate(cut, blocks_of(1)).unwrap();
    fs.unlink(Ino::ROOT, &name("removed")).unwrap();
    assert!(fs.read(removed, 0, 1).is_err());
    // What is written where dead data lies takes its place at once.
    fs.truncate(over, 0).unwrap();
    fs.write(over, 0, &vec![5; 100 * BLOCK]).unwrap();
    fs.reclaim(&|| false).unwrap();
    let bytes = disk_bytes(&dir);
    assert!(bytes >= blocks_of(200 + 199 + 100 + 136), "the rest is still stored: {bytes}");
    common::reap_all(&fs);
    fs.reclaim(&|| false).unwrap();
    let left = disk_bytes(&dir) - blocks_of(1 + 100);
    assert!(left <= blocks_of(N_TREE_BLOCKS), "{left}");
    assert_eq!(fs.read(over, 0, 999 * BLOCK).unwrap(), vec![5; 100 * BLOCK]);
    assert_eq!(fs.read(cut, 0, 999 * BLOCK).unwrap(), vec![4; BLOCK]);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn evicting_gives_back_what_was_evicted_and_rewrites_nothing() {
    let (dir, fs) = blocks();
    let inos: Vec<_> = (0..40)
        .map(|number| {
            let ino = file(&fs, Ino::ROOT, &format!("f{number}"));
            fs.write(ino, 0, &vec![5; 4 * BLOCK]).unwrap();
            ino
        })
        .collect();
    fs.fsync().unwrap();
    let before: Vec<_> =
        extent_files(&dir).iter().map(|path| fs::metadata(path).unwrap()).collect();
    for ino in inos.iter().step_by(5) {
        for extent in fs.resident_of(*ino, ChunkNo::new(0), 9).unwrap() {
            fs.evict_extent(&extent).unwrap();
        }
    }
    fs.reclaim(&|| false).unwrap();
    let left = disk_bytes(&dir) - blocks_of(32 * 4);
    assert!(left <= blocks_of(N_TREE_BLOCKS), "{left}");
    let after: Vec<_> = extent_files(&dir).iter().map(|path| fs::metadata(path).unwrap()).collect();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.ino(), before.len()), (after.ino(), after.len()), "nothing was moved");
    }
}

#[test]
fn a_snapshot_keeps_what_it_can_see() {
    let (dir, fs) = blocks();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &vec![1; 8 * BLOCK]).unwrap();
    let publication = fs.publish().unwrap().unwrap();
    let snapshot = fs.open_snapshot(&publication).unwrap();
    fs.write(ino, 0, &vec![2; 8 * BLOCK]).unwrap();
    fs.reclaim(&|| false).unwrap();
    assert_eq!(disk_bytes(&dir), blocks_of(16));
    let chunks = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(8)).unwrap();
    let mut old = Vec::new();
    snapshot.reader().read_chunks(ino, chunks, &mut old).unwrap();
    assert_eq!(old, vec![1; 8 * BLOCK]);
    drop(snapshot);
    fs.release(&publication).unwrap();
    fs.reclaim(&|| false).unwrap();
    assert_eq!(disk_bytes(&dir), blocks_of(8));
    assert_eq!(fs.read(ino, 0, 99 * BLOCK).unwrap(), vec![2; 8 * BLOCK]);
}

#[test]
fn what_an_earlier_process_freed_comes_back() {
    let (dir, fs) = blocks();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &vec![1; 8 * BLOCK]).unwrap();
    fs.fsync().unwrap();
    fs.unlink(Ino::ROOT, &name("f")).unwrap();
    drop(fs);
    assert_eq!(disk_bytes(&dir), blocks_of(8));
    let fs = common::open(&dir);
    fs.reclaim(&|| false).unwrap();
    assert_eq!(disk_bytes(&dir), 0);
}

#[test]
fn bytes_that_changed_on_the_disk_are_damage_of_one_chunk() {
    let (dir, fs) = blocks();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &vec![1; 8 * BLOCK]).unwrap();
    fs.fsync().unwrap();
    let path = extent_files(&dir).pop().unwrap();
    let disk = OpenOptions::new().write(true).open(path).unwrap();
    disk.write_all_at(&[0xff], blocks_of(3) + 77).unwrap();
    assert!(fs.read(ino, 0, 8 * BLOCK).is_err(), "never other bytes");
    assert_eq!(fs.read(ino, 0, 3 * BLOCK).unwrap(), vec![1; 3 * BLOCK]);
    assert_eq!(fs.read(ino, blocks_of(4), 4 * BLOCK).unwrap(), vec![1; 4 * BLOCK]);
    let (_, problems) = check(&fs);
    assert_eq!(problems.len(), 1, "{problems:?}");
    // A write of the whole chunk makes it whole again.
    fs.write(ino, blocks_of(3), &vec![2; BLOCK]).unwrap();
    assert_eq!(fs.read(ino, blocks_of(3), BLOCK).unwrap(), vec![2; BLOCK]);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn damage_of_what_was_synced_is_not_taken_for_a_loss_of_power() {
    let (dir, fs) = blocks();
    let ino = file(&fs, Ino::ROOT, "f");
    for byte in [1, 2] {
        fs.write(ino, 0, &vec![byte; 2 * BLOCK]).unwrap();
        fs.fsync().unwrap();
    }
    drop(fs);
    let path = extent_files(&dir).pop().unwrap();
    let disk = OpenOptions::new().write(true).open(path).unwrap();
    disk.write_all_at(&[0xff], blocks_of(3) + 77).unwrap();
    let fs = common::open(&dir);
    assert!(fs.read(ino, blocks_of(1), BLOCK).is_err(), "neither zeros nor what was there before");
    assert_eq!(fs.read(ino, 0, BLOCK).unwrap(), vec![2; BLOCK]);
    assert_eq!(check(&fs).1.len(), 1);
}

#[test]
fn what_came_back_by_a_loss_of_power_is_kept_for_a_snapshot() {
    let (dir, fs) = blocks();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[1; BLOCK]).unwrap();
    fs.fsync().unwrap();
    let path = extent_files(&dir).pop().unwrap();
    let synced = fs::metadata(&path).unwrap().len();
    fs.write(ino, 0, &[2; BLOCK]).unwrap();
    drop(fs);
    // The row of the second write reached the disk, its bytes did not.
    let disk = OpenOptions::new().write(true).open(path).unwrap();
    disk.write_all_at(&[0; BLOCK], synced).unwrap();
    let fs = common::open(&dir);
    assert_eq!(fs.read(ino, 0, BLOCK).unwrap(), [1; BLOCK]);
    let publication = fs.publish().unwrap().unwrap();
    let snapshot = fs.open_snapshot(&publication).unwrap();
    fs.write(ino, 0, &[3; BLOCK]).unwrap();
    fs.reclaim(&|| false).unwrap();
    let mut old = Vec::new();
    let chunk = ChunkRange::one(ChunkNo::new(0)).unwrap();
    snapshot.reader().read_chunks(ino, chunk, &mut old).unwrap();
    assert_eq!(old, [1; BLOCK]);
    drop(snapshot);
    fs.release(&publication).unwrap();
    fs.reclaim(&|| false).unwrap();
    assert_eq!(disk_bytes(&dir), blocks_of(1), "and no longer");
}

const N_FILES: usize = 3;

#[derive(Clone, Debug)]
enum Action {
    Write { file: usize, offset: usize, len: usize, byte: u8 },
    Truncate { file: usize, size: usize },
    Punch { file: usize, offset: usize, len: usize },
    Fsync,
    Publish,
    Reclaim,
}

fn action() -> impl Strategy<Value = Action> {
    let (file, at) = (0..N_FILES, 0..3000_usize);
    let write = (file.clone(), at.clone(), 1..1500_usize, 1..=255_u8)
        .prop_map(|(file, offset, len, byte)| Action::Write { file, offset, len, byte });
    let whole =
        (file.clone(), 0..6_usize, 1..4_usize, 1..=255_u8).prop_map(|(file, chunk, n, byte)| {
            Action::Write { file, offset: chunk * 512, len: n * 512, byte }
        });
    prop_oneof![
        4 => write,
        6 => whole,
        2 => (file.clone(), at.clone()).prop_map(|(file, size)| Action::Truncate { file, size }),
        2 => (file, at, 1..1500_usize)
            .prop_map(|(file, offset, len)| Action::Punch { file, offset, len }),
        2 => Just(Action::Fsync),
        1 => Just(Action::Publish),
        1 => Just(Action::Reclaim),
    ]
}

/// What each byte of a file may be after a loss of power: what it was at the last sync, and all
/// that it has been since. The last is what it is.
#[derive(Clone, Default)]
struct Model(Vec<Vec<u8>>);

impl Model {
    fn set(&mut self, offset: usize, len: usize, byte: u8) {
        if len > 0 && self.0.len() < offset + len {
            self.0.resize(offset + len, vec![0]);
        }
        for possible in self.0.iter_mut().skip(offset).take(len) {
            possible.push(byte);
        }
    }

    fn truncate(&mut self, size: usize) {
        self.0.resize(size, vec![0]);
    }

    fn sync(&mut self) {
        for possible in &mut self.0 {
            possible.drain(..possible.len() - 1);
        }
    }
}

/// Carries out an action on the filesystem and on the model.
fn act(fs: &Kvfs, inos: &[Ino], models: &mut [Model], action: &Action) {
    let wide = |n: usize| u64::try_from(n).unwrap();
    let mut synced = false;
    match *action {
        Action::Write { file, offset, len, byte } => {
            fs.write(inos[file], wide(offset), &vec![byte; len]).unwrap();
            models[file].set(offset, len, byte);
        }
        Action::Truncate { file, size } => {
            fs.truncate(inos[file], wide(size)).unwrap();
            models[file].truncate(size);
        }
        Action::Punch { file, offset, len } => {
            fs.punch_hole(inos[file], wide(offset), wide(len)).unwrap();
            let end = (offset + len).min(models[file].0.len());
            models[file].set(offset, end.saturating_sub(offset), 0);
        }
        Action::Fsync => {
            fs.fsync().unwrap();
            synced = true;
        }
        Action::Publish => {
            if let Some(publication) = fs.publish().unwrap() {
                fs.release(&publication).unwrap();
                synced = true;
            }
        }
        Action::Reclaim => {
            fs.reclaim(&|| false).unwrap();
            synced = true;
        }
    }
    if synced {
        models.iter_mut().for_each(Model::sync);
    }
}

/// How long each extent file was.
fn lengths(dir: &TempDir) -> BTreeMap<PathBuf, u64> {
    extent_files(dir)
        .into_iter()
        .map(|path| {
            let len = fs::metadata(&path).unwrap().len();
            (path, len)
        })
        .collect()
}

/// Of what was appended since, some blocks did not reach the disk.
fn lose(dir: &Path, synced: &BTreeMap<PathBuf, u64>, mut reached: impl FnMut() -> bool) {
    for entry in fs::read_dir(dir.join("chunks")).unwrap() {
        let path = entry.unwrap().path();
        let disk = OpenOptions::new().write(true).open(&path).unwrap();
        let start = synced.get(&path).copied().unwrap_or(0);
        for at in (start..disk.metadata().unwrap().len()).step_by(64) {
            if !reached() {
                disk.write_all_at(&[0; 64], at).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_loss_of_power_takes_only_what_was_not_synced(
        rounds in prop::collection::vec(
            (prop::collection::vec(action(), 1..20), any::<u64>()), 1..4),
    ) {
        let (dir, mut fs) = create();
        let inos: Vec<_> =
            (0..N_FILES).map(|number| file(&fs, Ino::ROOT, &format!("f{number}"))).collect();
        let mut models = vec![Model::default(); N_FILES];
        let mut synced = lengths(&dir);
        for (actions, seed) in rounds {
            for action in &actions {
                act(&fs, &inos, &mut models, action);
                if matches!(action, Action::Fsync | Action::Publish | Action::Reclaim) {
                    synced = lengths(&dir);
                }
            }
            drop(fs);
            let mut random = seed;
            lose(dir.path(), &synced, || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random >> 62 != 0
            });
            fs = common::open(&dir);
            prop_assert_eq!(check(&fs).1, Vec::<String>::new());
            for (ino, model) in inos.iter().zip(&mut models) {
                let read = fs.read(*ino, 0, 1 << 20).unwrap();
                prop_assert_eq!(read.len(), model.0.len());
                for (at, (byte, possible)) in read.iter().zip(&model.0).enumerate() {
                    prop_assert!(possible.contains(byte), "byte {at} of inode {ino} is {byte}");
                }
                // Opening made durable what is there now.
                model.0 = read.into_iter().map(|byte| vec![byte]).collect();
            }
            synced = lengths(&dir);
        }
    }
}
