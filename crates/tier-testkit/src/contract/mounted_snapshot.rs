//! The contract of [`MountedSnapshot`] and [`SnapshotReader`](tier_types::SnapshotReader), and of
//! what a release does to them. Called by the suite of the instance that opens them.
//!
//! A snapshot shows exactly its publication: no later write, every file that was deleted since, and
//! what was evicted since as it was. Segment and snapshot are of one moment, whatever is written
//! meanwhile. A release lets go of one snapshot and no other; the present serves in its place until
//! something is logged, and after that it is missing. A chunk map is total. Chunks without data are
//! damage and never zeros.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tier_log::LogError;
use tier_types::{
    ChunkNo, ChunkRun, ChunkState, ErrorKind, FileKind, Ino, MountedSnapshot, Publication,
    SnapshotId, Xid, to_usize,
};

use super::filesystem::{Subject, TestFilesystem, TestFilesystems, all_runs, chunks};
use crate::ArchivedInode;

/// Writes of the thread that changes a file while another one publishes.
const N_CONCURRENT: u64 = 200;

pub(super) fn check(filesystems: &impl TestFilesystems) {
    a_snapshot_shows_exactly_its_publication(&Subject::create(filesystems));
    a_publication_is_of_one_moment(&Subject::create(filesystems));
    a_release_lets_go_of_one_snapshot(&Subject::create(filesystems));
    a_released_snapshot_is_the_present_until_something_is_logged(&Subject::create(filesystems));
    a_chunk_map_is_total(&Subject::create(filesystems));
    what_has_no_data_is_damage_and_not_zeros(&Subject::create(filesystems));
}

/// The bytes of a file as a snapshot shows them; nothing of it may be cold.
pub(super) fn content(snapshot: &dyn MountedSnapshot, ino: Ino) -> Option<Vec<u8>> {
    let size_bytes = snapshot.reader().inode(ino).unwrap()?.attr.size_bytes;
    let mut content = vec![0; to_usize(size_bytes)];
    let archived = ArchivedInode::read(snapshot, SnapshotId::new(1), ino).unwrap()?;
    for extent in archived.extents {
        let start = to_usize(extent.chunks.offset_bytes(snapshot.chunk_bytes()));
        content[start..start + extent.bytes.len()].copy_from_slice(&extent.bytes);
    }
    Some(content)
}

fn a_snapshot_shows_exactly_its_publication<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, chunk, .. } = subject;
    let (old, new) = (subject.bytes(1, 3, 10), subject.bytes(7, 2, 0));
    let (a, doomed) = (fs.write("a", 0, &old), fs.write("doomed", 0, &old));
    let (publication, snapshot) = subject.publish();
    fs.write("a", 0, &new);
    fs.truncate("a", *chunk);
    fs.remove("doomed");
    let late = fs.write("late", 0, &new);
    assert_eq!(snapshot.xid(), publication.range.last(), "the last transaction of the publication");
    // Several readers at a time, each for one thread.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for ino in [a, doomed] {
                    assert!(content(snapshot.as_ref(), ino).as_ref() == Some(&old), "inode {ino}");
                }
            });
        }
    });
    let mut reader = snapshot.reader();
    for (ino, name) in [(a, &b"a"[..]), (doomed, b"doomed")] {
        let state = reader.inode(ino).unwrap().expect("an inode that was there is there");
        assert_eq!(state.attr.ino, ino);
        assert_eq!(state.attr.kind, FileKind::Regular);
        assert!(publication.range.contains(state.attr.xid), "its last change, not a later one");
        let links: Vec<_> = state.links.iter().map(|l| (l.parent, l.name.as_bytes())).collect();
        assert_eq!(links, [(Ino::ROOT, name)]);
        assert_eq!(reader.path(ino).unwrap().as_deref(), Some(name));
    }
    assert!(reader.inode(late).unwrap().is_none(), "an inode that was made later is not there");
    assert_eq!(reader.path(late).unwrap(), None);
    let root = reader.inode(Ino::ROOT).unwrap().expect("a filesystem has a root");
    assert_eq!(root.attr.kind, FileKind::Directory);
    assert_eq!(reader.path(Ino::ROOT).unwrap().as_deref(), Some(&b""[..]));
    drop(reader);
    let (_, second) = subject.publish();
    assert!(content(second.as_ref(), a).unwrap() == new[..to_usize(*chunk)]);
    assert_eq!(content(second.as_ref(), doomed), None, "it is gone now");
    assert!(content(second.as_ref(), late).unwrap() == new);
}

