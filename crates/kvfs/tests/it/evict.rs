//! Evictions: exactly the version that is named goes, and nothing else.

use kvfs::{FsError, Heat};
use tier_testkit::OneByOne;
use tier_types::{
    ChunkNo, ChunkRange, EvictOutcome, FileKind, Ino, InstanceView, LogReader, LogService,
    MountedInstance, ResidentExtent, Timestamp, Xid,
};

use crate::archive::{evict, tiered};
use crate::common::{create, directory, file, name, node, open};
use crate::fsck::check;

fn range(start: u64, end: u64) -> ChunkRange {
    ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
}

#[test]
fn data_of_another_version_is_skipped_whatever_version_that_is() {
    let (_dir, fs, _archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[1; 1024]).unwrap();
    let extents = fs.resident_of(ino, ChunkNo::new(0), 10).unwrap();
    let [extent] = extents[..] else { panic!("{extents:?}") };
    for data_xid in [extent.data_xid.get() - 1, extent.data_xid.get() + 1, 0, u64::MAX] {
        let other = ResidentExtent { data_xid: Xid::new(data_xid), ..extent };
        assert_eq!(fs.evict_extent(&other).unwrap(), EvictOutcome::Skipped, "{data_xid}");
    }
    assert_eq!((fs.heat(ino).unwrap(), fs.resident_bytes(ino).unwrap()), (Heat::Hot, 1024));
    let last = fs.last_xid();
    assert_eq!(fs.evict_extent(&extent).unwrap(), EvictOutcome::Evicted { bytes: 1024 });
    assert_eq!(fs.heat(ino).unwrap(), Heat::Cold);
    assert_eq!(fs.last_xid(), last, "an eviction is no operation");
    assert_eq!(fs.evict_extent(&extent).unwrap(), EvictOutcome::Skipped, "it is cold already");
}

#[test]
fn only_the_chunks_of_the_named_version_go() {
    let (_dir, fs, archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[1; 2048]).unwrap();
    let extent = fs.resident_of(ino, ChunkNo::new(0), 10).unwrap()[0];
    archive.keep(&fs, ino);
    // One chunk changes after it was archived, one becomes a hole.
    fs.write(ino, 512, &[2; 512]).unwrap();
    fs.punch_hole(ino, 1024, 512).unwrap();
    assert_eq!(fs.evict_extent(&extent).unwrap(), EvictOutcome::Evicted { bytes: 1024 });
    assert_eq!(fs.resident_bytes(ino).unwrap(), 512);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Mixed);
    let read = fs.read(ino, 0, 9999).unwrap();
    assert_eq!(read, [[1; 512], [2; 512], [0; 512], [1; 512]].concat());
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn bytes_count_up_to_the_end_of_the_file() {
    let (_dir, fs, _archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[1; 700]).unwrap();
    let before = fs.usage().unwrap();
    assert_eq!((before.resident_bytes, before.cold_bytes), (700, 0));
    assert_eq!(evict(&fs, ino), 700);
    let after = fs.usage().unwrap();
    assert_eq!((after.resident_bytes, after.cold_bytes, after.n_inodes), (0, 700, 2));
    assert_eq!(fs.statfs().unwrap().data_bytes, 700, "it is still there");
    fs.unlink(Ino::ROOT, &name("f")).unwrap();
    let gone = fs.usage().unwrap();
    assert_eq!((gone.resident_bytes, gone.cold_bytes, gone.n_inodes), (0, 0, 1));
}

#[test]
fn an_inode_that_is_gone_is_skipped() {
    let (_dir, fs, _archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[1; 700]).unwrap();
    let extent = fs.resident_of(ino, ChunkNo::new(0), 10).unwrap()[0];
    fs.unlink(Ino::ROOT, &name("f")).unwrap();
    assert_eq!(fs.evict_extent(&extent).unwrap(), EvictOutcome::Skipped);
    assert_eq!(fs.resident_of(ino, ChunkNo::new(0), 10).unwrap(), []);
    assert_eq!(fs.facts_of(ino).unwrap(), None);
}

