//! Failures that may pass: what cannot be read now is tried again with the next snapshot, and what
//! is restored in between has an error there, never the bytes of an earlier version.

use tier_index::ExtentContent;
use tier_persist::{
    Archive, Keys, LostRange, PersistError, PersistOptions, PersistReport, ScanMode,
};
use tier_status::Event;
use tier_testkit::{FakeKvs, OneByOne};
use tier_types::{ByteRange, ChunkNo, ChunkRange, ErrorKind, HasKind, Ino, Persisted, to_u64};

use crate::common::{CHUNK, FILESYSTEM, Fixture, noise};
use crate::faulty::Faults;

const CHUNK_LEN: usize = 512;

fn fixture(kvs: FakeKvs) -> Fixture {
    Fixture::new(kvs, Keys::generate().unwrap())
}

fn n_snapshots(fixture: &Fixture) -> usize {
    let store = fixture.store();
    Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap().snapshots().count()
}

/// A file in two versions, of the second of which a chunk fails. A small one is one member, and a
/// large one has its metadata and its parts in several.
#[test]
fn what_fails_is_an_error_until_it_is_read_and_never_an_older_version() {
    for (len, failing) in [(2000, 2), (2000, 3), (20_000, 0), (20_000, 9), (20_000, 39)] {
        let mut fixture = fixture(FakeKvs::new(CHUNK).file("f", &noise(len, 1)));
        fixture.persist();
        let new = noise(len, 2);
        fixture.change(|kvs| kvs.write("f", 0, &new).file("other", b"fine"));
        let ino = fixture.kvs.ino("f");
        let faults = Faults::of(ErrorKind::Failed).chunk(ino, failing);
        let PersistReport { failed, lost, unread, .. } = fixture.persist_with(&faults).unwrap();
        assert_eq!((failed, lost.n_ranges(), unread.n_ranges()), (vec![ino], 0, 0));

        // Nothing is known of what is stored: the filesystem has the only copy, and keeps it.
        let resident = fixture.kvs.resident_of(ino, ChunkNo::new(0), 10).unwrap();
        let data_xid = resident[0].data_xid;
        let found = fixture.index.find(ino, ChunkNo::new(failing)).unwrap().unwrap();
        assert_eq!((found.content, found.data_xid), (ExtentContent::Lost, data_xid));
        let chunk = ChunkRange::one(ChunkNo::new(failing)).unwrap();
        assert!(!fixture.index.is_persisted(ino, chunk, data_xid).unwrap());

        let restored = fixture.restored();
        for (number, expected) in new.chunks(CHUNK_LEN).enumerate() {
            match restored.read_chunk("f", to_u64(number)) {
                Ok(read) => assert!(read == expected, "{len}: chunk {number}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                    assert_eq!(to_u64(number), failing);
                }
            }
        }
        restored.read_chunk("f", failing).expect_err("it is lost until it is read");
        for mode in [ScanMode::Tables, ScanMode::Full] {
            assert_eq!(fixture.regenerated(mode).unwrap(), fixture.dump(), "{mode:?}");
        }

        // Not changed since, and tried again all the same.
        fixture.change(|kvs| kvs.file("more", b"more"));
        assert_eq!(fixture.persist().failed, []);
        assert!(fixture.index.is_persisted(ino, chunk, data_xid).unwrap());
        assert!(fixture.restored().read("f").unwrap() == new);
        for mode in [ScanMode::Tables, ScanMode::Full] {
            assert_eq!(fixture.regenerated(mode).unwrap(), fixture.dump(), "{mode:?}");
        }
        // And then no more.
        fixture.change(|kvs| kvs.file("last", b"last"));
        let faults = Faults::of(ErrorKind::Failed).chunk(ino, failing);
        assert_eq!(fixture.persist_with(&faults).unwrap().failed, []);
        assert_eq!(faults.met_chunks(), []);
    }
}

