//! Restores past damaged tarballs: what lay in them is lost, and never zeros or older data.

use std::collections::BTreeSet;
use std::sync::Arc;

use tier_cloud::DirStore;
use tier_index::{Index, IndexOptions};
use tier_persist::{Archive, Damage, Keys, RestoredInodes, Watch};
use tier_testkit::FakeKvs;
use tier_types::{Call, ErrorKind, LogReader, ObjectName, ObjectStore, StoredContent};

use crate::common::{CHUNK, FILESYSTEM, Fixture, Way, dump, noise, read_log};
use crate::faulty::Faults;

/// A large file and others; later it grows, a sparse one is made, and another only gets a new mode.
fn fixture(with_checkpoint: bool) -> Fixture {
    let kvs = FakeKvs::new(CHUNK).file("big", &noise(9000, 1)).file("other", &noise(600, 2));
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    if with_checkpoint {
        fixture.checkpoint();
    }
    fixture.change(|kvs| kvs.write("big", 9216, b"grown").file("sparse", b""));
    fixture.change(|kvs| kvs.write("sparse", 4096, b"end"));
    fixture.persist();
    fixture
}

fn tarball_of(fixture: &Fixture, snapshot: u64) -> ObjectName {
    let of_snapshot = format!("/s{snapshot:010}-");
    let tarballs = fixture.tarballs().into_iter();
    tarballs.into_iter().find(|name| name.as_str().contains(&of_snapshot)).unwrap()
}

/// A filesystem, what is said of it, and what objects are said to be damaged.
fn restore(fixture: &Fixture) -> (FakeKvs, RestoredInodes, Vec<Damage>) {
    let store = fixture.store();
    let archive = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    let salvaged = archive.salvage_index(&index, &read_log, &mut Watch::default()).unwrap();
    let last = fixture.kvs.log().last_xid();
    let kvs = FakeKvs::empty(CHUNK, Arc::new(Way(fixture.fetcher())), last);
    let restored = archive.restore_into(&index, &kvs, &salvaged, &mut |_| {}).unwrap();
    (kvs, restored, salvaged.damages)
}

#[test]
fn what_a_lost_tarball_held_of_a_file_that_changed_later_is_lost() {
    let fixture = fixture(false);
    let name = tarball_of(&fixture, 1);
    std::fs::remove_file(fixture.root().join(name.as_str())).unwrap();
    let (kvs, restored, damages) = restore(&fixture);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert!(damages[0].missing && damages[0].object == name.as_str(), "{damages:?}");
    assert_eq!(kvs.names(), ["big", "sparse"]);
    for chunk in 0..17 {
        let error = kvs.read_chunk("big", chunk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "chunk {chunk}");
    }
    assert_eq!(kvs.read_chunk("big", 18).unwrap(), b"grown");
    assert_eq!(restored.lost.n_ranges(), 1, "{:?}", restored.lost);
    // Made after the step that is lost: nothing of it can have been there.
    assert_eq!(kvs.read("sparse").unwrap(), [&[0; 4096][..], b"end"].concat());
}

#[test]
fn with_a_checkpoint_only_the_data_of_a_lost_tarball_is_lost() {
    let fixture = fixture(true);
    let name = tarball_of(&fixture, 1);
    std::fs::remove_file(fixture.root().join(name.as_str())).unwrap();
    let (kvs, restored, damages) = restore(&fixture);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert!(damages[0].missing && damages[0].object == name.as_str(), "{damages:?}");
    assert_eq!(
        kvs.names(),
        ["big", "other", "sparse"],
        "names and attributes are in the checkpoint"
    );
    assert_eq!(restored.lost.n_ranges(), 0, "where the data lies is known");
    kvs.read_chunk("big", 3).unwrap_err();
    assert_eq!(kvs.read_chunk("big", 18).unwrap(), b"grown");
}

