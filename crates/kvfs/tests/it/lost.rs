//! Lost ranges: what a restored filesystem knows to be gone reads as an error until newer content
//! takes its place, is evicted and recalled by nothing, and is persisted as what it is.

use std::sync::Arc;

use kvfs::ops::{Blocking, FilePosition};
use kvfs::{Core, FsError, Heat, Kvfs, NoArchive};
use tempfile::TempDir;
use tier_testkit::{OneByOne, VirtualClock};
use tier_types::{
    ByteRange, ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, EvictOutcome, FileAttr,
    FileKind, FileName, HasKind, Ino, InodeState, InstanceView, Link, LogReader, LogService,
    MountedInstance, Persisted, PortError, ResidentExtent, SnapshotId, Xid,
};

use crate::common::{CHUNK, name, options};
use crate::fsck::{Everything, Nothing, check};
use crate::repair::repair_from;

const F: Ino = Ino::new(9);
const LOST_XID: Xid = Xid::new(50);

/// An archive that has one chunk of each file, in any version.
struct OneChunk(u64);

impl Persisted for OneChunk {
    fn first_persisted(
        &self,
        _: Ino,
        chunks: ChunkRange,
        _: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        let one = ChunkRange::one(ChunkNo::new(self.0)).unwrap();
        Ok(one.intersection(chunks))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(None)
    }
}

fn chunks(start: u64, end: u64) -> ChunkRange {
    ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
}

fn lost_run() -> ChunkRun {
    ChunkRun { chunks: chunks(1, 3), state: ChunkState::Lost, data_xid: LOST_XID }
}

/// A file of five chunks and some bytes, of which the second and the third chunk are lost.
fn restored() -> (TempDir, Arc<Kvfs>) {
    let dir = tempfile::tempdir().unwrap();
    Core::create_empty(dir.path(), &options(), Xid::new(100)).unwrap();
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let core = Core::open(dir.path(), &options(), clock.clone()).unwrap();
    let link =
        |text: &str| Link { parent: Ino::ROOT, name: FileName::new(text.as_bytes()).unwrap() };
    let state = |attr, links| InodeState { attr, links, xattrs: Vec::new() };
    let root = FileAttr { nlink: 2, ..FileAttr::new(Ino::ROOT, FileKind::Directory) };
    let size_bytes = 5 * u64::from(CHUNK) + 10;
    let file = FileAttr { size_bytes, xid: Xid::new(60), ..FileAttr::new(F, FileKind::Regular) };
    core.restore_inode(&state(root, Vec::new()), &mut std::iter::empty()).unwrap();
    core.restore_inode(&state(file, vec![link("f")]), &mut std::iter::once(Ok(lost_run())))
        .unwrap();
    core.fsync().unwrap();
    drop(core);
    let core = Core::open(dir.path(), &options(), clock).unwrap();
    let fs = Arc::new(Kvfs::new(Arc::new(core), Arc::new(NoArchive)));
    fs.write(F, 0, &[1; 512]).unwrap();
    (dir, fs)
}

/// The bytes that an operation says are lost.
fn lost<T>(done: Result<T, FsError>) -> ByteRange {
    let error = done.err().expect("what is lost cannot be read");
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let FsError::LostRange { ino: F, bytes } = error else { panic!("{error:?}") };
    bytes
}

fn is_lost(fs: &Kvfs) -> bool {
    fs.usage().unwrap().lost_bytes > 0
}

#[test]
fn what_is_lost_is_an_error_and_the_rest_is_read() {
    let (_dir, fs) = restored();
    assert_eq!(fs.read(F, 0, 512).unwrap(), [1; 512]);
    assert_eq!(fs.read(F, 1536, 1034).unwrap(), [0; 1034], "a hole behind it");
    assert_eq!(lost(fs.read(F, 0, 5000)), ByteRange::between(512, 1536));
    assert_eq!(lost(fs.read(F, 1024, 1)), ByteRange::between(1024, 1536));
    let text = fs.read(F, 512, 1).unwrap_err().to_string();
    assert!(text.contains("bytes 512-1023 of inode 9 are lost"), "{text}");
    assert_eq!(fs.heat(F).unwrap(), Heat::Lost);
    assert_eq!(fs.usage().unwrap().lost_bytes, 1024);
    assert_eq!(fs.next_data(F, 512).unwrap(), Some(512), "it is no hole");
    assert_eq!(fs.next_hole(F, 0).unwrap(), Some(1536));
    let at = |offset| FilePosition { ino: F, offset };
    lost(fs.copy_range(Blocking::Blocking, at(600), at(4096), 10));
}