/// Few bad inodes are left out, however large their share is; many are a bad disk.
#[test]
fn many_inodes_that_fail_are_not_many_bad_inodes() {
    for (n_files, n_bad, is_persisted) in
        [(950, 900, true), (4100, 1010, true), (1300, 1100, false)]
    {
        for kind in [ErrorKind::Failed, ErrorKind::Damaged] {
            let name = |number: usize| format!("f{number}");
            let with_file = |kvs: FakeKvs, number| kvs.file(&name(number), &[7; 600]);
            let mut fixture = fixture((0..n_files).fold(FakeKvs::new(CHUNK), with_file));
            let bad = |faults: Faults, number: usize| match number % 2 {
                0 => faults.inode(fixture.kvs.ino(&name(number))),
                _ => faults.chunk(fixture.kvs.ino(&name(number)), 1),
            };
            let faults = (0..n_bad).fold(Faults::of(kind), bad);
            let persisted = fixture.persist_with(&faults);
            let what = format!("{n_bad} of {n_files}, {kind:?}");
            assert_eq!(persisted.is_ok(), is_persisted, "{what}: {persisted:?}");
            if let Err(error) = persisted {
                assert_eq!(error.kind(), kind, "{what}");
                assert_eq!(fixture.n_snapshots(), 0, "{what}: nothing is committed");
                assert_eq!(fixture.tarballs(), [], "{what}: and its room is given back");
            }
            // What failed before does not count: it would be refused for ever.
            fixture.change(|kvs| kvs.file("meanwhile", b"meanwhile"));
            assert_eq!(fixture.persist_with(&faults).is_ok(), is_persisted, "{what}, again");
            // When the disk is well again all of it is persisted that is not lost.
            fixture.change(|kvs| kvs.file("more", b"more"));
            let report = fixture.persist();
            assert_eq!(report.failed, [], "{what}");
            if !is_persisted {
                let restored = fixture.restored();
                (0..n_files).for_each(|number| {
                    assert!(restored.read(&name(number)).unwrap() == [7; 600], "{what}");
                });
            }
        }
    }
}

/// Of what a repair persists again as much may be damaged in the filesystem, by the same disk.
#[test]
fn what_is_persisted_again_and_damaged_is_not_refused() {
    let name = |number: usize| format!("f{number}");
    let with_file = |kvs: FakeKvs, number| kvs.file(&name(number), &[7; 600]);
    let mut fixture = fixture((0..1300).fold(FakeKvs::new(CHUNK), with_file));
    let bad: Vec<_> = (0..1100).map(|number| fixture.kvs.ino(&name(number))).collect();
    let both = |faults: Faults, ino: &Ino| faults.chunk(*ino, 0).chunk(*ino, 1);
    let faults = bad.iter().fold(Faults::of(ErrorKind::Damaged), both);
    let error = fixture.persist_with(&faults).unwrap_err();
    assert!(matches!(error, PersistError::TooMuchUnread { n_unread: 1100, n_damaged: 1100, .. }));
    fixture.change(|kvs| kvs.file("meanwhile", b"meanwhile"));
    fixture.failed = bad;
    let report = fixture.persist_with(&faults).unwrap();
    assert_eq!((report.failed, report.lost.n_bytes()), (vec![], 1100 * 600));
}

/// Each read may take as long as a disk takes to give up.
#[test]
fn a_disk_that_answers_nothing_is_not_asked_for_every_chunk() {
    let n_chunks = 128;
    let content = noise(n_chunks * CHUNK_LEN, 1);
    let mut fixture = fixture(FakeKvs::new(CHUNK).file("f", &content));
    // All of it is one member.
    (fixture.options.frame_bytes, fixture.options.member_bytes_max) = (1 << 17, 1 << 17);
    let ino = fixture.kvs.ino("f");
    let all = |faults: Faults, number| faults.chunk(ino, number);
    let faults = (0..to_u64(n_chunks)).fold(Faults::of(ErrorKind::Failed), all);
    assert_eq!(fixture.persist_with(&faults).unwrap().failed, [ino]);
    let n_reads = faults.n_chunk_reads();
    assert!(n_reads < n_chunks / 4, "{n_reads} reads of {n_chunks} chunks");
    fixture.change(|kvs| kvs.file("more", b"more"));
    assert_eq!(fixture.persist().failed, []);
    assert!(fixture.restored().read("f").unwrap() == content);
}

