//! What a recall is told by an index that is wrong: an error that names what does not fit, and
//! never zeros or other bytes.

use std::path::Path;
use std::sync::Arc;

use tier_cloud::DirStore;
use tier_index::{Contents, Entry, Index, IndexError, IndexOptions, StoredData, TarballId};
use tier_persist::{Fetcher, FetcherOptions, Keys, PersistError};
use tier_testkit::{FakeKvs, OneByOne};
use tier_types::{ChunkNo, ChunkRange, ErrorKind, HasKind, Ino, ObjectStore, RecallRequest, Xid};

use crate::common::{CHUNK, FILESYSTEM, Fixture, noise};

const CONTENT_BYTES: usize = 3 * 512 + 100;

/// One file, persisted.
fn fixture() -> Fixture {
    let kvs = FakeKvs::new(CHUNK).file("a", &noise(CONTENT_BYTES, 1));
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    fixture
}

fn tarball(index: &Index) -> TarballId {
    index.tarballs().unwrap()[0].0
}

/// An index that has this row of the tarball, and of the file what the entry says.
fn forged(
    fixture: &Fixture,
    dir: &Path,
    row: &[u8],
    entry: Entry,
) -> Result<Arc<Index>, IndexError> {
    let index = Arc::new(Index::open(dir, CHUNK, &IndexOptions::default())?);
    let tarball = tarball(&fixture.index);
    let mut writer = index.writer();
    writer.add_tarball(tarball, row)?;
    writer.apply(&Contents { tarball, chunk_bytes: CHUNK, entries: vec![entry] })?;
    drop(writer);
    Ok(index)
}

fn fetcher(fixture: &Fixture, index: Arc<Index>) -> Fetcher {
    let stores: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(fixture.store())];
    let keys = Arc::clone(&fixture.keys);
    Fetcher::new(FILESYSTEM, index, keys, stores, FetcherOptions::default())
}

fn fetch(fixture: &Fixture, row: &[u8], entry: Entry) -> Result<Vec<u8>, PersistError> {
    let Entry::Data { ino, chunks, data_xid, .. } = entry else { panic!("not data") };
    let dir = tempfile::tempdir().unwrap();
    let fetcher = fetcher(fixture, forged(fixture, dir.path(), row, entry)?);
    fetcher.fetch(&RecallRequest { ino, chunks, data_xid }).map(|extent| extent.bytes().to_vec())
}

/// Where the file's data is, as a truthful entry.
struct Truth {
    ino: Ino,
    chunks: ChunkRange,
    data_xid: Xid,
    frame: u32,
    offset: u32,
    short_bytes: u32,
}

impl Truth {
    fn of(fixture: &Fixture) -> Self {
        let ino = fixture.kvs.ino("a");
        let extent = fixture.index.find(ino, ChunkNo::new(0)).unwrap().unwrap();
        let StoredData { location, short_bytes } = extent.data().unwrap();
        Self {
            ino,
            chunks: extent.chunks,
            data_xid: extent.data_xid,
            frame: location.frame,
            offset: location.offset,
            short_bytes,
        }
    }

    fn entry(&self) -> Entry {
        let Self { ino, chunks, data_xid, frame, offset, short_bytes } = *self;
        Entry::Data { ino, chunks, data_xid, frame, offset, short_bytes }
    }
}