#[test]
fn what_one_copy_has_damaged_comes_from_another() {
    let fixture = fixture(false);
    let whole = tempfile::tempdir().unwrap();
    let name = tarball_of(&fixture, 1);
    let (damaged, copy) = (fixture.store(), DirStore::create(whole.path()).unwrap());
    for name in damaged.names(&Call::bulk(), "").unwrap() {
        let len_bytes = damaged.metadata(&Call::bulk(), &name).unwrap().len_bytes;
        let content = StoredContent { store: &damaged, name: &name, len_bytes };
        copy.put(&Call::bulk(), &name, &content).unwrap();
    }
    let path = fixture.root().join(name.as_str());
    let bytes = std::fs::read(&path).unwrap();
    // At the end are the tables, without which the members would have to be read.
    for from_end in [1, 40, 100, 200, 400] {
        let mut bytes = bytes.clone();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let archive = Archive::open(&damaged, &fixture.keys, FILESYSTEM).unwrap();
        let archive = archive.in_stores(vec![&damaged, &copy]);
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
        let salvaged = archive.salvage_index(&index, &read_log, &mut Watch::default()).unwrap();
        assert_eq!(salvaged.damages, [], "{from_end}");
        assert_eq!(dump(&index), fixture.dump(), "{from_end}");
    }
}

/// Two files of ten chunks, of which the first is changed in the second and in the third snapshot,
/// and the other one in the third; `between` is done with the second one.
fn changed_in_three(between: impl FnOnce(&mut Fixture)) -> Fixture {
    let kvs = FakeKvs::new(CHUNK).file("a", &noise(5120, 1)).file("b", &noise(5120, 2));
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    fixture.change(|kvs| kvs.write("a", 1024, &noise(512, 3)));
    between(&mut fixture);
    fixture.change(|kvs| kvs.write("a", 2560, b"later").write("b", 512, b"later"));
    fixture.persist();
    fixture
}

/// The chunks of a file that cannot be read. All others are what they were.
fn unreadable(fixture: &Fixture, kvs: &FakeKvs, name: &str) -> Vec<u64> {
    let whole = fixture.kvs.read(name).unwrap();
    let mut unreadable = Vec::new();
    for (number, chunk) in (0..).zip(whole.chunks(CHUNK as usize)) {
        match kvs.read_chunk(name, number) {
            Ok(read) => assert_eq!(read, chunk, "{name}, chunk {number}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged);
                unreadable.push(number);
            }
        }
    }
    unreadable
}

fn remove(fixture: &Fixture, snapshot: u64, kind: &str) {
    let of_snapshot = format!("/s{snapshot:010}-");
    let store = fixture.store();
    let names = store.names(&Call::bulk(), "").unwrap();
    let is_it =
        |name: &&ObjectName| name.as_str().contains(&of_snapshot) && name.as_str().contains(kind);
    assert!(names.iter().any(|name| is_it(&name)), "{kind} of snapshot {snapshot}");
    for name in names.iter().filter(is_it) {
        std::fs::remove_file(fixture.root().join(name.as_str())).unwrap();
    }
}

