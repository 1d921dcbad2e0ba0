//! Damaged files of the database below the index: an error of kind `Damaged`, or what was there.

use std::fs;
use std::path::{Path, PathBuf};

use tier_index::{Contents, Entry, Index, IndexError, IndexOptions, TarballId};
use tier_types::{
    ChunkNo, ChunkRange, Epoch, ErrorKind, HasKind, Ino, SnapshotId, Xid, with_causes,
};

const CHUNK: u32 = 512;
const N_INODES: u64 = 3000;

fn extent_of(ino: u64) -> Entry {
    let chunks = ChunkRange::new(ChunkNo::new(3), ChunkNo::new(5)).unwrap();
    let (ino, data_xid) = (Ino::new(ino), Xid::new(ino));
    Entry::Data { ino, chunks, data_xid, frame: 1, offset: 512, short_bytes: 0 }
}

/// An index of many inodes, below a directory whose name is full of words.
fn index() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock: No space left on device").join("index");
    fs::create_dir_all(&path).unwrap();
    let index = open(&path).unwrap();
    let snapshot = SnapshotId::new(1);
    let tarball = TarballId { epoch: Epoch::new(1), snapshot, part: 0 };
    let entries = (1..=N_INODES).map(extent_of).collect();
    let mut writer = index.writer();
    writer.add_tarball(tarball, b"row").unwrap();
    writer.apply(&Contents { tarball, chunk_bytes: CHUNK, entries }).unwrap();
    writer.flush().unwrap();
    drop(writer);
    (dir, path)
}

fn open(path: &Path) -> Result<Index, IndexError> {
    Index::open(path, CHUNK, &IndexOptions::default())
}

fn largest_table(path: &Path) -> PathBuf {
    let tables = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let tables = tables.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    tables.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn assert_damaged(error: &IndexError) {
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    let text = with_causes(error);
    assert!(text.contains("rebuild it"), "{text}");
}

#[test]
fn an_index_that_is_open_is_busy() {
    let (_dir, path) = index();
    let _first = open(&path).unwrap();
    assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn a_cut_table_is_damage() {
    let (_dir, path) = index();
    let table = largest_table(&path);
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, &bytes[..bytes.len() / 2]).unwrap();
    assert_damaged(&open(&path).unwrap_err());
    fs::remove_file(&table).unwrap();
    assert_damaged(&open(&path).unwrap_err());
}

#[test]
fn a_flipped_bit_costs_the_inodes_of_its_block() {
    let (_dir, path) = index();
    let table = largest_table(&path);
    let mut bytes = fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&table, bytes).unwrap();
    let index = open(&path).unwrap();
    let mut n_damaged = 0;
    for ino in 1..=N_INODES {
        match index.find(Ino::new(ino), ChunkNo::new(4)) {
            Ok(extent) => assert_eq!(extent.unwrap().data_xid, Xid::new(ino)),
            Err(error) => {
                assert_damaged(&error);
                n_damaged += 1;
            }
        }
    }
    assert!((1..N_INODES / 2).contains(&n_damaged), "{n_damaged}");
}
