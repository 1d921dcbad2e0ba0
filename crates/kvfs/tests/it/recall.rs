//! Recalls: what comes is stored if it is what was asked for, and an error if it is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kvfs::ops::{Blocking, SetAttr, WaitingCaller};
use kvfs::{FsError, Heat, Kvfs};
use parking_lot::Mutex;
use tier_types::{Cancel, ErrorKind, HasKind, Ino, InstanceView};

use crate::archive::{Answer, MemoryArchive, evict, tiered};
use crate::common::{file, name, open};
use crate::fsck::check;

const CONTENT: [u8; 2000] = [7; 2000];

/// A file of four chunks, the last of them not whole, all of it evicted.
fn cold(fs: &Kvfs, archive: &MemoryArchive) -> Ino {
    let ino = file(fs, Ino::ROOT, "cold");
    fs.write(ino, 0, &CONTENT).unwrap();
    assert_eq!(archive.keep_and_evict(fs, ino), 2000);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Cold);
    ino
}

#[test]
fn what_was_evicted_comes_back_once() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    assert_eq!(fs.resident_bytes(ino).unwrap(), 0);
    assert_eq!(fs.read(ino, 700, 100).unwrap(), [7; 100]);
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), CONTENT);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Warm);
    let n_recalls = archive.n_recalls();
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), CONTENT);
    assert_eq!(archive.n_recalls(), n_recalls, "it is here by now");
    assert_eq!(fs.resident_bytes(ino).unwrap(), 2000);
    assert_eq!(fs.warm_inodes(Ino::new(0), 10).unwrap(), [ino]);
    assert_eq!(check(&fs).1, Vec::<String>::new());
    // Evicting it again is free, and takes it off the list.
    assert_eq!(evict(&fs, ino), 2000);
    assert_eq!(fs.warm_inodes(Ino::new(0), 10).unwrap(), []);
}

#[test]
fn an_answer_of_fewer_chunks_is_asked_for_the_rest() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    archive.answer(Answer::OneChunk);
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), CONTENT);
    assert_eq!(archive.n_recalls(), 4);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Warm);
}

#[test]
fn an_answer_that_does_not_cover_its_chunks_is_an_error_and_never_stored() {
    for answer in [Answer::Short, Answer::Long, Answer::OtherChunks] {
        let (dir, fs, archive) = tiered();
        let ino = cold(&fs, &archive);
        archive.answer(answer);
        let mut failures = vec![
            fs.read(ino, 0, 9999).map(drop),
            fs.recall_file(ino, &AtomicBool::new(false)).map(drop),
        ];
        // One chunk alone may be short: it may be the last one of the file as it was archived.
        if answer != Answer::Short {
            failures.push(fs.write(ino, 100, b"in part"));
            failures.push(fs.truncate(ino, 100));
            failures.push(fs.punch_hole(ino, 100, 1000));
        }
        for failed in failures {
            let failed = failed.unwrap_err();
            assert!(matches!(failed, FsError::Recall { ino: of, .. } if of == ino), "{answer:?}");
            assert_eq!(failed.kind(), ErrorKind::Damaged, "{answer:?}: {failed:?}");
        }
        assert_eq!(fs.heat(ino).unwrap(), Heat::Cold, "{answer:?}: nothing was stored");
        assert_eq!(fs.resident_bytes(ino).unwrap(), 0, "{answer:?}");
        assert_eq!(check(&fs).1, Vec::<String>::new(), "{answer:?}");
        // A right answer is as good as ever.
        archive.answer(Answer::Whole);
        assert_eq!(fs.read(ino, 0, 9999).unwrap(), CONTENT, "{answer:?}");
        drop(fs);
        assert_eq!(open(&dir).read(ino, 0, 9999).unwrap(), CONTENT, "{answer:?}");
    }
}

#[test]
fn an_archive_that_is_away_is_an_error_that_says_so() {
    let (dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    for kind in [ErrorKind::Away, ErrorKind::Missing] {
        archive.answer(Answer::Error(kind));
        let error = fs.read(ino, 0, 10).unwrap_err();
        assert_eq!(error.kind(), kind);
    }
    drop((fs, archive));
    // Without a way to the archive as well.
    let error = open(&dir).read(ino, 0, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away);
    let FsError::Recall { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("without a way to its archive"), "{source}");
}

#[test]
fn an_operation_that_must_not_wait_changes_nothing() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    let before = fs.getattr(ino).unwrap();
    let not = Blocking::NonBlocking;
    for done in [
        fs.read_with(not, ino, 0, 10).map(drop),
        fs.write_with(not, ino, 5, b"in part"),
        fs.truncate_with(not, ino, 5, &SetAttr::default()),
        fs.punch_hole_with(not, ino, 5, 1000),
    ] {
        assert!(matches!(done, Err(FsError::Cold { ino: of }) if of == ino), "{done:?}");
    }
    assert_eq!((fs.getattr(ino).unwrap(), archive.n_recalls()), (before, 0));
    // What needs none of the old bytes needs no recall.
    fs.write_with(not, ino, 512, &[1; 512]).unwrap();
    fs.truncate_with(not, ino, 1024, &SetAttr::default()).unwrap();
    assert_eq!(archive.n_recalls(), 0);
}

/// A caller that is there until it is asked.
struct Caller {
    is_wanted: bool,
    n_asked: Mutex<u32>,
}

impl Cancel for Caller {
    fn is_cancelled(&self) -> bool {
        false
    }
}

impl WaitingCaller for Caller {
    fn claim(&self) -> bool {
        *self.n_asked.lock() += 1;
        self.is_wanted
    }

    fn is_claimed(&self) -> bool {
        *self.n_asked.lock() > 0
    }
}

