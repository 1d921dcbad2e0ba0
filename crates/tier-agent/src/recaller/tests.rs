//! Unit tests of the recaller, with a source that a test makes up.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::Scope;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use tier_index::TarballId;
use tier_persist::FrameId;
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

use super::*;

const CHUNK_BYTES: u32 = 4;

/// Inodes of one frame.
const N_INODES_OF_FRAME: u64 = 10;

fn request(ino: u64) -> RecallRequest {
    let chunks = ChunkRange::one(ChunkNo::new(0)).unwrap();
    RecallRequest { ino: Ino::new(ino), chunks, data_xid: Xid::new(9) }
}

fn frame(number: u32) -> FrameId {
    let (epoch, snapshot) = (Epoch::new(1), SnapshotId::new(1));
    FrameId::new(TarballId { epoch, snapshot, part: 0 }, number)
}

fn number_of(frame_id: FrameId) -> u32 {
    frame_id.distance_from(frame(0)).unwrap()
}

/// What is done to get at a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Read {
    /// For a request of this inode.
    For(u64),
    /// Of this frame, ahead.
    Ahead(u32),
}

/// Ten inodes lie in each frame. Every read is told of and waits for a word to go on, if there is a
/// gate.
struct Frames {
    begun: Sender<Read>,
    gate: Option<Receiver<()>>,
    error: Option<(ErrorKind, &'static str)>,
    panics_at: u64,
    /// Fetches that find frozen data.
    n_frozen: AtomicU64,
    cached: Mutex<Vec<u32>>,
}

impl Frames {
    fn new() -> (Self, Receiver<Read>) {
        let (begun, reads) = unbounded();
        let cached = Mutex::default();
        let (n_frozen, panics_at) = (AtomicU64::new(0), u64::MAX);
        (Self { begun, gate: None, error: None, panics_at, n_frozen, cached }, reads)
    }

    fn gated(self) -> (Self, Sender<()>) {
        let (go, gate) = bounded(0);
        (Self { gate: Some(gate), ..self }, go)
    }

    fn read(&self, what: Read, number: u32) {
        if self.cached.lock().contains(&number) {
            return;
        }
        // Some tests do not listen.
        let _ = self.begun.send(what);
        if let Some(gate) = &self.gate {
            // Gone when the test has seen enough.
            let _ = gate.recv();
        }
        if self.error.is_none() {
            self.cached.lock().push(number);
        }
    }
}

impl Source for Frames {
    type Place = u32;

    fn locate(&self, request: &RecallRequest) -> Result<u32, PortError> {
        Ok(u32::try_from(request.ino.get() / N_INODES_OF_FRAME).unwrap())
    }

    fn frame_of(place: &u32) -> FrameId {
        frame(*place)
    }

    fn fetch(&self, request: &RecallRequest, place: &u32) -> Result<RecalledExtent, PortError> {
        assert_ne!(request.ino.get(), self.panics_at, "told to");
        self.read(Read::For(request.ino.get()), *place);
        if self.n_frozen.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
            return Err(PortError::new(ErrorKind::Frozen { within: None }, "frozen"));
        }
        if let Some((kind, message)) = self.error {
            let cause = std::io::Error::other("no route");
            return Err(PortError::new(kind, message).with_source(cause));
        }
        RecalledExtent::new(request, request.chunks, vec![7; 4], CHUNK_BYTES)
    }

    fn read_ahead(&self, id: FrameId) -> Result<bool, PortError> {
        self.read(Read::Ahead(number_of(id)), number_of(id));
        Ok(true)
    }
}

fn start(n_threads: usize, source: Frames) -> Recaller {
    let options = RecallerOptions {
        n_threads,
        timeout: Duration::from_hours(1),
        ..RecallerOptions::default()
    };
    Recaller::start_with(source, options).unwrap()
}

fn bulk(recaller: &Recaller, ino: u64) -> Result<RecalledExtent, PortError> {
    recaller.recall_with(&Call::bulk(), RecallHint::Unknown, &request(ino))
}

fn wait_for_readers(recaller: &Recaller, n: usize) {
    while recaller.flights.n_waiting() < n {
        thread::yield_now();
    }
}

#[test]
fn a_reader_gets_what_was_fetched() {
    let recaller = start(1, Frames::new().0);
    let recalled = recaller.recall(&request(2)).unwrap();
    assert_eq!((recalled.chunks(), recalled.bytes()), (request(2).chunks, &[7; 4][..]));
}

