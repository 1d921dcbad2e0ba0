//! Lost ranges: what cannot be read is not persisted, everything else is, and it is told.

use tier_index::ExtentContent;
use tier_persist::{Keys, LostRange, PersistReport, ScanMode};
use tier_status::Event;
use tier_testkit::FakeKvs;
use tier_types::{ByteRange, ChunkNo, ChunkRange, ErrorKind, HasKind, Persisted, RecallRequest};

use crate::common::{CHUNK, Fixture, noise};

fn chunk(number: u64) -> ChunkRange {
    ChunkRange::one(ChunkNo::new(number)).unwrap()
}

fn bytes(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start * u64::from(CHUNK), end * u64::from(CHUNK))
}

fn lost_bytes(report: &PersistReport) -> Vec<LostRange> {
    report.lost.listed().to_vec()
}

/// A small file and a large one, each with chunks that cannot be read.
fn damaged() -> FakeKvs {
    FakeKvs::new(CHUNK)
        .file("small", &[1; 2000])
        .damage("small", 2)
        .file("big", &noise(20_000, 1))
        .damage("big", 8)
        .damage("big", 9)
        .damage("big", 20)
        .file("after", b"fine")
}

#[test]
fn exactly_what_cannot_be_read_is_lost() {
    let mut fixture = Fixture::new(damaged(), Keys::generate().unwrap());
    let report = fixture.persist();
    let [small, big] = ["small", "big"].map(|name| fixture.kvs.ino(name));
    assert_eq!(report.failed, []);
    let range = |ino, start, end| LostRange { ino, bytes: bytes(start, end) };
    let mut lost = lost_bytes(&report);
    lost.sort_by_key(|range| (range.ino, range.bytes.offset));
    assert_eq!(lost, [range(small, 2, 3), range(big, 8, 10), range(big, 20, 21)]);
    assert_eq!((report.lost.n_ranges(), report.lost.n_bytes()), (3, 4 * u64::from(CHUNK)));
    assert_eq!(report.data_bytes, 2000 + 20_000 + 4 - 4 * u64::from(CHUNK));
    let events = fixture.sink.events().into_iter();
    let said = events.filter(|event| matches!(event, Event::RangeUnread { .. }));
    assert_eq!(said.count(), 3);
    for (ino, number, is_lost) in
        [(small, 1, false), (small, 2, true), (small, 3, false), (big, 9, true), (big, 10, false)]
    {
        let extent = fixture.index.find(ino, ChunkNo::new(number)).unwrap().unwrap();
        assert_eq!(extent.content == ExtentContent::Lost, is_lost, "{ino}, {number}");
        let persisted = fixture.index.is_persisted(ino, chunk(number), extent.data_xid).unwrap();
        assert_eq!(persisted, !is_lost, "nothing is evicted against a lost range");
        let request = RecallRequest { ino, chunks: chunk(number), data_xid: extent.data_xid };
        let fetched = fixture.fetcher().fetch(&request);
        assert_eq!(
            fetched.as_ref().err().map(HasKind::kind),
            is_lost.then_some(ErrorKind::Damaged)
        );
    }
    for mode in [ScanMode::Tables, ScanMode::Full] {
        assert_eq!(fixture.regenerated(mode).unwrap(), fixture.dump(), "{mode:?}");
    }
    // It changed nothing since, and is not tried again.
    fixture.change(|kvs| kvs.file("more", b"more"));
    let report = fixture.persist();
    assert_eq!((report.failed, report.lost.n_ranges()), (Vec::new(), 0));
    insta::assert_snapshot!(fixture.dump());
}

#[test]
fn a_tarball_lists_what_is_lost() {
    let mut fixture = Fixture::new(damaged(), Keys::generate().unwrap().without_encryption());
    fixture.persist();
    let mut out = Vec::new();
    for name in fixture.tarballs() {
        tier_persist::list_members(&fixture.store(), &name, &fixture.keys, &mut out).unwrap();
    }
    insta::assert_snapshot!(String::from_utf8(out).unwrap());
}

/// A chunk that was archived before it went bad is not lost, though it cannot be read now.
#[test]
fn what_an_earlier_snapshot_has_is_not_lost() {
    let kvs = FakeKvs::new(CHUNK).file("f", &[7; 500]);
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    let before = fixture.index.find(fixture.kvs.ino("f"), ChunkNo::new(0)).unwrap().unwrap();
    // Small as it is, it is written whole for the byte that was added.
    fixture.change(|kvs| kvs.write("f", u64::from(CHUNK), b"x").damage("f", 0));
    let report = fixture.persist();
    assert_eq!((report.lost.n_ranges(), report.unread.n_ranges()), (0, 1));
    assert_eq!(report.unread.listed()[0].bytes, bytes(0, 1));
    let after = fixture.index.find(fixture.kvs.ino("f"), ChunkNo::new(0)).unwrap().unwrap();
    assert_eq!(after, before, "of one data xid data wins over lost");
    for mode in [ScanMode::Tables, ScanMode::Full] {
        assert_eq!(fixture.regenerated(mode).unwrap(), fixture.dump(), "{mode:?}");
    }
}