#[test]
fn a_cancelled_operation_changes_nothing() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    let gone = Caller { is_wanted: false, n_asked: Mutex::new(0) };
    let before = fs.getattr(ino).unwrap();
    let written = fs.write_with(Blocking::Cancellable(&gone), ino, 5, b"in part");
    assert!(matches!(written, Err(FsError::Interrupted)), "{written:?}");
    assert_eq!((fs.getattr(ino).unwrap(), *gone.n_asked.lock()), (before, 1));
    assert_eq!(archive.n_recalls(), 1, "the recall was under way already, and is of use");
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), CONTENT);
    let waits = Caller { is_wanted: true, n_asked: Mutex::new(0) };
    fs.write_with(Blocking::Cancellable(&waits), ino, 5, b"in part").unwrap();
    assert_eq!(fs.read(ino, 0, 12).unwrap(), *b"\x07\x07\x07\x07\x07in part");
}

#[test]
fn what_was_written_while_a_recall_was_under_way_stays() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    let writer = Arc::clone(&fs);
    archive.meanwhile(move || writer.write(ino, 512, &[9; 512]).unwrap());
    // The read began before the write, and gets what there was.
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), CONTENT);
    let mut expected = CONTENT;
    expected[512..1024].fill(9);
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), expected);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn a_file_that_changed_while_its_old_data_was_missing_is_read_anew() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    let (writer, keeper) = (Arc::clone(&fs), Arc::clone(&archive));
    archive.answer(Answer::Error(ErrorKind::Missing));
    archive.meanwhile(move || {
        writer.write(ino, 0, &[9; 2000]).unwrap();
        keeper.answer(Answer::Whole);
        keeper.chunks_are_gone();
    });
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), [9; 2000]);
}

#[test]
fn a_file_that_is_deleted_while_its_data_comes_stays_deleted() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    let other = Arc::clone(&fs);
    archive.meanwhile(move || other.unlink(Ino::ROOT, &name("cold")).unwrap());
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), CONTENT, "for the reader that was there");
    assert!(matches!(fs.read(ino, 0, 1), Err(FsError::NotFound)));
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn a_change_of_evicted_data_starts_over_when_it_is_evicted_again() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    let (other, n) = (Arc::clone(&fs), Arc::new(Mutex::new(0)));
    // It is recalled by another reader and evicted again while it comes.
    let counted = Arc::clone(&n);
    archive.meanwhile(move || {
        other.read(ino, 0, 9999).unwrap();
        evict(&other, ino);
        *counted.lock() += 1;
    });
    fs.write(ino, 5, b"in part").unwrap();
    assert_eq!(*n.lock(), 1);
    let mut expected = CONTENT;
    expected[5..12].copy_from_slice(b"in part");
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), expected);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Hot);
}

#[test]
fn a_recall_of_a_whole_file_can_be_stopped() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    archive.answer(Answer::OneChunk);
    let stop = Arc::new(AtomicBool::new(false));
    let stops = Arc::clone(&stop);
    archive.meanwhile(move || stops.store(true, Ordering::Relaxed));
    let stopped = fs.recall_file(ino, &stop);
    assert!(matches!(stopped, Err(FsError::Interrupted)), "{stopped:?}");
    assert_eq!(fs.heat(ino).unwrap(), Heat::Mixed, "what came before is here");
    assert_eq!(fs.recall_file(ino, &AtomicBool::new(false)).unwrap(), 2000 - 512);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Warm);
    assert_eq!(fs.recall_file(ino, &AtomicBool::new(false)).unwrap(), 0);
}

#[test]
fn a_listener_hears_of_what_leaves_and_what_comes_back() {
    let (_dir, fs, archive) = tiered();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    fs.on_residency_change(Box::new(move |ino| hears.lock().push(ino)));
    fs.on_residency_change(Box::new(|_| panic!("the first one counts")));
    let ino = cold(&fs, &archive);
    assert_eq!(*heard.lock(), [ino]);
    fs.read(ino, 0, 10).unwrap();
    assert_eq!(*heard.lock(), [ino, ino]);
    fs.read(ino, 0, 10).unwrap();
    assert_eq!(heard.lock().len(), 2, "nothing came");
}

#[test]
fn a_file_that_grew_after_it_was_archived_reads_zeros_behind_its_old_end() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    fs.truncate(ino, 5000).unwrap();
    let read = fs.read(ino, 0, 9999).unwrap();
    assert_eq!(read.len(), 5000);
    assert_eq!(read[..2000], CONTENT);
    assert!(read[2000..].iter().all(|&byte| byte == 0));
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

/// The kernel gives up what it holds back of a write that fails, and a caller may have been told by
/// then that it was written.
#[test]
fn a_change_waits_for_an_archive_that_is_away_and_for_no_other_error() {
    let (_dir, fs, archive) = tiered();
    let ino = cold(&fs, &archive);
    let write = |kind, is_wanted: bool| {
        let mut n_attempts = 0;
        archive.answer(Answer::Error(kind));
        let written = fs.do_when_possible(Instant::now(), &|_| is_wanted, &mut || {
            n_attempts += 1;
            assert_eq!(fs.usage().unwrap().space.n_waiting, 0, "it does not wait for room");
            if n_attempts == 3 {
                archive.answer(Answer::Whole);
            }
            fs.write(ino, 5, b"in part")
        });
        (n_attempts, written.map_err(|error| error.kind()))
    };
    assert_eq!(write(ErrorKind::Missing, true), (1, Err(ErrorKind::Missing)));
    assert_eq!(write(ErrorKind::Away, false), (1, Err(ErrorKind::Away)), "the caller is gone");
    assert_eq!(write(ErrorKind::Away, true), (3, Ok(())));
    let mut expected = CONTENT;
    expected[5..12].copy_from_slice(b"in part");
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), expected);
}