#[test]
fn a_reader_of_frozen_data_waits_if_that_is_wanted() {
    let start = |frozen| {
        let source = Frames { n_frozen: AtomicU64::new(3), ..Frames::new().0 };
        let options = RecallerOptions { n_threads: 1, frozen, ..RecallerOptions::default() };
        Recaller::start_with(source, options).unwrap()
    };
    let is_frozen = |error: &PortError| matches!(error.kind(), ErrorKind::Frozen { within: None });
    let refusing = start(FrozenReads::Refuse);
    assert!(is_frozen(&refusing.recall(&request(2)).unwrap_err()));
    let waiting = start(FrozenReads::Wait { interval: Duration::from_millis(1) });
    assert_eq!(waiting.recall(&request(2)).unwrap().bytes(), [7; 4]);
    // What is wanted in bulk is wanted later as well, and what is not wanted any more ends.
    let waiting = start(FrozenReads::Wait { interval: Duration::from_hours(1) });
    assert!(is_frozen(&bulk(&waiting, 2).unwrap_err()));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let call = Call::interactive().cancelled_by(&stop);
        let reader =
            scope.spawn(move || waiting.recall_with(&call, RecallHint::Unknown, &request(2)));
        stop.store(true, Relaxed);
        reader.join().unwrap().unwrap_err();
    });
}

#[test]
fn an_error_keeps_its_kind_and_its_causes() {
    let error = Some((ErrorKind::Damaged, "tarball 3 is damaged"));
    let recaller = start(1, Frames { error, ..Frames::new().0 });
    let error = recaller.recall(&request(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.to_string(), "tarball 3 is damaged: no route");
}

/// Also with fewer threads than readers: those that wait for a frame hold none.
#[test]
fn readers_of_one_frame_share_a_read_and_others_do_not() {
    let (source, reads) = Frames::new();
    let (source, go) = source.gated();
    let recaller = start(2, source);
    thread::scope(|scope| {
        let readers = [2, 2, 3, 4, 5, 570].map(|ino| {
            let recaller = &recaller;
            scope.spawn(move || recaller.recall(&request(ino)).unwrap())
        });
        // No read ends before all readers have joined one.
        wait_for_readers(&recaller, readers.len());
        let begun = [reads.recv().unwrap(), reads.recv().unwrap()];
        assert!(begun.contains(&Read::For(570)), "another frame is read beside: {begun:?}");
        go.send(()).unwrap();
        go.send(()).unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap().bytes(), [7; 4]);
        }
    });
    assert!(reads.try_recv().is_err(), "two frames are two reads");
}

#[test]
fn a_store_that_is_away_is_asked_once_for_all_that_want_a_frame() {
    let (source, reads) = Frames::new();
    let (source, go) = source.gated();
    let error = Some((ErrorKind::Away, "the cloud is away"));
    let recaller = start(2, Frames { error, ..source });
    thread::scope(|scope| {
        let readers = [2, 3, 4].map(|ino| {
            let recaller = &recaller;
            scope.spawn(move || recaller.recall(&request(ino)).unwrap_err())
        });
        reads.recv().unwrap();
        // The other two are left with the thread that reads.
        wait_for_readers(&recaller, readers.len());
        while recaller.queue.has_readers() {
            thread::yield_now();
        }
        drop(go);
        for reader in readers {
            assert_eq!(reader.join().unwrap().kind(), ErrorKind::Away);
        }
    });
    assert!(reads.try_iter().count() <= 1, "the one that was being taken may ask by itself");
}

#[test]
fn a_reader_in_order_has_the_next_frames_read_ahead() {
    let (source, reads) = Frames::new();
    let recaller = start(3, source);
    recaller.recall(&request(5)).unwrap();
    recaller.recall(&request(15)).unwrap();
    let mut seen: Vec<_> = (0..4).map(|_| reads.recv().unwrap()).collect();
    seen.sort_by_key(|read| match read {
        Read::For(ino) => *ino,
        Read::Ahead(number) => 100 + u64::from(*number),
    });
    assert_eq!(seen, [Read::For(5), Read::For(15), Read::Ahead(2), Read::Ahead(3)]);
    // A reader that comes to a frame that was read ahead causes no read.
    recaller.recall(&request(25)).unwrap();
    assert!(reads.recv().is_ok_and(|read| matches!(read, Read::Ahead(4..))));
}

#[test]
fn a_file_that_is_read_as_a_whole_begins_ahead() {
    let (source, reads) = Frames::new();
    let recaller = start(2, source);
    let call = Call::interactive();
    recaller.recall_with(&call, RecallHint::Sequential, &request(5)).unwrap();
    let seen: Vec<_> = (0..3).map(|_| reads.recv().unwrap()).collect();
    assert!(seen.contains(&Read::Ahead(1)) && seen.contains(&Read::Ahead(2)), "{seen:?}");
}