#[test]
fn a_change_that_would_keep_a_part_of_it_is_refused() {
    let (_dir, fs) = restored();
    let last = fs.last_xid();
    assert_eq!(lost(fs.write(F, 600, b"part")), ByteRange::between(512, 1024));
    assert_eq!(lost(fs.write(F, 0, &[2; 600])), ByteRange::between(512, 1024));
    assert_eq!(lost(fs.punch_hole(F, 1500, 100)), ByteRange::between(1024, 1536));
    assert_eq!(lost(fs.truncate(F, 700)), ByteRange::between(512, 1024));
    assert_eq!(fs.last_xid(), last, "nothing was changed");
    assert_eq!(fs.read(F, 0, 512).unwrap(), [1; 512]);
}

#[test]
fn newer_content_takes_its_place() {
    let (_dir, fs) = restored();
    fs.write(F, 512, &[2; 512]).unwrap();
    assert_eq!(fs.read(F, 0, 1024).unwrap(), [[1; 512], [2; 512]].concat());
    assert_eq!(fs.usage().unwrap().lost_bytes, 512);
    fs.punch_hole(F, 1024, 512).unwrap();
    assert_eq!(fs.read(F, 1024, 512).unwrap(), [0; 512]);
    assert!(!is_lost(&fs));
    assert_eq!(fs.heat(F).unwrap(), Heat::Hot);
    assert_eq!(check(&fs).1, Vec::<String>::new());
    let (_dir, fs) = restored();
    fs.truncate(F, 512).unwrap();
    fs.truncate(F, 2000).unwrap();
    assert_eq!(fs.read(F, 512, 1488).unwrap(), [0; 1488], "it was cut off, and the file grew");
    assert_eq!(check(&fs).1, Vec::<String>::new());
    let (_dir, fs) = restored();
    fs.unlink(Ino::ROOT, &name("f")).unwrap();
    assert!(!is_lost(&fs));
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn it_is_not_evicted_and_the_next_snapshot_shows_it() {
    let (_dir, fs) = restored();
    let resident = fs.resident_of(F, ChunkNo::new(0), 9).unwrap();
    assert_eq!(resident.iter().map(|extent| extent.chunks).collect::<Vec<_>>(), [chunks(0, 1)]);
    let extent = ResidentExtent { ino: F, chunks: chunks(1, 3), data_xid: LOST_XID };
    assert_eq!(fs.evict_extent(&extent).unwrap(), EvictOutcome::Skipped);
    let publication = fs.publish().unwrap().unwrap();
    let snapshot = fs.open_snapshot(&publication).unwrap();
    let mut reader = snapshot.reader();
    let runs = reader.chunk_runs(F, ChunkNo::new(0), 9).unwrap();
    assert_eq!(runs[1], lost_run());
    let error = reader.read_chunks(F, chunks(1, 2), &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[test]
fn the_check_names_it_and_the_repair_takes_what_the_archive_has() {
    let (_dir, fs) = restored();
    let expected = ["its chunks 1-2 are lost: they could not be read when persisted"];
    assert_eq!(check(&fs).1, expected);
    let (report, left) = repair_from(&Nothing, &fs);
    assert_eq!((report.n_repaired, left), (0, expected.map(String::from).to_vec()));
    assert!(is_lost(&fs), "what is nowhere stays an error");
    let (report, left) = repair_from(&Everything, &fs);
    assert_eq!((report.n_repaired, left), (1, Vec::new()));
    let usage = fs.usage().unwrap();
    assert_eq!((usage.lost_bytes, usage.cold_bytes), (0, 1024), "it is recalled when it is read");
}

#[test]
fn the_check_and_the_repair_tell_the_parts_that_the_archive_has() {
    let (_dir, fs) = restored();
    let (report, left) = repair_from(&OneChunk(2), &fs);
    let expected = ["its chunks 1-1 are lost: they could not be read when persisted"];
    assert_eq!((report.n_repaired, left), (1, expected.map(String::from).to_vec()));
    let usage = fs.usage().unwrap();
    assert_eq!((usage.lost_bytes, usage.cold_bytes), (512, 512), "one chunk was there");
    // Of a cold run it names those that are away.
    let (_, left) = repair_from(&Everything, &fs);
    assert_eq!(left, Vec::<String>::new());
    let (report, left) = repair_from(&OneChunk(2), &fs);
    let expected = ["the archive does not have its evicted chunks 1-1 of xid 50"];
    assert_eq!((report.n_repaired, left), (0, expected.map(String::from).to_vec()));
}