#[test]
fn an_entry_that_does_not_fit_its_frame_is_damage() {
    let fixture = fixture();
    let row = fixture.index.tarball_row(tarball(&fixture.index)).unwrap().unwrap();
    let truth = || Truth::of(&fixture);
    assert_eq!(truth().short_bytes, 412);
    let fetched = fetch(&fixture, &row, truth().entry()).unwrap();
    assert!(fetched == noise(CONTENT_BYTES, 1), "the truth is read");
    let more = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(1000)).unwrap();
    let forgeries = [
        ("no such frame", Truth { frame: 99, ..truth() }),
        ("no such frame", Truth { frame: u32::MAX, ..truth() }),
        ("shorter than the index says", Truth { offset: truth().offset + 4096, ..truth() }),
        ("shorter than the index says", Truth { chunks: more, ..truth() }),
    ];
    for (problem, forgery) in forgeries {
        let error = fetch(&fixture, &row, forgery.entry()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{problem}: {error}");
        assert!(error.to_string().contains(problem), "{problem}: {error}");
    }
    // What no frame can hold does not even come into the index.
    for impossible in [
        Truth { offset: u32::MAX, ..truth() },
        Truth { short_bytes: CHUNK + 1, ..truth() },
        Truth { short_bytes: u32::MAX, ..truth() },
    ] {
        let error = fetch(&fixture, &row, impossible.entry()).unwrap_err();
        assert!(matches!(error, PersistError::Index(IndexError::Contents { .. })), "{error}");
    }
}

#[test]
fn a_row_that_cannot_be_read_is_damage() {
    let fixture = fixture();
    let row = fixture.index.tarball_row(tarball(&fixture.index)).unwrap().unwrap();
    let entry = || Truth::of(&fixture).entry();
    for len in [0, 1, 10, row.len() / 2, row.len() - 1] {
        let error = fetch(&fixture, &row[..len], entry()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{len}: {error}");
    }
    // The first byte is the version, and the second the epoch: it is another tarball's.
    let later = [&[row[0] + 1], &row[1..]].concat();
    let error = fetch(&fixture, &later, entry()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let other = [&[row[0], row[1] + 1], &row[2..]].concat();
    let error = fetch(&fixture, &other, entry()).unwrap_err();
    assert!(error.to_string().contains("another tarball"), "{error}");
}

#[test]
fn a_damaged_copy_is_no_end_if_there_is_another() {
    let fixture = fixture();
    let damaged = fixture.dir.path().join("damaged");
    let name = fixture.tarballs().remove(0);
    let path = damaged.join(name.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes = std::fs::read(fixture.root().join(name.as_str())).unwrap();
    for byte in &mut bytes {
        *byte ^= 1;
    }
    std::fs::write(&path, bytes).unwrap();
    let copies = [DirStore::create(&damaged).unwrap(), fixture.store()];
    let truth = Truth::of(&fixture);
    let request = RecallRequest { ino: truth.ino, chunks: truth.chunks, data_xid: truth.data_xid };
    for (n_copies, is_read) in [(1, false), (2, true)] {
        let stores = copies.iter().take(n_copies);
        let stores = stores.map(|store| -> Arc<dyn ObjectStore> { Arc::new(store.clone()) });
        let (index, keys) = (Arc::clone(&fixture.index), Arc::clone(&fixture.keys));
        let options = FetcherOptions::default();
        let fetcher = Fetcher::new(FILESYSTEM, index, keys, stores.collect(), options);
        match fetcher.fetch(&request) {
            Ok(extent) => assert!(is_read && extent.bytes() == noise(CONTENT_BYTES, 1)),
            Err(error) => assert!(!is_read && error.kind() == ErrorKind::Damaged, "{error}"),
        }
    }
}

/// What lies at the end of a frame is right although its start was decompressed first.
#[test]
fn a_frame_is_continued_where_its_start_was_kept() {
    let mut kvs = FakeKvs::new(CHUNK);
    for n in 0..6 {
        kvs = kvs.file(&format!("f{n}"), &noise(400, n));
    }
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    let fetcher = fetcher(&fixture, Arc::clone(&fixture.index));
    for n in [0, 5, 1, 4] {
        let ino = fixture.kvs.ino(&format!("f{n}"));
        let extent = fixture.kvs.resident_of(ino, ChunkNo::new(0), 1).unwrap().remove(0);
        let request = RecallRequest { ino, chunks: extent.chunks, data_xid: extent.data_xid };
        assert!(fetcher.fetch(&request).unwrap().bytes() == noise(400, n), "f{n}");
    }
}
