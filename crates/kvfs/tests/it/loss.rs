//! Parts of a store that are lost, damaged or put back: an error that says so, never a number that
//! is given out again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvfs::ops::XattrMode;
use kvfs::{Core, FsError, Kvfs, Loss, NoArchive};
use tempfile::TempDir;
use tier_log::LogError;
use tier_testkit::{OneByOne, VirtualClock};
use tier_types::{
    ChunkNo, ErrorKind, FileKind, HasKind, Ino, LogReader, LogService, Xid, XidRange,
};

use crate::common::{create, file, name, node, open, options};
use crate::fsck::check;
use crate::publish::{copy, segment_files};

fn try_open(root: &Path) -> Result<Core, FsError> {
    Core::open(root, &options(), Arc::new(VirtualClock::at(0)))
}

fn loss(opened: Result<Core, FsError>) -> Loss {
    let error = opened.expect_err("something is lost");
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("tier restore"), "it says what to do: {error}");
    let FsError::Lost(loss) = error else { panic!("{error:?}") };
    loss
}

fn range(first: u64, last: u64) -> XidRange {
    XidRange::new(Xid::new(first), Xid::new(last + 1)).unwrap()
}

/// A copy of everything below a directory, as it is now.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn put_back(from: &TempDir, root: &Path, part: &str) {
    let to = root.join(part);
    if to.is_dir() {
        fs::remove_dir_all(&to).unwrap();
        copy_tree(&from.path().join(part), &to);
    } else {
        fs::copy(from.path().join(part), to).unwrap();
    }
}

fn saved(dir: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), copy.path());
    copy
}

/// The newest write-ahead log that has something in it.
fn write_ahead_log(root: &Path) -> PathBuf {
    let files = fs::read_dir(root.join("kvs")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.filter(|path| fs::metadata(path).unwrap().len() > 0).max().unwrap()
}

/// Every file of a directory with its content.
fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    // The messages of RocksDB say that it was opened.
    let stored = files.filter(|path| !path.file_name().unwrap().to_str().unwrap().contains("LOG"));
    let mut contents: Vec<_> = stored.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    contents.sort();
    contents
}

#[test]
fn a_key_value_store_that_was_put_back_is_noticed_by_the_witness() {
    let (dir, fs) = create();
    file(&fs, Ino::ROOT, "a");
    drop(fs);
    let before = saved(&dir);
    let fs = open(&dir);
    let b = file(&fs, Ino::ROOT, "b");
    fs.fsync().unwrap();
    drop(fs);
    put_back(&before, dir.path(), "kvs");
    let proof = dir.path().join("witness");
    let missing = range(b.get(), b.get());
    assert_eq!(loss(try_open(dir.path())), Loss::RolledBack { missing, proof: proof.clone() });
    // A witness that is missing or torn proves nothing: this is why there are other proofs.
    fs::write(&proof, b"torn").unwrap();
    assert_eq!(try_open(dir.path()).unwrap().last_xid().get() + 1, b.get());
    fs::remove_file(&proof).unwrap();
    assert_eq!(try_open(dir.path()).unwrap().last_xid().get() + 1, b.get());
}

#[test]
fn a_key_value_store_that_was_put_back_is_noticed_by_a_segment() {
    let (dir, fs) = create();
    file(&fs, Ino::ROOT, "a");
    fs.publish().unwrap();
    drop(fs);
    let before = saved(&dir);
    let fs = open(&dir);
    file(&fs, Ino::ROOT, "b");
    fs.publish().unwrap();
    drop(fs);
    put_back(&before, dir.path(), "kvs");
    put_back(&before, dir.path(), "witness");
    let proof = segment_files(dir.path()).pop().unwrap();
    let expected = Loss::RolledBack { missing: range(3, 3), proof: proof.clone() };
    assert_eq!(loss(try_open(dir.path())), expected);
    assert!(proof.exists(), "what proves the loss is not removed");
}