#[test]
fn older_data_never_stands_for_what_a_lost_tarball_held() {
    let fixture = changed_in_three(|fixture| drop(fixture.persist()));
    remove(&fixture, 2, ".tar");
    let (kvs, restored, damages) = restore(&fixture);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(unreadable(&fixture, &kvs, "a"), [2], "the log says what it was");
    assert_eq!(unreadable(&fixture, &kvs, "b"), [0_u64; 0]);
    assert_eq!(restored.lost.n_ranges(), 1, "{:?}", restored.lost);
    // Without its log it may have been anything.
    remove(&fixture, 2, ".log");
    let (kvs, _, _) = restore(&fixture);
    assert_eq!(unreadable(&fixture, &kvs, "a"), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(unreadable(&fixture, &kvs, "b"), [0, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn what_was_tried_again_in_a_lost_tarball_is_in_doubt_as_a_whole() {
    let fixture = changed_in_three(|fixture| {
        let ino = fixture.kvs.ino("a");
        let faults = Faults::of(ErrorKind::Failed).inode(ino);
        let report = fixture.persist_with(&faults).unwrap();
        assert_eq!(report.failed, [ino]);
        fixture.change(|kvs| kvs.write("b", 1024, b"more"));
        fixture.persist();
    });
    remove(&fixture, 3, ".tar");
    let (kvs, _, damages) = restore(&fixture);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(unreadable(&fixture, &kvs, "b"), [2]);
    assert_eq!(unreadable(&fixture, &kvs, "a"), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
}

#[test]
fn what_a_file_had_grown_by_in_a_lost_tarball_is_told() {
    let kvs = FakeKvs::new(CHUNK).file("a", &noise(1024, 1));
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    fixture.change(|kvs| kvs.write("a", 1024, &noise(1536, 2)));
    fixture.persist();
    remove(&fixture, 2, ".tar");
    let (kvs, restored, _) = restore(&fixture);
    assert_eq!(kvs.read("a").unwrap().len(), 1024, "its newest state is lost");
    let told: Vec<_> =
        restored.lost.listed().iter().map(|range| (range.bytes.offset, range.bytes.len)).collect();
    assert_eq!(told, [(1024, 1536)]);
}

#[test]
fn a_hole_of_an_earlier_part_never_stands_for_what_a_lost_one_held() {
    let kvs = FakeKvs::new(CHUNK).file("a", &noise(5120, 1)).file("b", &noise(5120, 2));
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.options.part_bytes = 512;
    fixture.persist_in_parts();
    fixture.change(|kvs| kvs.punch("a", 3..4).write("a", 512, &noise(512, 3)));
    fixture.change(|kvs| kvs.write("b", 0, &noise(5120, 4)));
    let first_of_second = fixture.n_snapshots() + 1;
    let n_parts = fixture.persist_in_parts_while(|kvs, part| match part {
        1 => kvs.write("a", 3 * 512, &noise(512, 5)),
        _ => kvs,
    });
    assert!(n_parts > 1, "{n_parts}");
    remove(&fixture, first_of_second + 1, ".tar");
    let (kvs, _, damages) = restore(&fixture);
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert_eq!(unreadable(&fixture, &kvs, "a"), [3]);
}

/// What a name says of the part that an object belongs to.
fn part_of(name: &ObjectName) -> String {
    let (_, name) = name.as_str().rsplit_once("/s").unwrap();
    name.split('-').next().unwrap().to_string()
}

/// Each part holds inodes that changed before the part did.
#[test]
fn what_a_damaged_part_held_is_lost_and_never_zeros() {
    let mut kvs = FakeKvs::new(CHUNK);
    for n in 0..6 {
        kvs = kvs.file(&format!("f{n}"), &noise(9000, n));
    }
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.options.part_bytes = 9000;
    // A tarball for each file or so, so that metadata and data lie in different ones.
    fixture.options.tarball_bytes = 3000;
    assert_eq!(fixture.persist_in_parts(), 6, "one for each file");
    let parts: BTreeSet<_> = fixture.tarballs().iter().map(part_of).collect();
    let parts: Vec<_> = parts.into_iter().collect();
    for name in fixture.tarballs() {
        let path = fixture.root().join(name.as_str());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (kvs, _, damages) = restore(&fixture);
        assert_eq!(damages.len(), 1, "{damages:?}");
        let of_part = parts.iter().position(|part| *part == part_of(&name)).unwrap();
        for n in 0..6 {
            let file = format!("f{n}");
            if n == of_part {
                let is_gone = !kvs.names().contains(&file);
                assert!(is_gone || !unreadable(&fixture, &kvs, &file).is_empty(), "{name}");
            } else {
                assert_eq!(unreadable(&fixture, &kvs, &file), [0_u64; 0], "{file} without {name}");
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
}