/// What was archived before is data, whatever fails of it later.
#[test]
fn what_an_earlier_snapshot_has_in_this_version_stays() {
    let mut fixture = fixture(FakeKvs::new(CHUNK).file("f", &[7; 500]));
    fixture.persist();
    let ino = fixture.kvs.ino("f");
    let before = fixture.index.find(ino, ChunkNo::new(0)).unwrap().unwrap();
    // Small as it is, it is written whole for the byte that was added.
    fixture.change(|kvs| kvs.write("f", u64::from(CHUNK), b"x"));
    let faults = Faults::of(ErrorKind::Failed).chunk(ino, 0);
    assert_eq!(fixture.persist_with(&faults).unwrap().failed, [ino]);
    assert_eq!(fixture.index.find(ino, ChunkNo::new(0)).unwrap(), Some(before));
    let mut expected = vec![7; 500];
    expected.resize(CHUNK_LEN, 0);
    expected.push(b'x');
    assert!(fixture.restored().read("f").unwrap() == expected);
}

/// Of one inode both kinds: each is told as what it is, and only the failure is tried again.
#[test]
fn damage_and_failure_are_told_apart_in_one_file() {
    let mut fixture = fixture(FakeKvs::new(CHUNK).file("f", &noise(20_000, 1)).damage("f", 1));
    let ino = fixture.kvs.ino("f");
    let faults = Faults::of(ErrorKind::Failed).chunk(ino, 2).chunk(ino, 30);
    let report = fixture.persist_with(&faults).unwrap();
    let bytes = ByteRange { offset: u64::from(CHUNK), len: u64::from(CHUNK) };
    assert_eq!((report.failed, report.lost.listed()), (vec![ino], &[LostRange { ino, bytes }][..]));
    let events = fixture.sink.events();
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Event::InodeFailed { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::RangeUnread { .. })), 1);

    fixture.change(|kvs| kvs.file("more", b"more"));
    let report = fixture.persist();
    assert_eq!((report.failed, report.lost.listed()), (vec![], &[LostRange { ino, bytes }][..]));
    // Damage alone is a statement for good.
    fixture.change(|kvs| kvs.file("last", b"last"));
    let report = fixture.persist();
    assert_eq!((report.failed, report.lost.n_ranges()), (vec![], 0));
}

