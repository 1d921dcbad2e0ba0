//! Readers, writers, evictions and recalls of the same files at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use kvfs::ops::{EntryRef, RenameMode};
use kvfs::{FsError, Kvfs};
use tier_types::{Ino, InstanceView, LogService, MountedInstance, to_usize};

use crate::archive::{MemoryArchive, tiered};
use crate::common::{CHUNK, create, directory, file, name};
use crate::fsck::check;

const N_CHUNKS: u64 = 8;

/// A file whose every chunk is filled with one byte.
fn filled(fs: &Kvfs, text: &str) -> Ino {
    let ino = file(fs, Ino::ROOT, text);
    fs.write(ino, 0, &vec![1; to_usize(N_CHUNKS * u64::from(CHUNK))]).unwrap();
    ino
}

fn write_chunk(fs: &Kvfs, ino: Ino, number: u64, byte: u8) {
    let chunk = vec![byte; to_usize(u64::from(CHUNK))];
    fs.write(ino, number * u64::from(CHUNK), &chunk).unwrap();
}

/// Tells the other threads to stop when it is dropped, also by a panic.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps and evicts until it is told to stop.
fn keep_evicting(fs: &Kvfs, archive: &MemoryArchive, inos: &[Ino], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for &ino in inos {
            // A write between the two makes the eviction skip what it wrote.
            archive.keep_and_evict(fs, ino);
        }
    }
}

/// A read shows each chunk whole and as one write left it, and no older than the last write that
/// was acknowledged before the read began.
#[test]
fn a_reader_sees_whole_chunks_and_never_goes_back() {
    let (_dir, fs, archive) = tiered();
    let ino = filled(&fs, "f");
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(1);
    thread::scope(|scope| {
        let stops = Stops(&stop);
        scope.spawn(|| keep_evicting(&fs, &archive, &[ino], &stop));
        let reads = || {
            while !stop.load(Ordering::Relaxed) {
                let at_least = written.load(Ordering::SeqCst);
                let data = fs.read(ino, 0, usize::MAX >> 1).unwrap();
                for chunk in data.chunks(to_usize(u64::from(CHUNK))) {
                    assert!(chunk.iter().all(|byte| byte == &chunk[0]), "all of one write");
                    assert!(u64::from(chunk[0]) >= at_least, "{} before {at_least}", chunk[0]);
                }
            }
        };
        scope.spawn(reads);
        scope.spawn(reads);
        for round in 2..40 {
            for number in 0..N_CHUNKS {
                write_chunk(&fs, ino, number, round);
            }
            written.store(u64::from(round), Ordering::SeqCst);
        }
        drop(stops);
    });
    assert_eq!(check(&fs).1, Vec::<String>::new());
    let data = fs.read(ino, 0, usize::MAX >> 1).unwrap();
    assert!(data.iter().all(|&byte| byte == 39));
}

/// Small writes into chunks that are evicted all the time: none is lost.
#[test]
fn writes_in_part_into_evicted_chunks_add_up() {
    let (_dir, fs, archive) = tiered();
    let inos: Vec<_> = (0..2).map(|number| filled(&fs, &format!("f{number}"))).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stops = Stops(&stop);
        scope.spawn(|| keep_evicting(&fs, &archive, &inos, &stop));
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let (fs, inos) = (&fs, &inos);
                scope.spawn(move || {
                    // Each has places of its own in every chunk.
                    for place in 0..60 {
                        let offset = place * 67 + writer * 16;
                        let byte = u8::try_from(10 + writer).unwrap();
                        let ino = inos[to_usize(place % 2)];
                        while let Err(error) = fs.write(ino, offset, &[byte; 16]) {
                            assert!(matches!(error, FsError::Contended { .. }), "{error:?}");
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        drop(stops);
    });
    for (number, &ino) in (0..).zip(&inos) {
        let data = fs.read(ino, 0, usize::MAX >> 1).unwrap();
        let mut expected = vec![1; data.len()];
        for place in (0..60_u64).filter(|place| place % 2 == number) {
            for writer in 0..4 {
                let start = to_usize(place * 67 + writer * 16);
                expected[start..start + 16].fill(u8::try_from(10 + writer).unwrap());
            }
        }
        assert_eq!(data, expected);
    }
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

/// Publications while everything changes: each segment goes on where the one before it ended, and
/// each snapshot shows the last transaction of its segment.
#[test]
fn publications_under_load_have_no_gaps() {
    let (_dir, fs, archive) = tiered();
    let ino = filled(&fs, "f");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| keep_evicting(&fs, &archive, &[ino], &stop));
        scope.spawn(|| {
            let _stops = Stops(&stop);
            for number in 0..100 {
                let text = format!("g{number}");
                let made = file(&fs, Ino::ROOT, &text);
                fs.write(made, 0, b"data").unwrap();
                fs.unlink(Ino::ROOT, &name(&text)).unwrap();
            }
        });
        let mut last = None;
        while !stop.load(Ordering::Relaxed) {
            let Some(publication) = fs.publish().unwrap() else { continue };
            if let Some(last) = last {
                assert_eq!(publication.range.start(), last);
            }
            last = Some(publication.range.end());
            let snapshot = fs.open_snapshot(&publication).unwrap();
            assert_eq!(snapshot.xid(), publication.range.last());
            assert!(snapshot.reader().inode(ino).unwrap().is_some());
            fs.release(&publication).unwrap();
        }
    });
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

/// Handles that are closed while names go and come: an inode is deleted once, and never too early.
#[test]
fn the_last_name_and_the_last_handle_may_go_at_the_same_time() {
    let (_dir, fs, _archive) = tiered();
    for round in 0..60 {
        let text = name(&format!("f{round}"));
        let ino = file(&fs, Ino::ROOT, &format!("f{round}"));
        fs.write(ino, 0, b"data").unwrap();
        let handle = fs.open_handle(ino).unwrap();
        thread::scope(|scope| {
            let other = Arc::clone(&fs);
            scope.spawn(move || {
                assert_eq!(other.read(ino, 0, 9).unwrap(), b"data", "it is open");
                drop(handle);
            });
            scope.spawn(|| fs.unlink(Ino::ROOT, &text).unwrap());
        });
        assert!(matches!(fs.getattr(ino), Err(FsError::NotFound)));
    }
    assert_eq!((fs.usage().unwrap().n_inodes, check(&fs).1), (1, Vec::new()));
}

#[test]
fn a_listing_shows_an_inode_once_however_often_it_is_renamed_meanwhile() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let f = file(&fs, d, "a");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stops = Stops(&is_over);
            let names = [name("a"), name("b")];
            for round in 0..5000 {
                let [from, to] = [&names[round % 2], &names[(round + 1) % 2]];
                let [from, to] = [from, to].map(|name| EntryRef::new(d, name));
                fs.rename(from, to, RenameMode::Replace).unwrap();
            }
        });
        while !is_over.load(Ordering::Relaxed) {
            let listed = fs.readdir(d, 2, 9).unwrap();
            assert_eq!(listed.iter().map(|entry| entry.ino).collect::<Vec<_>>(), [f]);
        }
    });
}