/// The segment of a publication describes exactly its snapshot: what each inode last changed in is
/// the last record about it, whatever is written meanwhile.
fn a_publication_is_of_one_moment<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, .. } = subject;
    let names = ["a", "b"];
    let inos = names.map(|name| fs.write(name, 0, b"x"));
    let done = AtomicBool::new(false);
    let mut newest: BTreeMap<Ino, Xid> = BTreeMap::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..N_CONCURRENT {
                for name in names {
                    fs.write(name, 0, &number.to_le_bytes());
                }
            }
            done.store(true, Ordering::Release);
        });
        loop {
            let last_round = done.load(Ordering::Acquire);
            if let Some(publication) = fs.log().publish().unwrap() {
                tier_log::read_range(fs.log(), publication.range, |_, record| {
                    newest.insert(record.operation.ino(), record.xid);
                    Ok::<(), LogError>(())
                })
                .unwrap();
                let snapshot = subject.instance().open_snapshot(&publication).unwrap();
                let mut reader = snapshot.reader();
                for ino in inos {
                    let xid = reader.inode(ino).unwrap().unwrap().attr.xid;
                    assert_eq!(
                        Some(&xid),
                        newest.get(&ino),
                        "segment and snapshot are of one moment"
                    );
                }
                drop(reader);
                fs.log().release(&publication).unwrap();
            }
            if last_round {
                break;
            }
        }
    });
}

fn assert_missing<F: TestFilesystem>(subject: &Subject<F>, publication: &Publication) {
    let opened = subject.instance().open_snapshot(publication);
    let error = opened.err().expect("a snapshot that is held no more is missing");
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
}

fn a_release_lets_go_of_one_snapshot<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, .. } = subject;
    let (old, new) = (subject.bytes(1, 2, 1), subject.bytes(2, 2, 1));
    let a = fs.write("a", 0, &old);
    let (first, _) = subject.publish();
    fs.write("a", 0, &new);
    let (second, _) = subject.publish();
    fs.write("a", 0, &old);
    for _ in 0..2 {
        fs.log().release(&first).expect("one that is not held is no error");
        assert_missing(subject, &first);
        let snapshot = subject.instance().open_snapshot(&second).expect("another one stays");
        assert!(content(snapshot.as_ref(), a).unwrap() == new);
    }
    fs.log().release(&second).unwrap();
    assert_missing(subject, &second);
}

fn a_released_snapshot_is_the_present_until_something_is_logged<F: TestFilesystem>(
    subject: &Subject<F>,
) {
    let Subject { fs, .. } = subject;
    let bytes = subject.bytes(1, 2, 1);
    let a = fs.write("a", 0, &bytes);
    let (publication, before) = subject.publish();
    let state = before.reader().inode(a).unwrap();
    drop(before);
    for _ in 0..2 {
        fs.log().release(&publication).unwrap();
        let again = subject
            .instance()
            .open_snapshot(&publication)
            .expect("as long as nothing was logged, the present serves");
        assert_eq!(again.xid(), publication.range.last());
        assert_eq!(again.reader().inode(a).unwrap(), state);
        assert!(content(again.as_ref(), a).unwrap() == bytes);
    }
    // It is held again, so that it stays what it was.
    fs.write("a", 0, b"later");
    let held = subject.instance().open_snapshot(&publication).expect("it is held again");
    assert!(content(held.as_ref(), a).unwrap() == bytes);
    drop(held);
    fs.log().release(&publication).unwrap();
    assert_missing(subject, &publication);
}

/// Reads a map in pages, each from the end of the one before.
fn paged(snapshot: &dyn MountedSnapshot, ino: Ino, n_max: usize) -> Vec<ChunkRun> {
    let mut reader = snapshot.reader();
    let mut runs = Vec::new();
    let mut from = ChunkNo::new(0);
    while from < ChunkNo::END {
        let page = reader.chunk_runs(ino, from, n_max).unwrap();
        assert!((1..=n_max).contains(&page.len()), "a page has runs, and not more than asked for");
        from = page.last().unwrap().chunks.end();
        runs.extend(page);
    }
    runs
}