/// In a restored filesystem nothing is left to be tried: it persists what is lost as that.
#[test]
fn what_failed_is_lost_in_a_restore_and_in_its_snapshots() {
    let mut fixture = fixture(FakeKvs::new(CHUNK).file("f", &noise(20_000, 1)));
    let ino = fixture.kvs.ino("f");
    let faults = Faults::of(ErrorKind::Failed).chunk(ino, 4);
    fixture.persist_with(&faults).unwrap();
    let lost = fixture.index.find(ino, ChunkNo::new(4)).unwrap();
    assert_eq!(lost.unwrap().content, ExtentContent::Lost);
    fixture.kvs = fixture.restored();
    fixture.change(|kvs| kvs.write("f", 0, b"changed"));
    let report = fixture.persist();
    assert_eq!((report.failed, report.lost.n_ranges()), (vec![], 0));
    assert_eq!(fixture.index.find(ino, ChunkNo::new(4)).unwrap(), lost);
    let error = fixture.restored().read_chunk("f", 4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

/// A file with a run for each chunk, so that its map is read in several pages.
fn fragmented(kvs: FakeKvs, seed: u64) -> FakeKvs {
    let content = noise(2500 * CHUNK_LEN, seed);
    (0..1250).fold(kvs.write("f", 0, &content), |kvs, at| kvs.punch("f", 2 * at..2 * at + 1))
}

/// Whatever was planned of the file when its map failed.
#[test]
fn of_a_file_whose_map_cannot_be_read_to_its_end_nothing_is_persisted() {
    for from in [0, 1, 2000] {
        let kvs = FakeKvs::new(CHUNK).file("f", b"").write("f", 3000 * u64::from(CHUNK), b"end");
        let mut fixture = fixture(fragmented(kvs, 1));
        fixture.persist();
        let old = fixture.kvs.read("f").unwrap();
        let (ino, all) = (fixture.kvs.ino("f"), ChunkNo::new(0));
        let known = |fixture: &Fixture| {
            let extents = fixture.index.extents(ino, all, 10_000).unwrap();
            (fixture.index.inode(ino).unwrap(), extents)
        };
        let before = known(&fixture);
        fixture.change(|kvs| fragmented(kvs, 2).file("other", b"fine"));
        let report =
            fixture.persist_with(&Faults::of(ErrorKind::Failed).map(ino, from, 0)).unwrap();
        assert_eq!((report.failed, report.lost.n_ranges()), (vec![ino], 0));
        assert_eq!(known(&fixture), before);
        let other = fixture.index.find(fixture.kvs.ino("other"), ChunkNo::new(0)).unwrap();
        assert!(other.is_some(), "the others are persisted");
        // Not a chunk of the new version, and the hole is a hole.
        assert!(fixture.restored().read("f").unwrap() == old, "map from {from} on");
        fixture.change(|kvs| kvs.file("more", b"more"));
        assert_eq!(fixture.persist().failed, []);
        assert!(fixture.restored().read("f").unwrap() == fixture.kvs.read("f").unwrap());
    }
}

/// A file of more members than can wait to be handed out, the last of them behind a hole.
fn many_members(kvs: FakeKvs, seed: u64) -> FakeKvs {
    let end = 5000 * u64::from(CHUNK);
    kvs.write("f", 0, &noise(4500 * CHUNK_LEN, seed)).write("f", end, &noise(CHUNK_LEN, seed))
}

#[test]
fn of_a_file_that_is_handed_out_before_its_map_is_read_nothing_is_persisted_either() {
    let mut fixture = fixture(many_members(FakeKvs::new(CHUNK).file("f", b""), 1));
    // A member for each chunk.
    fixture.options = PersistOptions { frame_bytes: CHUNK_LEN, ..fixture.options };
    fixture.persist();
    let old = fixture.kvs.read("f").unwrap();
    fixture.change(|kvs| many_members(kvs, 2).file("other", b"fine"));
    let (ino, other) = (fixture.kvs.ino("f"), fixture.kvs.ino("other"));
    // Where it fails after it was looked at, a part of the file is handed out by then.
    let faults = Faults::of(ErrorKind::Failed).map(ino, 5000, 1);
    let error = fixture.persist_with(&faults).unwrap_err();
    assert_eq!((error.kind(), faults.met_maps()), (ErrorKind::Failed, vec![ino]));
    assert_eq!(n_snapshots(&fixture), 1, "nothing is committed");
    assert!(fixture.restored().read("f").unwrap() == old);

    // Where it fails at once, the others are persisted.
    fixture.change(|kvs| kvs.file("more", b"more"));
    let report = fixture.persist_with(&Faults::of(ErrorKind::Failed).map(ino, 5000, 0)).unwrap();
    assert_eq!(report.failed, [ino]);
    assert!(fixture.index.find(other, ChunkNo::new(0)).unwrap().is_some());
    assert!(fixture.restored().read("f").unwrap() == old);
}

/// A store that is opened again in the middle, say: all inodes that follow would fail as well.
#[test]
fn a_snapshot_that_is_away_commits_nothing() {
    for kind in [ErrorKind::Away, ErrorKind::Cancelled] {
        let kvs = FakeKvs::new(CHUNK).file("big", &noise(20_000, 1)).file("other", b"other");
        let mut fixture = fixture(kvs);
        let ino = fixture.kvs.ino("big");
        for faults in [Faults::of(kind).chunk(ino, 4), Faults::of(kind).map(ino, 0, 0)] {
            let error = fixture.persist_with(&faults).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(n_snapshots(&fixture), 0);
            fixture.change(|kvs| kvs.write("other", 0, b"again"));
        }
        assert_eq!(fixture.persist().failed, []);
    }
}