/// A recaller of one thread, what it reads, and what lets it go on.
fn one_thread() -> (Recaller, Receiver<Read>, Sender<()>) {
    let (source, reads) = Frames::new();
    let (source, go) = source.gated();
    (start(1, source), reads, go)
}

/// Has the one thread read for inode 5, until it may go on.
fn keep_busy<'s>(scope: &'s Scope<'s, '_>, recaller: &'s Recaller, reads: &Receiver<Read>) {
    scope.spawn(move || bulk(recaller, 5).unwrap());
    assert_eq!(reads.recv().unwrap(), Read::For(5));
}

#[test]
fn a_reader_goes_before_what_is_wanted_in_bulk() {
    let (recaller, reads, go) = one_thread();
    thread::scope(|scope| {
        let recaller = &recaller;
        keep_busy(scope, recaller, &reads);
        scope.spawn(move || bulk(recaller, 100).unwrap());
        wait_for_readers(recaller, 2);
        scope.spawn(move || recaller.recall(&request(300)).unwrap());
        wait_for_readers(recaller, 3);
        go.send(()).unwrap();
        assert_eq!(reads.recv().unwrap(), Read::For(300));
        go.send(()).unwrap();
        assert_eq!(reads.recv().unwrap(), Read::For(100));
        go.send(()).unwrap();
    });
}

#[test]
fn a_reader_that_wants_the_same_takes_a_bulk_request_over() {
    let (recaller, reads, go) = one_thread();
    thread::scope(|scope| {
        let recaller = &recaller;
        keep_busy(scope, recaller, &reads);
        for (n, ino) in [(2, 100), (3, 200)] {
            scope.spawn(move || bulk(recaller, ino).unwrap());
            wait_for_readers(recaller, n);
        }
        scope.spawn(move || recaller.recall(&request(200)).unwrap());
        wait_for_readers(recaller, 4);
        while !recaller.queue.has_readers() {
            thread::yield_now();
        }
        go.send(()).unwrap();
        assert_eq!(reads.recv().unwrap(), Read::For(200));
        drop(go);
    });
}

#[test]
fn a_fetch_that_panics_fails_its_own_readers_only() {
    let recaller = start(1, Frames { panics_at: 13, ..Frames::new().0 });
    for _ in 0..3 {
        let error = recaller.recall(&request(13)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.to_string().contains("inode 13 panicked"), "{error}");
        assert!(error.to_string().contains("told to"), "{error}");
        assert_eq!(recaller.recall(&request(14)).unwrap().bytes(), [7; 4]);
    }
}

#[test]
fn a_reader_waits_no_longer_than_its_deadline() {
    let (source, go) = Frames::new().0.gated();
    let options =
        RecallerOptions { n_threads: 1, timeout: Duration::ZERO, ..RecallerOptions::default() };
    let recaller = Recaller::start_with(source, options).unwrap();
    for _ in 0..2 {
        let error = recaller.recall(&request(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Away);
        assert!(error.to_string().contains("inode 2 did not come"), "{error}");
    }
    // Its own counts, also in bulk.
    let late = Call::bulk().within(Duration::ZERO);
    let error = recaller.recall_with(&late, RecallHint::Unknown, &request(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away);
    drop(go);
    drop(recaller);
}

#[test]
fn a_reader_that_is_gone_waits_no_longer_and_its_request_is_dropped() {
    let (recaller, reads, go) = one_thread();
    thread::scope(|scope| {
        let recaller = &recaller;
        keep_busy(scope, recaller, &reads);
        let is_gone = AtomicBool::new(false);
        thread::scope(|scope| {
            let call = Call::interactive().cancelled_by(&is_gone);
            let gone = scope
                .spawn(move || recaller.recall_with(&call, RecallHint::Unknown, &request(300)));
            wait_for_readers(recaller, 2);
            is_gone.store(true, Relaxed);
            assert_eq!(gone.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        });
        scope.spawn(move || recaller.recall(&request(100)).unwrap());
        wait_for_readers(recaller, 2);
        go.send(()).unwrap();
        assert_eq!(reads.recv().unwrap(), Read::For(100), "the one without a reader is skipped");
        drop(go);
    });
}

#[test]
fn readers_hear_at_once_that_no_thread_is_left() {
    let recaller = start(1, Frames::new().0);
    recaller.queue.close();
    let error = recaller.recall(&request(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("have ended"), "{error}");
}