#[test]
fn resident_extents_are_told_in_pages() {
    let (_dir, fs, _archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    for number in 0..5 {
        fs.write(ino, number * 1024, &[1; 512]).unwrap();
    }
    let mut from = ChunkNo::new(0);
    let mut starts = Vec::new();
    loop {
        let page = fs.resident_of(ino, from, 2).unwrap();
        let Some(last) = page.last() else { break };
        from = last.chunks.end();
        starts.extend(page.iter().map(|extent| extent.chunks.start().get()));
    }
    assert_eq!(starts, [0, 2, 4, 6, 8]);
    let within = fs.resident_of(ino, ChunkNo::new(8), 10).unwrap();
    assert_eq!(within.iter().map(|extent| extent.chunks).collect::<Vec<_>>(), [range(8, 9)]);
}

#[test]
fn a_snapshot_keeps_what_is_evicted_after_it() {
    let (_dir, fs, archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[3; 1000]).unwrap();
    let publication = fs.publish().unwrap().unwrap();
    archive.keep_and_evict(&fs, ino);
    let snapshot = fs.open_snapshot(&publication).unwrap();
    let mut data = Vec::new();
    snapshot.reader().read_chunks(ino, range(0, 2), &mut data).unwrap();
    assert_eq!(data[..1000], [3; 1000]);
    assert_eq!(fs.publish().unwrap(), None, "nothing was logged");
}

#[test]
fn evicted_data_stays_evicted_through_a_restart() {
    let (dir, fs, archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[3; 1000]).unwrap();
    archive.keep_and_evict(&fs, ino);
    fs.fsync().unwrap();
    assert!(fs.reclaim(&|| false).is_ok());
    drop(fs);
    let fs = open(&dir);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Cold);
    assert!(matches!(fs.read(ino, 0, 1), Err(FsError::Recall { .. })), "an error, never zeros");
}

#[test]
fn pins_hold_whatever_lies_below() {
    let (dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let f = file(&fs, d, "f");
    fs.link(f, Ino::ROOT, &name("second")).unwrap();
    assert!(!fs.is_pinned(f).unwrap());
    fs.set_pin(d, true).unwrap();
    fs.set_pin(d, true).unwrap();
    assert!(fs.is_pinned(f).unwrap() && fs.is_pinned(d).unwrap());
    assert!(!fs.is_pinned(Ino::ROOT).unwrap());
    assert!(fs.facts_of(f).unwrap().unwrap().pinned);
    fs.fsync().unwrap();
    drop(fs);
    let fs = open(&dir);
    assert!(fs.is_pinned(f).unwrap());
    fs.set_pin(d, false).unwrap();
    assert!(!fs.is_pinned(f).unwrap());
    // A pin goes with its inode.
    fs.set_pin(f, true).unwrap();
    fs.unlink(d, &name("f")).unwrap();
    fs.unlink(Ino::ROOT, &name("second")).unwrap();
    assert_eq!(check(&fs).1, Vec::<String>::new());
    assert!(matches!(fs.set_pin(f, true), Err(FsError::NotFound)));
}

#[test]
fn facts_are_of_the_last_use() {
    let (dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &[1; 600]).unwrap();
    let facts = fs.facts_of(ino).unwrap().unwrap();
    assert_eq!((facts.size_bytes, facts.resident_bytes, facts.pinned), (600, 600, false));
    assert_eq!(facts.last_used.seconds, 1_480_000_000);
    let old = Timestamp { seconds: 5, nanos: 0 };
    let set = kvfs::ops::SetAttr { accessed: Some(old), modified: Some(old), ..Default::default() };
    fs.setattr(ino, &set).unwrap();
    let facts = fs.facts_of(ino).unwrap().unwrap();
    assert!(facts.last_used > old, "it was written just now");
    fs.fsync().unwrap();
    drop(fs);
    // After a restart that is not known any more.
    assert_eq!(open(&dir).facts_of(ino).unwrap().unwrap().last_used, old);
}

#[test]
fn heat_is_a_matter_of_files() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    assert!(matches!(fs.heat(d), Err(FsError::IsDirectory)));
    let fifo = fs.create_node(d, &name("fifo"), &node(FileKind::Fifo)).unwrap().ino;
    assert!(matches!(fs.heat(fifo), Err(FsError::Invalid(_))));
    assert!(matches!(fs.heat(Ino::new(99)), Err(FsError::NotFound)));
    assert_eq!(fs.heat(file(&fs, d, "empty")).unwrap(), Heat::Hot);
}
