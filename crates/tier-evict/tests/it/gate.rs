//! The eviction gate in isolation: what the archive says no to is not evicted, whatever the policy
//! wants and however safe its transactions are.

use tier_evict::{EvictReport, PassGoal};
use tier_testkit::FakeKvs;
use tier_types::{ChunkNo, ChunkRange, ErrorKind, HasKind, LogReader, ResidentExtent, Xid, to_u64};

use crate::fixture::{CHUNK, Fixture, chunk};
use crate::stub::{BoundlessArchive, BrokenArchive, RecordingPolicy, StubArchive};

fn chunks(start: u64, end: u64) -> ChunkRange {
    ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
}

/// A pass in which the policy lets everything go.
fn evict_all(fixture: &Fixture, archive: &StubArchive) -> EvictReport {
    let evicter = fixture.evicter(RecordingPolicy::default());
    fixture.evict(&evicter, PassGoal::Everything, archive).unwrap()
}

#[test]
fn nothing_is_evicted_if_the_archive_has_nothing() {
    let names = ["a", "b", "c"];
    let fixture = Fixture::with_files(&names);
    let empty = StubArchive::answering(|_| false);
    let report = evict_all(&fixture, &empty);
    assert_eq!((report.n_evicted, report.bytes, report.n_not_safe), (0, 0, 3));
    assert_eq!(report.retained.n_inodes(), 0, "the policy retained nothing");
    assert_eq!(fixture.instance.asked_to_evict(), [], "the filesystem was not even asked");
    assert_eq!(fixture.evicted(&names), Vec::<&str>::new());
    assert_eq!(fixture.carried_over(), fixture.inos(&names));
    assert_eq!(fixture.recorded_passes(), [(0, 0)]);

    // All of it comes up again, and goes once it is persisted; nothing had to change for that.
    let report = evict_all(&fixture, &StubArchive::complete());
    assert_eq!((report.n_candidates, report.n_evicted, report.n_not_safe), (3, 3, 0));
    assert_eq!(fixture.evicted(&names), names);
    assert_eq!(fixture.carried_over(), []);
}

#[test]
fn one_extent_that_is_not_persisted_stays_and_the_others_go() {
    // Three extents of one file: each write has a data xid of its own.
    let kvs =
        FakeKvs::new(CHUNK).file("a", &[1; 10]).write("a", 10, &[2; 20]).write("a", 30, &[3; 10]);
    let fixture = Fixture::of(kvs.file("b", &[4; 10]));
    fixture.publish();
    let a = fixture.ino("a");
    let archive = StubArchive::answering(move |extent| {
        extent.ino != a || !chunks(1, 3).covers(extent.chunks)
    });
    let report = evict_all(&fixture, &archive);
    assert_eq!((report.n_evicted, report.bytes, report.n_not_safe), (2, 30, 1));
    assert_eq!((fixture.resident_bytes("a"), fixture.resident_bytes("b")), (20, 0));
    let evicted: Vec<_> = fixture.instance.asked_to_evict();
    assert!(evicted.iter().all(|extent| extent.ino != a || extent.chunks != chunks(1, 3)));
    assert_eq!(fixture.carried_over(), [a]);
}

/// A chunk that is lost in the archive, say, of a file that was written in one go.
#[test]
fn a_part_of_an_extent_that_is_not_persisted_stays_and_the_rest_goes() {
    let fixture = Fixture::of(FakeKvs::new(CHUNK).file("a", &[1; 95]));
    let data_xid = fixture.publish();
    let a = fixture.ino("a");
    let lost = |extent: &ResidentExtent| {
        [chunks(2, 3), chunks(5, 7)].iter().any(|lost| lost.covers(extent.chunks))
    };
    let report = evict_all(&fixture, &StubArchive::answering(move |extent| !lost(extent)));
    assert_eq!((report.n_evicted, report.bytes, report.n_not_safe), (1, 65, 1));
    let extent = |start, end| ResidentExtent { ino: a, chunks: chunks(start, end), data_xid };
    assert_eq!(
        fixture.instance.asked_to_evict(),
        [extent(0, 2), extent(3, 5), extent(7, 10)],
        "the filesystem was asked for what is persisted, and for nothing else"
    );
    assert_eq!(fixture.resident_bytes("a"), 30);
    assert_eq!(fixture.carried_over(), [a]);

    // It goes with the pass that finds it persisted.
    let report = evict_all(&fixture, &StubArchive::complete());
    assert_eq!((report.n_evicted, report.bytes, report.n_not_safe), (1, 30, 0));
    assert_eq!(fixture.resident_bytes("a"), 0);
}