#[test]
fn an_eviction_that_was_undone_is_noticed() {
    let (dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "a");
    fs.write(ino, 0, &[1; 2000]).unwrap();
    fs.fsync().unwrap();
    drop(fs);
    let before = saved(&dir);
    let fs = open(&dir);
    let last = fs.last_xid();
    for extent in fs.resident_of(ino, ChunkNo::new(0), 9).unwrap() {
        fs.evict_extent(&extent).unwrap();
    }
    fs.fsync().unwrap();
    assert_eq!(fs.last_xid(), last, "it is no transaction");
    drop(fs);
    put_back(&before, dir.path(), "kvs");
    let loss = loss(try_open(dir.path()));
    let Loss::Writes { n_missing, proof } = loss else { panic!("{loss:?}") };
    assert!(n_missing > 0);
    assert_eq!(proof, dir.path().join("witness"));
}

/// Synced operations, and then others; and how long the write-ahead log was in between.
fn partly_synced() -> (TempDir, usize, Xid) {
    let (dir, fs) = create();
    for number in 0..20 {
        file(&fs, Ino::ROOT, &format!("synced-{number}"));
    }
    fs.fsync().unwrap();
    let (synced, len) = (fs.last_xid(), fs::read(write_ahead_log(dir.path())).unwrap().len());
    for number in 0..20 {
        file(&fs, Ino::ROOT, &format!("visible-{number}"));
    }
    drop(fs);
    (dir, len, synced)
}

fn flip_a_bit(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 8;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_synced_batches_is_noticed_and_nothing_is_changed() {
    for share in 1..10 {
        let (dir, len, synced) = partly_synced();
        let log = write_ahead_log(dir.path());
        flip_a_bit(&log, len * share / 10);
        let before = contents(&dir.path().join("kvs"));
        for _ in 0..2 {
            let loss = loss(try_open(dir.path()));
            let Loss::RolledBack { missing, proof } = loss else { panic!("{share}: {loss:?}") };
            assert_eq!((missing.last(), proof), (synced, dir.path().join("witness")), "{share}");
        }
        assert!(contents(&dir.path().join("kvs")) == before, "{share}: all files are as they were");
        // Without the witness it is not known what was lost, and that is said.
        fs::remove_file(dir.path().join("witness")).unwrap();
        let loss = loss(try_open(dir.path()));
        assert!(matches!(loss, Loss::Unknown { .. }), "{share}: {loss:?}");
        flip_a_bit(&log, len * share / 10);
        assert!(try_open(dir.path()).unwrap().last_xid() > synced, "{share}: and all is there");
    }
}

#[test]
fn what_was_never_synced_may_be_torn() {
    // A log that ends anywhere, or is damaged anywhere, behind what was synced.
    for share in 0..8 {
        let (dir, len, synced) = partly_synced();
        let log = write_ahead_log(dir.path());
        let bytes = fs::read(&log).unwrap();
        let at = len + (bytes.len() - len) * share / 8;
        match share % 3 {
            0 => fs::write(&log, &bytes[..at]).unwrap(),
            1 => flip_a_bit(&log, at + 9),
            _ => {
                let mut zeroed = bytes.clone();
                zeroed[at..].fill(0);
                fs::write(&log, zeroed).unwrap();
            }
        }
        let fs = open(&dir);
        assert!(fs.last_xid() >= synced, "{share}");
        for number in 0..20 {
            fs.lookup(Ino::ROOT, &name(&format!("synced-{number}"))).unwrap();
        }
        assert_eq!(check(&fs).1, Vec::<String>::new(), "{share}");
        let next = fs.last_xid().next().get();
        assert_eq!(file(&fs, Ino::ROOT, "next").get(), next);
    }
}

/// Pages of what a loss of power leaves come in any order, and what is missing is zeros.
const PAGE_BYTES: usize = 4096;

#[test]
fn a_hole_in_what_was_not_synced_ends_the_log_there() {
    let (dir, len, synced) = partly_synced();
    let fs = open(&dir);
    for number in 0..1500 {
        file(&fs, Ino::ROOT, &format!("more-{number}"));
    }
    drop(fs);
    let log = write_ahead_log(dir.path());
    let bytes = fs::read(&log).unwrap();
    let n_pages = bytes.len() / PAGE_BYTES;
    // Opened again, the store has a new log: what was synced lies in tables.
    assert!(n_pages > 30 && len < bytes.len());
    let mut n_shorter = 0;
    for page in (0..n_pages).step_by(3).chain((0..n_pages).step_by(8)) {
        let left = saved(&dir);
        let mut holed = bytes.clone();
        holed[page * PAGE_BYTES..][..PAGE_BYTES].fill(0);
        fs::write(write_ahead_log(left.path()), holed).unwrap();
        let fs = open(&left);
        assert!(fs.last_xid() >= synced, "{page}");
        n_shorter += usize::from(fs.last_xid().get() < synced.get() + 1500);
        assert_eq!(check(&fs).1, Vec::<String>::new(), "{page}");
        let made = file(&fs, Ino::ROOT, "next").get();
        assert_eq!(made, fs.last_xid().get());
        // What it has is one state of before: a publication finds all its records.
        fs.publish().unwrap().unwrap();
    }
    assert!(n_shorter > 10, "{n_shorter}");
}

#[test]
fn a_hole_in_what_was_synced_is_a_loss_and_changes_nothing() {
    let (dir, _, _) = partly_synced();
    let fs = open(&dir);
    for number in 0..300 {
        file(&fs, Ino::ROOT, &format!("more-{number}"));
    }
    fs.fsync().unwrap();
    drop(fs);
    let log = write_ahead_log(dir.path());
    let mut bytes = fs::read(&log).unwrap();
    bytes[..PAGE_BYTES].fill(0);
    fs::write(&log, bytes).unwrap();
    let before = contents(&dir.path().join("kvs"));
    let loss = loss(try_open(dir.path()));
    assert!(matches!(loss, Loss::RolledBack { .. }), "{loss:?}");
    let after = contents(&dir.path().join("kvs"));
    for (path, bytes) in &before {
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        assert!(!is_log || after.contains(&(path.clone(), bytes.clone())), "{path:?}");
    }
    assert!(
        fs::read_dir(dir.path())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_str().unwrap().starts_with("trial-") })
    );
}

