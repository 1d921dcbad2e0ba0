//! Unit tests of the recaller, with a fetch that a test makes up.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::bounded;
use tier_types::ChunkRange;

use super::*;

const CHUNK_BYTES: u32 = 4;

fn request(ino: u64) -> RecallRequest {
    let chunks = ChunkRange::one(ChunkNo::new(0)).unwrap();
    RecallRequest { ino: Ino::new(ino), chunks, data_xid: Xid::new(9) }
}

fn extent(request: &RecallRequest) -> Result<RecalledExtent, PortError> {
    RecalledExtent::new(request, request.chunks, vec![7; 4], CHUNK_BYTES)
}

fn start(
    n_threads: usize,
    fetch: impl Fn(&RecallRequest) -> Result<RecalledExtent, PortError> + Send + Sync + 'static,
) -> Recaller {
    let options = RecallerOptions { n_threads, timeout: Duration::from_hours(1) };
    Recaller::start_with(fetch, options).unwrap()
}

#[test]
fn a_reader_gets_what_was_fetched() {
    let recaller = start(1, extent);
    let recalled = recaller.recall(&request(2)).unwrap();
    assert_eq!((recalled.chunks(), recalled.bytes()), (request(2).chunks, &[7; 4][..]));
}

#[test]
fn an_error_keeps_its_kind_and_its_causes() {
    let recaller = start(1, |_| {
        let cause = std::io::Error::other("no route");
        Err(PortError::new(ErrorKind::Damaged, "tarball 3 is damaged").with_source(cause))
    });
    let error = recaller.recall(&request(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.to_string(), "tarball 3 is damaged: no route");
}

#[test]
fn readers_of_one_extent_share_a_fetch_and_others_do_not() {
    let n_fetched = Arc::new(AtomicU64::new(0));
    let (go, gate) = bounded::<()>(0);
    let counted = Arc::clone(&n_fetched);
    let recaller = start(2, move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        gate.recv().unwrap();
        extent(request)
    });
    thread::scope(|scope| {
        let readers = [2, 2, 2, 3].map(|ino| {
            let recaller = &recaller;
            scope.spawn(move || recaller.recall(&request(ino)).unwrap())
        });
        // No fetch ends before all readers have joined one.
        while recaller.flights.n_waiting() < readers.len() {
            thread::yield_now();
        }
        go.send(()).unwrap();
        go.send(()).unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap().bytes(), [7; 4]);
        }
    });
    assert_eq!(n_fetched.load(Ordering::Relaxed), 2);
}

#[test]
fn a_fetch_that_panics_fails_its_own_readers_only() {
    let recaller = start(1, |request| {
        assert_ne!(request.ino, Ino::new(13), "told to");
        extent(request)
    });
    for _ in 0..3 {
        let error = recaller.recall(&request(13)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.to_string().contains("inode 13 panicked"), "{error}");
        assert!(error.to_string().contains("told to"), "{error}");
        assert_eq!(recaller.recall(&request(2)).unwrap().bytes(), [7; 4]);
    }
}

#[test]
fn a_reader_waits_no_longer_than_its_deadline() {
    let (go, gate) = bounded::<()>(1);
    let fetch = move |request: &RecallRequest| {
        gate.recv().unwrap();
        extent(request)
    };
    let options = RecallerOptions { n_threads: 1, timeout: Duration::ZERO };
    let recaller = Recaller::start_with(fetch, options).unwrap();
    for _ in 0..2 {
        let error = recaller.recall(&request(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Away);
        assert!(error.to_string().contains("inode 2 did not come"), "{error}");
    }
    // The thread fetches at most one of them, and the other one has no reader any more.
    go.send(()).unwrap();
    drop(go);
    drop(recaller);
}

#[test]
fn readers_hear_at_once_that_no_thread_is_left() {
    let mut recaller = start(1, extent);
    recaller.jobs = None;
    let error = recaller.recall(&request(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("have ended"), "{error}");
}