#[test]
fn an_archive_that_answers_more_than_it_was_asked_ends_the_pass() {
    let fixture = Fixture::with_files(&["a"]);
    let evicter = fixture.evicter(RecordingPolicy::default());
    let error = fixture.evict(&evicter, PassGoal::Everything, &BoundlessArchive).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    assert_eq!(fixture.instance.asked_to_evict(), []);
}

#[test]
fn the_archive_is_asked_for_exactly_the_version_that_is_resident() {
    let kvs = FakeKvs::new(CHUNK).file("a", &[1; 30]);
    let persisted_xid = kvs.log().last_xid();
    let fixture = Fixture::of(kvs.write("a", 10, &[2; 10]));
    let newer_xid = fixture.publish();
    let a = fixture.ino("a");
    let archive = StubArchive::answering(move |extent| extent.data_xid <= persisted_xid);
    let report = evict_all(&fixture, &archive);
    let extent =
        |start, end, data_xid| ResidentExtent { ino: a, chunks: chunks(start, end), data_xid };
    assert_eq!(
        archive.asked(),
        [extent(0, 1, persisted_xid), extent(1, 2, newer_xid), extent(2, 3, persisted_xid)]
    );
    assert_eq!(
        fixture.instance.asked_to_evict(),
        [extent(0, 1, persisted_xid), extent(2, 3, persisted_xid)],
        "and the filesystem to evict that version and no other"
    );
    assert_eq!((report.n_evicted, report.bytes, report.n_not_safe), (1, 20, 1));
    assert_eq!(fixture.resident_bytes("a"), 10, "the newer version");
    assert_eq!(fixture.carried_over(), [a]);
}

#[test]
fn a_write_between_the_question_and_the_eviction_wins() {
    let mut fixture = Fixture::with_files(&["a", "b"]);
    let (kvs, a) = (fixture.kvs.clone(), fixture.ino("a"));
    fixture.instance.before_eviction(move |extent| {
        if extent.ino == a {
            drop(kvs.clone().write("a", 0, &chunk(9)));
        }
    });
    let report = evict_all(&fixture, &StubArchive::complete());
    assert_eq!((report.n_evicted, report.bytes, report.n_not_safe), (1, 10, 1));
    assert_eq!((fixture.resident_bytes("a"), fixture.resident_bytes("b")), (10, 0));
    assert_eq!(fixture.carried_over(), [a]);
}

#[test]
fn an_inode_with_many_extents_is_evicted_to_its_end() {
    // A hole after each chunk, so that no two of them are one extent.
    let n_extents = 600_u64;
    let mut kvs = FakeKvs::new(CHUNK).file("a", &[]);
    for number in 0..n_extents {
        kvs = kvs.write("a", number * 2 * u64::from(CHUNK), &chunk(1));
    }
    let fixture = Fixture::of(kvs);
    fixture.publish();
    let archive = StubArchive::answering(|extent| extent.chunks.start() != ChunkNo::new(1000));
    let report = evict_all(&fixture, &archive);
    assert_eq!(to_u64(archive.asked().len()), n_extents, "each once");
    assert_eq!(report.bytes, (n_extents - 1) * u64::from(CHUNK));
    assert_eq!((report.n_evicted, report.n_not_safe), (1, 1));
    assert_eq!(fixture.resident_bytes("a"), u64::from(CHUNK));
}

#[test]
fn an_archive_that_cannot_be_asked_ends_the_pass_and_nothing_moves_on() {
    let names = ["a", "b"];
    let fixture = Fixture::with_files(&names);
    let evicter = fixture.evicter(RecordingPolicy::default());
    let error = fixture.evict(&evicter, PassGoal::Everything, &BrokenArchive).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(evicter.cursor().unwrap(), Xid::new(1));
    assert!(!fixture.list_path().exists());
    assert_eq!(fixture.evicted(&names), Vec::<&str>::new());
    assert_eq!(fixture.recorded_passes(), []);
}
