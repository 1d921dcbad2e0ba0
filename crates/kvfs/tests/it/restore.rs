//! Restoring: inodes come back one by one into an empty filesystem.

use std::sync::Arc;

use kvfs::{Core, Heat, Kvfs, NoArchive};
use tempfile::TempDir;
use tier_testkit::VirtualClock;
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, FileAttr, FileKind, Ino, InodeState,
    InstanceView, Link, LogReader, MountedInstance, PortError, Timestamp, Xattr, Xid,
};

use crate::common::{CHUNK, name, open, options, reap_all};
use crate::fsck::check;

fn empty() -> (TempDir, Kvfs) {
    let dir = tempfile::tempdir().unwrap();
    Core::create_empty(dir.path(), &options(), Xid::new(200)).unwrap();
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let core = Core::open(dir.path(), &options(), clock).unwrap();
    (dir, Kvfs::new(Arc::new(core), Arc::new(NoArchive)))
}

fn attr(ino: u64, kind: FileKind, nlink: u32) -> FileAttr {
    let time = Timestamp { seconds: 7, nanos: 8 };
    FileAttr {
        ino: Ino::new(ino),
        kind,
        mode: 0o640,
        uid: 3,
        gid: 4,
        nlink,
        size_bytes: 0,
        accessed: time,
        modified: time,
        changed: time,
        created: time,
        xid: Xid::new(ino + 100),
    }
}

fn inode(attr: FileAttr, links: &[(u64, &str)]) -> InodeState {
    let link = |(parent, text): &(u64, &str)| Link { parent: Ino::new(*parent), name: name(text) };
    InodeState { attr, links: links.iter().map(link).collect(), xattrs: Vec::new() }
}

fn run(start: u64, end: u64, state: ChunkState) -> ChunkRun {
    let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap();
    ChunkRun { chunks, state, data_xid: Xid::new(50) }
}

fn put(fs: &Kvfs, inode: &InodeState, runs: Vec<ChunkRun>) -> Result<(), PortError> {
    fs.restore_inode(inode, &mut runs.into_iter().map(Ok))
}

#[test]
fn inodes_come_back_in_any_order() {
    let (dir, fs) = empty();
    let size_bytes = 5 * u64::from(CHUNK) + 10;
    let mut file =
        inode(FileAttr { size_bytes, ..attr(9, FileKind::Regular, 2) }, &[(1, "second"), (5, "f")]);
    file.xattrs = vec![Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() }];
    let runs = vec![run(1, 3, ChunkState::Cold), run(4, 6, ChunkState::Cold)];
    put(&fs, &file, runs).unwrap();
    put(&fs, &inode(attr(5, FileKind::Directory, 2), &[(1, "d")]), Vec::new()).unwrap();
    put(&fs, &inode(attr(1, FileKind::Directory, 3), &[]), Vec::new()).unwrap();
    fs.fsync().unwrap();
    assert_eq!(check(&fs).1, Vec::<String>::new());
    drop(fs);
    let fs = open(&dir);
    assert_eq!(fs.getattr(file.attr.ino).unwrap(), file.attr);
    assert_eq!(fs.lookup(Ino::new(5), &name("f")).unwrap(), file.attr);
    assert_eq!(fs.getxattr(file.attr.ino, b"user.a").unwrap(), b"1");
    assert_eq!(fs.heat(file.attr.ino).unwrap(), Heat::Cold);
    assert_eq!(fs.usage().unwrap().cold_bytes, 3 * u64::from(CHUNK) + 10);
    assert_eq!(fs.read(file.attr.ino, 0, 512).unwrap(), [0; 512], "a hole");
    let last = (fs.last_xid(), fs.usage().unwrap().backlog.operations);
    assert_eq!(last, (Xid::new(200), 0), "a restore is no operation");
    // Later entries are listed behind the restored ones.
    let made = fs.create_node(Ino::ROOT, &name("new"), &crate::common::node(FileKind::Fifo));
    assert_eq!(made.unwrap().ino, Ino::new(201));
    let listed = fs.readdir(Ino::ROOT, 0, 9).unwrap();
    assert_eq!(listed.last().unwrap().name, b"new");
}

#[test]
fn what_is_there_is_not_overwritten() {
    let (_dir, fs) = empty();
    let root = inode(attr(1, FileKind::Directory, 2), &[]);
    put(&fs, &root, Vec::new()).unwrap();
    let again = put(&fs, &root, Vec::new()).unwrap_err();
    assert!(again.to_string().contains("restore into an empty filesystem"), "{again}");
}

#[test]
fn what_no_filesystem_can_have_is_refused() {
    let (_dir, fs) = empty();
    let file = inode(attr(9, FileKind::Regular, 1), &[(1, "f")]);
    for runs in [
        vec![run(0, 1, ChunkState::Hot)],
        vec![run(0, 1, ChunkState::Warm)],
        vec![run(3, 4, ChunkState::Cold), run(0, 1, ChunkState::Cold)],
        vec![run(0, 4, ChunkState::Cold), run(3, 5, ChunkState::Cold)],
    ] {
        let error = put(&fs, &file, runs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    let gone = PortError::new(ErrorKind::Missing, "gone");
    let mut broken = [Ok(run(0, 1, ChunkState::Cold)), Err(gone)].into_iter();
    assert_eq!(fs.restore_inode(&file, &mut broken).unwrap_err().kind(), ErrorKind::Missing);
    for attr in [
        FileAttr { size_bytes: u64::MAX, ..attr(9, FileKind::Regular, 1) },
        attr(0, FileKind::Regular, 1),
    ] {
        let error = put(&fs, &inode(attr, &[(1, "f")]), Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    // None of them is there.
    assert_eq!(fs.usage().unwrap().n_inodes, 0);
    put(&fs, &file, Vec::new()).unwrap();
}

#[test]
fn an_orphan_that_was_archived_is_deleted_after_the_filesystem_is_opened() {
    let (dir, fs) = empty();
    put(&fs, &inode(attr(1, FileKind::Directory, 2), &[]), Vec::new()).unwrap();
    put(&fs, &inode(attr(9, FileKind::Regular, 0), &[]), vec![run(0, 1, ChunkState::Cold)])
        .unwrap();
    assert_eq!(fs.usage().unwrap().n_inodes, 2);
    fs.fsync().unwrap();
    drop(fs);
    let fs = open(&dir);
    reap_all(&fs);
    assert_eq!(fs.usage().unwrap().n_inodes, 1);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn a_map_of_many_runs_takes_several_batches() {
    let (_dir, fs) = empty();
    let n_runs = 25_000;
    let size_bytes = 2 * n_runs * u64::from(CHUNK);
    let file = inode(FileAttr { size_bytes, ..attr(9, FileKind::Regular, 1) }, &[(1, "f")]);
    let runs = (0..n_runs).map(|number| run(2 * number, 2 * number + 1, ChunkState::Cold));
    put(&fs, &inode(attr(1, FileKind::Directory, 2), &[]), Vec::new()).unwrap();
    put(&fs, &file, runs.collect()).unwrap();
    assert_eq!(fs.usage().unwrap().cold_bytes, n_runs * u64::from(CHUNK));
    let ranges = fs.data_ranges(file.attr.ino, 0, usize::MAX).unwrap();
    assert_eq!(ranges.len(), 25_000);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}
