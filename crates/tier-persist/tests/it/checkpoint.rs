//! Checkpoints: an index and a filesystem from them are what the tarballs say, whatever is damaged.

use std::fmt::Write;

use tier_persist::{Archive, Keys, LostRanges, ScanMode, Watch};
use tier_testkit::FakeKvs;
use tier_types::{Call, ChunkNo, ErrorKind, ObjectStore, Persisted};

use crate::common::{CHUNK, FILESYSTEM, Fixture, noise};
use crate::faulty::Faults;

/// Small files in three snapshots, the last of them with a range that is lost and a file that is
/// gone.
fn fixture() -> Fixture {
    let mut kvs = FakeKvs::new(CHUNK);
    for n in 0..20 {
        kvs = kvs.file(&format!("f{n}"), &noise(700, n));
    }
    kvs = kvs.file("sparse", b"").write("sparse", 4096, b"x");
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.options.object_bytes = 500;
    fixture.persist();
    fixture.change(|kvs| kvs.symlink("link", "f1").write("f3", 512, b"new").punch("f4", 0..1));
    fixture.persist();
    fixture.change(|kvs| kvs.remove("f5").file("bad", &[7; 2000]).damage("bad", 1));
    fixture.persist();
    fixture
}

fn check(fixture: &Fixture) {
    for mode in [ScanMode::Checkpoint, ScanMode::Tables, ScanMode::Full] {
        assert_eq!(fixture.regenerated(mode).unwrap(), fixture.dump(), "{mode:?}");
    }
    let restored = fixture.restored();
    assert_eq!(restored.names(), fixture.kvs.names());
    for name in restored.names().iter().filter(|name| *name != "bad" && *name != "link") {
        assert_eq!(restored.read(name).unwrap(), fixture.kvs.read(name).unwrap(), "{name}");
    }
    let lost = restored.read_chunk("bad", 1).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Damaged, "what is lost stays lost");
    assert_eq!(restored.read_chunk("bad", 2).unwrap(), [7; CHUNK as usize]);
}

/// The objects of checkpoints, without what is random in their names.
fn objects(fixture: &Fixture) -> Vec<String> {
    let names = fixture.store().names(&Call::bulk(), "").unwrap();
    let parts = names.iter().filter_map(|name| {
        let (start, rest) = name.as_str().split_once("-p")?;
        let (part, ending) = (rest.get(..6)?, rest.split_once('.')?.1);
        Some(format!("{}-p{part}.{ending}", start.rsplit('/').next()?))
    });
    parts.collect()
}

#[test]
fn an_index_and_a_filesystem_come_back_by_a_checkpoint() {
    let mut fixture = fixture();
    let report = fixture.checkpoint();
    assert!(report.n_written > 4 && report.n_kept == 0, "{report:?}");
    check(&fixture);
    fixture.change(|kvs| kvs.file("later", b"x").remove("f6").write("f7", 0, &[1; 512]));
    fixture.persist();
    check(&fixture);
    let mut text = String::new();
    for object in objects(&fixture) {
        writeln!(text, "{object}").unwrap();
    }
    insta::assert_snapshot!(text + &fixture.regenerated(ScanMode::Checkpoint).unwrap());
}

#[test]
fn what_has_not_changed_is_not_written_again() {
    let mut fixture = fixture();
    let first = fixture.checkpoint();
    fixture.change(|kvs| kvs.write("f0", 0, &[9; 512]).file("new", b"y"));
    fixture.persist();
    let second = fixture.checkpoint();
    assert!(
        second.n_kept > 0 && second.written_bytes < first.written_bytes,
        "{first:?} {second:?}"
    );
    check(&fixture);
    let all = fixture.checkpoint_with(&Faults::of(ErrorKind::Failed), false).unwrap();
    assert!(all.n_kept == 0 && all.n_written >= first.n_written, "{all:?}");
    check(&fixture);
    // Nothing but the end of the history, in which this one is.
    let unchanged = fixture.checkpoint();
    assert!(unchanged.n_written <= 3 && unchanged.n_kept > 0, "{unchanged:?}");
    check(&fixture);
}

#[test]
fn a_gone_inode_and_new_data_of_an_old_one_are_changes() {
    let mut fixture = fixture();
    fixture.checkpoint();
    fixture.change(|kvs| kvs.remove("f1"));
    fixture.persist();
    let gone = fixture.checkpoint();
    assert!(gone.n_written > 1, "{gone:?}");
    check(&fixture);
    fixture.change(|kvs| kvs.punch("f8", 0..1));
    fixture.persist();
    assert!(fixture.checkpoint().n_written > 1);
    check(&fixture);
}

