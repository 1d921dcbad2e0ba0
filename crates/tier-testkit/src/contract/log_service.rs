//! The contract of [`LogService`].
//!
//! Publications are without gaps, reach to the last transaction and are none when nothing was
//! logged; their segments hold exactly their range, have the length that is said, can be read again
//! and again and say the same; listeners hear of each publication once, on the thread that
//! published; a release of what is not held is no error; all this while another thread logs.
//! Retired segments go, those that reach beyond stay, and the log goes on without a gap.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;
use tier_log::{LogError, SegmentReader};
use tier_types::{LogService, Publication, SegmentInfo, Xid, XidRange, to_u64};

/// Operations of the thread that logs while another one publishes.
const N_CONCURRENT: u64 = 200;

/// Runs the contract of [`LogService`]. `act` does something that is logged, at least once.
///
/// Snapshots belong to [`check_mounted_instance`](super::check_mounted_instance), and so does the
/// effect of a release on them.
pub fn check_log_service(log: &dyn LogService, act: &(dyn Fn() + Sync)) {
    act();
    let before = log.last_xid();
    let first = log.publish().unwrap().expect("something was logged");
    assert_eq!(first.range.last(), before, "a publication reaches to the last transaction");
    assert_eq!(log.last_xid(), before, "publishing is no operation");
    assert_eq!(log.publish().unwrap(), None, "nothing was logged since");
    act();
    assert!(log.last_xid() > before, "an operation has a transaction of its own");
    let second = log.publish().unwrap().expect("something was logged");
    assert_eq!(second.range.start(), first.range.end(), "published segments have no gaps");
    segments_hold_their_range(log, first, second);
    listeners_hear_of_each_publication(log, act);
    release_is_no_error(log, first);
    publications_are_whole_while_others_log(log, act);
    retired_segments_go_and_the_others_stay(log, act);
}

fn whole(first: Publication, last: Publication) -> XidRange {
    XidRange::new(first.range.start(), last.range.end()).unwrap()
}

fn ranges(log: &dyn LogService, range: XidRange) -> Vec<XidRange> {
    log.segments(range).unwrap().iter().map(|info| info.range).collect()
}

/// The bytes of a segment are one, and they are the same whenever they are read.
fn read_segment(log: &dyn LogService, info: &SegmentInfo) {
    let read = || {
        let mut bytes = Vec::new();
        log.open_segment(info).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let bytes = read();
    assert_eq!(to_u64(bytes.len()), info.len_bytes, "a segment has the length that is said");
    assert_eq!(read(), bytes, "a segment is immutable");
    let reader = SegmentReader::new(bytes.as_slice(), &info.name).unwrap();
    assert_eq!(reader.header().range, info.range, "a segment is of the range that is said");
    assert_eq!(to_u64(reader.map(Result::unwrap).count()), info.range.len());
    assert!(!info.name.as_os_str().is_empty(), "a segment has a name for messages");
}

fn segments_hold_their_range(log: &dyn LogService, first: Publication, second: Publication) {
    let all = whole(first, second);
    for info in log.segments(all).unwrap() {
        read_segment(log, &info);
    }
    assert_eq!(ranges(log, all), [first.range, second.range], "segments come in order");
    for publication in [first, second] {
        let edge = XidRange::one(publication.range.last()).unwrap();
        assert_eq!(ranges(log, edge), [publication.range], "a segment that holds any of a range");
    }
    let mut seen = Vec::new();
    tier_log::read_range(log, all, |_, record| {
        seen.push(record.xid);
        Ok::<(), LogError>(())
    })
    .unwrap();
    let expected: Vec<_> = (all.start().get()..all.end().get()).map(Xid::new).collect();
    assert_eq!(seen, expected, "every transaction once, in order");
    let beyond = XidRange::new(all.start(), all.end().next()).unwrap();
    let gap = tier_log::read_range(log, beyond, |_, _| Ok::<(), LogError>(()));
    assert!(matches!(gap, Err(LogError::Gap { .. })), "not yet published: {gap:?}");
}

fn listeners_hear_of_each_publication(log: &dyn LogService, act: &dyn Fn()) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let heard = Arc::clone(&heard);
        log.on_publication(Box::new(move |publication| {
            heard.lock().push((thread::current().id(), *publication));
        }));
    }
    act();
    let publication = log.publish().unwrap().unwrap();
    assert_eq!(log.publish().unwrap(), None);
    let here = (thread::current().id(), publication);
    assert_eq!(*heard.lock(), [here, here], "each listener, once, on the thread that published");
}

fn release_is_no_error(log: &dyn LogService, publication: Publication) {
    for _ in 0..2 {
        log.release(&publication).expect("a snapshot that is not held is no error");
    }
    assert_eq!(ranges(log, publication.range), [publication.range], "its segment stays");
}

fn publications_are_whole_while_others_log(log: &dyn LogService, act: &(dyn Fn() + Sync)) {
    let done = AtomicBool::new(false);
    let before = log.last_xid();
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..N_CONCURRENT).for_each(|_| act());
            done.store(true, Ordering::Release);
        });
        let mut next = before.next();
        loop {
            let last_round = done.load(Ordering::Acquire);
            if let Some(publication) = log.publish().unwrap() {
                assert_eq!(publication.range.start(), next, "published segments have no gaps");
                next = publication.range.end();
            }
            if last_round {
                break;
            }
        }
    });
    let range = XidRange::new(before.next(), log.last_xid().next()).unwrap();
    assert!(range.len() >= N_CONCURRENT);
    let mut seen = BTreeSet::new();
    tier_log::read_range(log, range, |_, record| {
        assert!(seen.insert(record.xid), "transaction {} twice", record.xid);
        Ok::<(), LogError>(())
    })
    .unwrap();
    assert_eq!(to_u64(seen.len()), range.len(), "every transaction is published");
}

fn retired_segments_go_and_the_others_stay(log: &dyn LogService, act: &dyn Fn()) {
    let publish = || {
        act();
        act();
        log.publish().unwrap().unwrap()
    };
    let (first, second, third) = (publish(), publish(), publish());
    let all = XidRange::new(Xid::new(0), third.range.end()).unwrap();
    log.retire_segments(first.range.last()).unwrap();
    assert_eq!(ranges(log, all), [second.range, third.range], "those at or below go");
    log.retire_segments(second.range.start()).unwrap();
    assert_eq!(ranges(log, all), [second.range, third.range], "one that reaches beyond stays");
    log.retire_segments(first.range.last()).unwrap();
    for info in log.segments(all).unwrap() {
        read_segment(log, &info);
    }
    let fourth = publish();
    assert_eq!(fourth.range.start(), third.range.end(), "the log goes on without a gap");
}