#[test]
fn a_write_ahead_log_that_is_cut_or_gone_is_noticed() {
    for keep in [0, 1, 2] {
        let (dir, len, synced) = partly_synced();
        let log = write_ahead_log(dir.path());
        let bytes = fs::read(&log).unwrap();
        match keep {
            0 => fs::remove_file(&log).unwrap(),
            _ => fs::write(&log, &bytes[..len * keep / 3]).unwrap(),
        }
        let loss = loss(try_open(dir.path()));
        let Loss::RolledBack { missing, .. } = loss else { panic!("{keep}: {loss:?}") };
        assert_eq!(missing.last(), synced);
    }
}

#[test]
fn a_damaged_segment_is_told_by_reading_it() {
    let (dir, fs) = create();
    fs.publish().unwrap();
    file(&fs, Ino::ROOT, "a");
    fs.publish().unwrap();
    drop(fs);
    let segment = segment_files(dir.path()).remove(0);
    // The header, then nothing at all: the name is what counts.
    for content in [vec![0xff; 100], Vec::new()] {
        fs::write(&segment, content).unwrap();
        let fs = open(&dir);
        let all = range(1, fs.last_xid().get());
        let read = tier_log::read_range(fs.core().as_ref(), all, |_, _| Ok::<(), LogError>(()));
        assert!(matches!(read, Err(LogError::Damaged { name, .. }) if name == segment));
    }
}

#[test]
fn segments_that_were_never_recorded_make_no_gap() {
    let (dir, fs) = create();
    file(&fs, Ino::ROOT, "a");
    fs.publish().unwrap();
    let segments = dir.path().join("segments");
    // What failed steps leave: a renamed file whose directory was not synced, for a range that the
    // next attempt covers, and one that was retired and could not be removed.
    let stray = |first: u64, last: u64| segments.join(format!("{first:020}-{last:020}.segment"));
    file(&fs, Ino::ROOT, "b");
    for path in [stray(3, 3), stray(1, 1), stray(2, 2)] {
        fs::write(path, b"left by a step that failed").unwrap();
    }
    file(&fs, Ino::ROOT, "c");
    let publication = fs.publish().unwrap().unwrap();
    assert_eq!(publication.range, range(3, 4));
    drop(fs);
    let fs = open(&dir);
    assert_eq!(segment_files(dir.path()), [stray(1, 2), stray(3, 4)]);
    let mut n_records = 0;
    tier_log::read_range(fs.core().as_ref(), range(1, 4), |_, _| {
        n_records += 1;
        Ok::<(), LogError>(())
    })
    .unwrap();
    assert_eq!(n_records, 4);
}

