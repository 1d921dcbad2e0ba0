//! What is persisted is found again, and the index is what the tarballs say.

use std::sync::atomic::AtomicBool;

use tier_index::{Index, IndexOptions};
use tier_persist::{
    Archive, Keys, PersistError, ScanMode, Watch, list_members, rebuild_without_manifests,
};
use tier_testkit::{FakeKvs, OneByOne};
use tier_types::{ChunkNo, ChunkRange, ErrorKind, HasKind, RecallRequest, Xid};

use crate::common::{CHUNK, FILESYSTEM, Fixture, dump, noise};
use crate::faulty::Faults;

fn sample() -> FakeKvs {
    FakeKvs::new(CHUNK)
        .file("small", b"hello")
        .file("empty", b"")
        .symlink("link", "small")
        .file("big", &noise(20_000, 1))
        .file("sparse", &[7; 1024])
        .write("sparse", 10 * 512, &[8; 700])
        .file("doomed", b"gone soon")
}

fn three_snapshots(keys: Keys) -> Fixture {
    let mut fixture = Fixture::new(sample(), keys);
    fixture.persist();
    fixture.change(|kvs| kvs.write("big", 4 * 512, &[9; 512]).remove("doomed"));
    fixture.persist();
    fixture.change(|kvs| kvs.punch("big", 6..9).write("small", 0, b"changed").file("late", b"x"));
    fixture.persist();
    fixture
}

#[test]
fn the_index_is_regenerated_from_tables_from_members_and_without_manifests() {
    let fixture = three_snapshots(Keys::generate().unwrap());
    for mode in [ScanMode::Tables, ScanMode::Full] {
        assert_eq!(fixture.regenerated(mode).unwrap(), fixture.dump(), "{mode:?}");
    }
    let store = fixture.store();
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    let (n, damages) =
        rebuild_without_manifests(&index, &store, &fixture.keys, FILESYSTEM, &mut Watch::default())
            .unwrap();
    assert_eq!((n, damages, dump(&index)), (3, Vec::new(), fixture.dump()));
    insta::assert_snapshot!(fixture.dump());
}

#[test]
fn a_tarball_lists_its_members() {
    let fixture = three_snapshots(Keys::generate().unwrap().without_encryption());
    let mut out = Vec::new();
    for name in fixture.tarballs() {
        list_members(&fixture.store(), &name, &fixture.keys, &mut out).unwrap();
    }
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

#[test]
fn every_extent_is_fetched_with_exactly_its_transaction() {
    let fixture = three_snapshots(Keys::generate().unwrap());
    let fetcher = fixture.fetcher();
    let mut expected = noise(20_000, 1);
    expected[4 * 512..5 * 512].fill(9);
    let ino = fixture.kvs.ino("big");
    let extents = fixture.kvs.resident_of(ino, ChunkNo::new(0), 100).unwrap();
    assert!(extents.len() >= 3);
    let mut seen = 0;
    for extent in extents {
        let mut rest = Some(extent.chunks);
        while let Some(chunks) = rest {
            let request = RecallRequest { ino, chunks, data_xid: extent.data_xid };
            let recalled = fetcher.fetch(&request).unwrap();
            let start = recalled.chunks().offset_bytes(CHUNK) as usize;
            assert_eq!(recalled.bytes(), &expected[start..start + recalled.bytes().len()]);
            seen += recalled.bytes().len();
            rest = ChunkRange::new(recalled.chunks().end(), chunks.end());
        }
        let wrong = Xid::new(extent.data_xid.get() + 1);
        let request = RecallRequest { ino, chunks: extent.chunks, data_xid: wrong };
        let error = fetcher.fetch(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    }
    assert_eq!(seen, expected.len() - 3 * 512, "all but what was punched");
}

#[test]
fn what_is_stopped_commits_nothing() {
    let mut fixture = Fixture::new(sample(), Keys::generate().unwrap());
    let stopped = fixture.try_persist(&Faults::of(ErrorKind::Failed), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(PersistError::Cancelled)));
    assert_eq!(fixture.index.applied().unwrap(), None);
    let store = fixture.store();
    let archive = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap();
    assert_eq!(archive.snapshots().count(), 0);
}
