//! What a crash leaves of an index, and what its small changes cost.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tier_index::{Applied, Contents, Entry, Index, IndexOptions, TarballId};
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

const CHUNK: u32 = 16;
/// With so many entries a change is too large for the log.
const N_MANY: u64 = 4000;

/// A commit: the first `n_inodes` inodes, each with data of this snapshot.
fn commit(index: &Index, snapshot: u64, n_inodes: u64) {
    let (epoch, id, xid) = (Epoch::new(1), SnapshotId::new(snapshot), Xid::new(snapshot));
    let tarball = TarballId { epoch, snapshot: id, part: 0 };
    let chunks = ChunkRange::new(ChunkNo::new(1), ChunkNo::new(3)).unwrap();
    let of_inode = |ino| {
        let (ino, data_xid) = (Ino::new(ino), xid);
        let data = Entry::Data { ino, chunks, data_xid, frame: 1, offset: 0, short_bytes: 0 };
        [Entry::Inode { ino, xid, frame: 0, offset: 0 }, data]
    };
    let entries = (1..=n_inodes).flat_map(of_inode).collect();
    let mut writer = index.writer();
    writer.add_tarball(tarball, b"row").unwrap();
    writer.apply(&Contents { tarball, chunk_bytes: CHUNK, entries }).unwrap();
    let applied = Applied { epoch, snapshot: id, manifest_digest: [0; 32] };
    writer.set_applied(&applied, b"step").unwrap();
    writer.sync().unwrap();
}

fn open(path: &Path) -> Index {
    Index::open(path, CHUNK, &IndexOptions::default()).unwrap()
}

fn dump(index: &Index) -> String {
    let mut text = Vec::new();
    index.dump(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn last_snapshot(index: &Index) -> u64 {
    index.applied().unwrap().map_or(0, |applied| applied.snapshot.get())
}

/// The files with this extension, and their lengths.
fn files(path: &Path, extension: &str) -> Vec<(PathBuf, u64)> {
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension() == Some(OsStr::new(extension)));
    let mut files: Vec<_> =
        files.map(|path| (path.clone(), fs::metadata(&path).unwrap().len())).collect();
    files.sort();
    files
}

fn n_tables(path: &Path) -> usize {
    files(path, "sst").len()
}

fn log_bytes(path: &Path) -> u64 {
    files(path, "log").iter().map(|(_, len)| len).sum()
}

/// What a process that is killed leaves: all files as they are.
fn killed(path: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn small_changes_make_no_tables_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    commit(&index, 1, 3);
    let text_bytes = || fs::metadata(dir.path().join("LOG")).unwrap().len();
    let (n_before, text_before) = (n_tables(dir.path()), text_bytes());
    for snapshot in 2..=200 {
        commit(&index, snapshot, 3);
    }
    assert_eq!(n_tables(dir.path()), n_before);
    assert_eq!(text_bytes(), text_before, "nothing is told of each flush");
    let copy = killed(dir.path());
    let looked = Index::look(copy.path(), CHUNK, &IndexOptions::default()).unwrap();
    assert_eq!(dump(&looked), dump(&index));
    drop(looked);
    assert_eq!(n_tables(copy.path()), n_before, "nothing changes by looking");
    let after = open(copy.path());
    assert_eq!(dump(&after), dump(&index));
    assert_eq!(last_snapshot(&after), 200);
}

#[test]
fn the_log_of_many_small_changes_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let n_commits = 400;
    for snapshot in 1..=n_commits {
        commit(&index, snapshot, 200);
    }
    let written = n_commits * 200 * 40;
    assert!(log_bytes(dir.path()) < written, "{} of over {written}", log_bytes(dir.path()));
    let after = open(killed(dir.path()).path());
    assert_eq!(dump(&after), dump(&index));
}

#[test]
fn a_large_change_is_not_written_twice() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    commit(&index, 1, 3);
    let (n_before, log_before) = (n_tables(dir.path()), log_bytes(dir.path()));
    commit(&index, 2, N_MANY);
    assert!(log_bytes(dir.path()) < log_before + 16 * 1024, "the small changes of it alone");
    assert!(n_tables(dir.path()) > n_before);
    assert_eq!(dump(&open(killed(dir.path()).path())), dump(&index));
    // And what is small is logged again behind it.
    let n_before = n_tables(dir.path());
    commit(&index, 3, 3);
    assert_eq!(n_tables(dir.path()), n_before);
    assert_eq!(dump(&open(killed(dir.path()).path())), dump(&index));
}

/// Cuts the log after so many thousandths of it, or flips a bit there.
fn damage_log(path: &Path, thousandths: u64, is_flip: bool) {
    let (log, len) = files(path, "log").pop().unwrap();
    let at = usize::try_from(len * thousandths / 1000).unwrap();
    let mut bytes = fs::read(&log).unwrap();
    match bytes.get_mut(at) {
        Some(byte) if is_flip => *byte ^= 0x10,
        _ => bytes.truncate(at),
    }
    fs::write(&log, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Wherever the log ends or is damaged, the index is one that was at some moment.
    #[test]
    fn what_is_left_of_a_log_is_an_index_that_was(
        large in prop::collection::vec(prop::bool::weighted(0.1), 1..8),
        thousandths in 0..1000_u64,
        is_flip in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        let sizes: Vec<_> = large.iter().map(|is_large| if *is_large { N_MANY } else { 3 }).collect();
        let mut dumps = vec![dump(&index)];
        for (n_inodes, snapshot) in sizes.iter().zip(1..) {
            commit(&index, snapshot, *n_inodes);
            dumps.push(dump(&index));
        }
        let copy = killed(dir.path());
        damage_log(copy.path(), thousandths, is_flip);
        let after = open(copy.path());
        let last_snapshot = last_snapshot(&after);
        let last = usize::try_from(last_snapshot).unwrap();
        // What is in the tables is not in the way of a damaged log.
        let n_in_tables = sizes.iter().rposition(|n_inodes| *n_inodes == N_MANY).map_or(0, |at| at + 1);
        prop_assert!(last >= n_in_tables, "{last} of {n_in_tables}");
        // Of the next one some may be there already, and it is applied again.
        let next = sizes.get(last).map(|n_inodes| commit(&after, last_snapshot + 1, *n_inodes));
        let expected = &dumps[last + next.iter().len()];
        prop_assert!(dump(&after) == *expected, "snapshot {last} of {sizes:?} was the last one");
    }
}