fn a_chunk_map_is_total<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, chunk, .. } = subject;
    // Data, a hole that was never written, data, data of a later transaction, a cut and nothing.
    let ino = fs.write("a", 0, &subject.bytes(1, 3, 0));
    fs.write("a", 6 * chunk, &subject.bytes(2, 4, 0));
    let before = fs.log().last_xid();
    fs.write("a", 7 * chunk, &subject.bytes(3, 1, 0));
    let rewritten = fs.log().last_xid();
    fs.truncate("a", 9 * chunk);
    let empty = fs.write("empty", 0, b"");
    let (_, snapshot) = subject.publish();
    let mut reader = snapshot.reader();
    let runs = all_runs(reader.as_mut(), ino);
    assert_eq!(runs.first().unwrap().chunks.start(), ChunkNo::new(0));
    assert_eq!(runs.last().unwrap().chunks.end(), ChunkNo::END, "the last run ends at END");
    for pair in runs.windows(2) {
        assert_eq!(pair[0].chunks.end(), pair[1].chunks.start(), "runs are adjacent");
    }
    let at = |chunk| *runs.iter().find(|run| run.chunks.contains(ChunkNo::new(chunk))).unwrap();
    for (chunk, state) in [
        (0, ChunkState::Hot),
        (2, ChunkState::Hot),
        (3, ChunkState::Hole),
        (6, ChunkState::Hot),
        (7, ChunkState::Hot),
        (8, ChunkState::Hot),
        (9, ChunkState::Hole),
        (u64::MAX - 1, ChunkState::Hole),
    ] {
        assert_eq!(at(chunk).state, state, "chunk {chunk}");
    }
    assert_eq!(at(3).data_xid, Xid::new(0), "what was never written has no transaction");
    assert_eq!(at(7).data_xid, rewritten, "the transaction that last changed the data");
    assert!(at(6).data_xid <= before, "neighbours keep theirs");
    assert!(at(0).data_xid < at(6).data_xid);
    for n_max in [1, 2, 100] {
        assert_eq!(paged(snapshot.as_ref(), ino, n_max), runs, "pages of {n_max}");
    }
    for from in [1, 3, 7, 8, 1000] {
        let first = reader.chunk_runs(ino, ChunkNo::new(from), 1).unwrap()[0];
        assert_eq!(first.chunks.start(), ChunkNo::new(from), "the first run is cut at `from`");
        assert_eq!(first.chunks.end(), at(from).chunks.end());
        assert_eq!((first.state, first.data_xid), (at(from).state, at(from).data_xid));
    }
    let nothing = all_runs(reader.as_mut(), empty);
    assert!(nothing.iter().all(|run| run.state == ChunkState::Hole), "an empty file is a hole");
}

fn what_has_no_data_is_damage_and_not_zeros<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, chunk, .. } = subject;
    // The first chunk ends early, and then the file goes on.
    let ino = fs.write("a", 0, b"start");
    fs.write("a", *chunk, &subject.bytes(1, 1, 3));
    let cold = fs.write("cold", 0, &subject.bytes(2, 2, 0));
    let (_, snapshot) = subject.publish();
    subject.evict_all(cold);
    fs.write("a", 100 * chunk, b"so that there is something to publish");
    let (_, after) = subject.publish();
    let mut out = b"before".to_vec();
    snapshot.reader().read_chunks(ino, chunks(0, 3), &mut out).unwrap();
    let chunk_bytes = to_usize(*chunk);
    let mut expected = b"beforestart".to_vec();
    expected.resize(b"before".len() + chunk_bytes, 0);
    expected.extend(subject.bytes(1, 1, 3));
    assert!(out.starts_with(&expected), "chunks are appended, each filled up with zeros");
    let rest = &out[expected.len()..];
    assert!(rest.len() < chunk_bytes && rest.iter().all(|byte| *byte == 0), "zeros may follow");
    for (snapshot, ino, range) in [
        (&snapshot, ino, chunks(3, 4)),
        (&snapshot, ino, chunks(2, 4)),
        (&after, ino, chunks(50, 51)),
        (&after, cold, chunks(0, 1)),
    ] {
        let error = snapshot
            .reader()
            .read_chunks(ino, range, &mut Vec::new())
            .expect_err("chunks without data are damage");
        assert_eq!(error.kind(), ErrorKind::Damaged, "inode {ino}, chunks {range}: {error}");
    }
    let whole = content(snapshot.as_ref(), cold).unwrap();
    assert!(whole == subject.bytes(2, 2, 0), "a snapshot of before the eviction has its data");
}