#[test]
fn metadata_that_the_filesystem_cannot_tell_is_read_from_the_tarball() {
    let mut fixture = fixture();
    let faults = Faults::of(ErrorKind::Damaged);
    let faults = faults.inode(fixture.kvs.ino("f2")).inode(fixture.kvs.ino("link"));
    fixture.checkpoint_with(&faults, true).unwrap();
    check(&fixture);
    // An error that passes is none of the inode, and ends the attempt.
    let faults = Faults::of(ErrorKind::Failed).inode(fixture.kvs.ino("f2"));
    fixture.checkpoint_with(&faults, false).unwrap_err();
    fixture.checkpoint();
    check(&fixture);
}

#[test]
fn an_inode_that_was_not_persisted_is_as_the_archive_has_it() {
    let mut fixture = fixture();
    fixture.change(|kvs| kvs.write("f9", 0, &[4; 512]));
    let ino = fixture.kvs.ino("f9");
    let before = fixture.index.inode(ino).unwrap();
    let report = fixture.persist_with(&Faults::of(ErrorKind::Failed).map(ino, 0, 0)).unwrap();
    assert_eq!(report.failed, [ino]);
    fixture.checkpoint();
    assert_eq!(fixture.regenerated(ScanMode::Checkpoint).unwrap(), fixture.dump());
    let restored = fixture.restored();
    assert_eq!(restored.read("f9").unwrap(), noise(700, 9));
    assert_eq!(fixture.index.inode(ino).unwrap(), before);
    let extent = fixture.index.find(ino, ChunkNo::new(0)).unwrap().unwrap();
    assert!(fixture.index.is_persisted(ino, extent.chunks, extent.data_xid).unwrap());
}

/// Whatever object of a checkpoint is damaged or lost, everything comes back, and it is told.
#[test]
fn a_damaged_checkpoint_costs_nothing_but_time() {
    let mut fixture = fixture();
    fixture.checkpoint();
    fixture.change(|kvs| kvs.write("f0", 0, &[9; 512]).file("later", b"x"));
    fixture.persist();
    fixture.checkpoint();
    // What was never written of a file that goes on changing stays zeros.
    fixture.change(|kvs| kvs.file("latest", b"z").write("sparse", 8192, b"y"));
    fixture.persist();
    let names = fixture.store().names(&Call::bulk(), "").unwrap();
    let of_checkpoint = |ending: &str| ending.contains(".inodes") || ending.contains(".steps");
    for name in names.iter().filter(|name| of_checkpoint(name.as_str())) {
        let path = fixture.root().join(name.as_str());
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [Some(flipped), None] {
            match damaged {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            check(&fixture);
            let store = fixture.store();
            let archive = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap();
            let report = archive.verify(false, &mut Watch::default()).unwrap();
            let damages: Vec<_> = report.damages.iter().map(|damage| &damage.object).collect();
            assert_eq!(damages, [name.as_str()]);
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn an_index_that_says_something_else_is_written_anew() {
    let mut fixture = fixture();
    fixture.checkpoint();
    // Without any later step, as an index that is rebuilt past damage.
    let first = fixture.index.tarballs().unwrap()[0].0;
    fixture.index.writer().lose(&[first].into()).unwrap();
    assert!(LostRanges::of_index(&fixture.index).unwrap().n_ranges() > 10);
    assert_ne!(fixture.regenerated(ScanMode::Checkpoint).unwrap(), fixture.dump());
    fixture.checkpoint();
    assert_eq!(fixture.regenerated(ScanMode::Checkpoint).unwrap(), fixture.dump());
}

#[test]
fn objects_for_other_recipients_are_written_again() {
    let mut fixture = fixture();
    fixture.checkpoint();
    let text = fixture.keys.to_identity_file("the same");
    let mut keys = Keys::from_identity_file(&text).unwrap();
    let recovery = Keys::generate().unwrap();
    keys.add_recipient(&recovery.public_key()).unwrap();
    fixture.keys = keys.into();
    let again = fixture.checkpoint();
    assert!(again.n_kept == 0 && again.n_written > 4, "{again:?}");
    check(&fixture);
}