#[test]
fn a_segment_that_cannot_be_removed_makes_no_gap() {
    let (dir, fs) = create();
    for text in ["a", "b", "c"] {
        file(&fs, Ino::ROOT, text);
        fs.publish().unwrap();
    }
    let first = segment_files(dir.path()).remove(0);
    fs::remove_file(&first).unwrap();
    fs::create_dir(&first).unwrap();
    fs.retire_segments(Xid::new(2)).unwrap_err();
    fs.retire_segments(Xid::new(3)).unwrap();
    drop(fs);
    // Its content is back, as if the removal had failed.
    fs::remove_dir(&first).unwrap();
    fs::write(&first, b"content").unwrap();
    let fs = open(&dir);
    assert_eq!(fs.last_xid(), Xid::new(4));
    let left: Vec<_> = fs.segments(range(1, 4)).unwrap().iter().map(|info| info.range).collect();
    assert_eq!(left, [range(4, 4)]);
    assert_eq!(segment_files(dir.path()).len(), 1, "the leftover is gone");
}

#[test]
fn a_new_filesystem_is_not_made_over_an_earlier_one() {
    let clock = || Arc::new(VirtualClock::at(0));
    for part in ["kvs", "segments", "witness"] {
        let (dir, fs) = create();
        fs.publish().unwrap();
        drop(fs);
        let fresh = tempfile::tempdir().unwrap();
        if dir.path().join(part).is_dir() {
            copy_tree(&dir.path().join(part), &fresh.path().join(part));
        } else {
            fs::copy(dir.path().join(part), fresh.path().join(part)).unwrap();
        }
        let error = Core::create(fresh.path(), &options(), clock()).unwrap_err();
        assert!(matches!(&error, FsError::NotNew { path } if path.ends_with(part)), "{error:?}");
        assert_eq!(fs::read_dir(fresh.path()).unwrap().count(), 1, "nothing was made");
    }
    // Empty directories are no filesystem.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("segments")).unwrap();
    Core::create(dir.path(), &options(), clock()).unwrap();
}

#[test]
fn behind_its_archive_a_filesystem_can_be_read_and_not_written() {
    let (dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    fs.write(f, 0, b"hot").unwrap();
    let (unnamed, handle) = fs.create_unnamed(&node(FileKind::Regular)).unwrap();
    let last = fs.last_xid();
    // A crash: no handle is closed.
    let left = copy(&dir);
    drop((fs, handle));
    let open_archived = |archived| {
        let clock = Arc::new(VirtualClock::at(0));
        let core = Core::open_archived(left.path(), &options(), clock, archived).unwrap();
        Kvfs::new(Arc::new(core), Arc::new(NoArchive))
    };
    let fs = open_archived(last.next());
    assert_eq!(fs.read(f, 0, 9).unwrap(), b"hot");
    let behind = |done: Result<(), FsError>| {
        let expected = Loss::BehindArchive { last, archived: last.next() };
        assert!(matches!(&done, Err(FsError::Lost(loss)) if *loss == expected), "{done:?}");
    };
    behind(fs.check_writable());
    behind(fs.create_node(Ino::ROOT, &name("g"), &node(FileKind::Fifo)).map(drop));
    behind(fs.write(f, 0, b"x").map(drop));
    behind(fs.truncate(f, 0).map(drop));
    behind(fs.unlink(Ino::ROOT, &name("f")).map(drop));
    behind(fs.setxattr(f, b"user.a", b"1", XattrMode::Set));
    let repaired = fs.repair(&crate::fsck::Everything, &mut |_| {}, &false.into());
    behind(repaired.map(drop));
    assert_eq!(fs.publish().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(fs.resident_of(f, ChunkNo::new(0), 9).unwrap().len(), 1);
    assert_eq!(fs.last_xid(), last, "nothing was given out, not even for the unnamed inode");
    assert!(!fs.reap(1000).unwrap(), "nothing is reaped");
    assert!(fs.getattr(unnamed.ino).is_ok());
    drop(fs);
    // As far as the archive or further, it is as ever.
    let fs = open_archived(last);
    crate::common::reap_all(&fs);
    assert!(fs.getattr(unnamed.ino).is_err(), "no handle holds it");
    assert_eq!(file(&fs, Ino::ROOT, "g").get(), fs.last_xid().get());
}
