//! Commits of many threads, and what a panic of one does to the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;
use tier_log::Operation;
use tier_types::Ino;

use super::*;
use crate::KvfsOptions;
use crate::space::Purpose;
use crate::store::OpenAs;
use crate::testing::{LoopDisk, StandingClock, committer, filesystem, options, store, wait_for};

fn new() -> (TempDir, Arc<Committer>) {
    let (dir, db) = store();
    (dir, Arc::new(committer(&db, Arc::new(StandingClock))))
}

fn log(ino: u64) -> impl FnOnce(&mut Draft) + Send + 'static {
    move |draft| draft.log(Operation::SetAttr { ino: Ino::new(ino) })
}

/// Inodes of the logged operations, in order of their transactions, which are checked.
fn logged(committer: &Committer) -> Vec<u64> {
    let records = committer.db.reader().log_from(Xid::new(0)).unwrap();
    let records: Vec<_> = records.map(Result::unwrap).collect();
    let xids: Vec<_> = records.iter().map(|record| record.xid.get()).collect();
    assert_eq!(xids, (1..=committer.last_xid().get()).collect::<Vec<_>>(), "no gaps");
    records.iter().map(|record| record.operation.ino().get()).collect()
}

type Fill = Box<dyn FnOnce(&mut Draft) + Send>;

/// Closures that each log an operation of an inode.
fn logs(inos: std::ops::Range<u64>) -> Vec<Fill> {
    inos.map(|ino| -> Fill { Box::new(log(ino)) }).collect()
}

/// Has closures committed by a thread each, in one batch in this order, and returns what came of
/// each: a panic is an error of the thread.
fn in_one_batch(
    committer: &Arc<Committer>,
    fills: Vec<Fill>,
) -> Vec<thread::Result<Result<Committed, FsError>>> {
    let lead = committer.group.leader();
    let mut threads = Vec::new();
    for (number, fill) in fills.into_iter().enumerate() {
        let own = Arc::clone(committer);
        threads.push(thread::spawn(move || own.commit(Permit::unchecked(), 1, fill)));
        while committer.group.n_queued() <= number {
            thread::yield_now();
        }
    }
    drop(lead);
    threads.into_iter().map(thread::JoinHandle::join).collect()
}

#[test]
fn a_batch_has_consecutive_ids_in_the_order_of_the_queue() {
    let (_dir, committer) = new();
    let done = in_one_batch(&committer, logs(10..15));
    let xids: Vec<_> = done.into_iter().map(|done| done.unwrap().unwrap().xid.get()).collect();
    assert_eq!(xids, [1, 2, 3, 4, 5]);
    assert_eq!(logged(&committer), [10, 11, 12, 13, 14]);
    assert_eq!(committer.group.leader().n_batches, 1);
    assert_eq!(committer.db.reader().last_xid().unwrap(), Xid::new(5), "the store knows it");
    // What is no operation takes no id, and says the last one again.
    committer.commit(Permit::unchecked(), 0, |_| {}).unwrap();
    assert_eq!(committer.db.reader().last_xid().unwrap(), Xid::new(5));
}

#[test]
fn a_panic_of_a_closure_is_that_of_its_caller_and_nothing_of_it_is_written() {
    let (_dir, committer) = new();
    let panics = |draft: &mut Draft| {
        draft.log(Operation::SetAttr { ino: Ino::new(666) });
        draft.counters.n_inodes += 1;
        panic!("on purpose");
    };
    let done = in_one_batch(
        &committer,
        vec![Box::new(log(10)), Box::new(panics), Box::new(log(12)), Box::new(log(13))],
    );
    let settled: Vec<_> = done.iter().map(|done| matches!(done, Ok(Ok(_)))).collect();
    assert_eq!(settled, [true, false, true, true]);
    let panic = done.into_iter().nth(1).unwrap().unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    assert_eq!(logged(&committer), [10, 12, 13]);
    assert_eq!(committer.counters(), Counters::default());
    // It goes on as before.
    assert_eq!(committer.commit(Permit::unchecked(), 1, log(14)).unwrap().xid, Xid::new(4));
    committer.sync().unwrap();
}

#[test]
fn a_closure_that_panics_alone_writes_no_batch() {
    let (_dir, committer) = new();
    let own = Arc::clone(&committer);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        own.commit(Permit::unchecked(), 1, |_| panic!("on purpose"))
    }));
    assert!(panicked.is_err());
    assert_eq!(committer.group.leader().n_batches, 0);
    assert_eq!(logged(&committer), [0; 0]);
}

#[test]
fn other_operations_than_announced_are_a_panic_and_not_written() {
    let (_dir, committer) = new();
    for n_operations in [0, 2] {
        let own = Arc::clone(&committer);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            own.commit(Permit::unchecked(), n_operations, log(10))
        }));
        assert!(panicked.is_err(), "{n_operations}");
    }
    assert_eq!(logged(&committer), [0; 0]);
    committer.commit(Permit::unchecked(), 1, log(11)).unwrap();
    assert_eq!(logged(&committer), [11]);
}

/// A clock that can be broken.
struct BrittleClock {
    is_broken: AtomicBool,
    n_panics: AtomicU64,
}

impl Clock for BrittleClock {
    fn now(&self) -> Timestamp {
        if self.is_broken.swap(false, Ordering::Relaxed) {
            self.n_panics.fetch_add(1, Ordering::Relaxed);
            panic!("the clock is broken");
        }
        Timestamp::default()
    }
}

#[test]
fn a_leader_that_panics_before_it_writes_settles_all_that_it_took() {
    let (_dir, db) = store();
    let is_broken = AtomicBool::new(true);
    let clock = Arc::new(BrittleClock { is_broken, n_panics: AtomicU64::new(0) });
    let committer = Arc::new(committer(&db, clock.clone()));
    let done = in_one_batch(&committer, logs(0..4));
    assert_eq!(clock.n_panics.load(Ordering::Relaxed), 1);
    let count = |is: fn(&thread::Result<Result<Committed, FsError>>) -> bool| {
        done.iter().filter(|done| is(done)).count()
    };
    assert_eq!(count(Result::is_err), 1, "the leader itself");
    let abandoned = count(|done| matches!(done, Ok(Err(FsError::LeaderPanicked))));
    assert_eq!(abandoned, 3, "{done:?}");
    // Nothing was written, and the next one leads.
    assert_eq!(logged(&committer), [0; 0]);
    assert_eq!(committer.commit(Permit::unchecked(), 1, log(9)).unwrap().xid, Xid::new(1));
    assert_eq!(logged(&committer), [9]);
}

#[test]
fn a_poisoned_committer_refuses_everything_that_follows() {
    let (_dir, committer) = new();
    committer.commit(Permit::unchecked(), 1, log(1)).unwrap();
    committer.poison();
    let done = in_one_batch(&committer, vec![Box::new(log(2)), Box::new(log(3))]);
    for done in done {
        assert!(matches!(done, Ok(Err(FsError::Poisoned))), "{done:?}");
    }
    assert!(matches!(committer.sync(), Err(FsError::Poisoned)));
    assert_eq!(logged(&committer), [1]);
}

#[test]
fn an_error_of_a_write_beside_is_the_committers() {
    let (_dir, committer) = new();
    committer.write_beside(|db| db.forget_freed(&[0], &[1])).unwrap();
    assert_eq!(committer.group.leader().n_batches, 1, "a sync covers it");
    let full = || FsError::NoSpace("the disk");
    let written = committer.write_beside(|_| Err(full()));
    assert!(matches!(written, Err(FsError::NoSpace(_))));
    assert!(committer.group.leader().health == Health::Full);
    committer.commit(Permit::unchecked(), 1, log(1)).unwrap();
    assert!(committer.group.leader().health == Health::Well);
    let torn = || FsError::io("write", std::io::ErrorKind::Other.into());
    assert!(committer.write_beside(|_| Err(full())).is_err());
    // What a torn log answers has the full disk as its cause.
    let written = committer.write_beside(|_| Err(torn()));
    assert!(matches!(written, Err(FsError::NoSpace(_))), "{written:?}");
    assert!(committer.is_poisoned());
    assert!(committer.write_beside(|_| panic!("it is not asked")).is_err());
}

#[test]
fn a_large_queue_is_written_in_several_batches() {
    let (_dir, committer) = new();
    let large = |ino: u64| -> Fill {
        Box::new(move |draft: &mut Draft| {
            log(ino)(draft);
            draft.put_xattr(Ino::new(ino), b"user.large", vec![0; BATCH_BYTES / 2 + 1]);
        })
    };
    let done = in_one_batch(&committer, (0..5).map(large).collect());
    assert!(done.iter().all(|done| matches!(done, Ok(Ok(_)))), "{done:?}");
    assert_eq!(committer.group.leader().n_batches, 3);
    assert_eq!(logged(&committer), [0, 1, 2, 3, 4]);
}

#[test]
fn a_snapshot_shows_what_was_committed_and_no_more() {
    let (_dir, committer) = new();
    committer.commit(Permit::unchecked(), 1, log(1)).unwrap();
    let (snapshot, last) = committer.snapshot().unwrap();
    committer.commit(Permit::unchecked(), 1, log(2)).unwrap();
    assert_eq!(last, Xid::new(1));
    assert_eq!(snapshot.reader().last_logged().unwrap(), Some(Xid::new(1)));
    assert_eq!(committer.last_xid(), Xid::new(2));
}

#[test]
fn syncs_of_what_is_durable_do_nothing() {
    let (_dir, committer) = new();
    committer.sync().unwrap();
    committer.commit(Permit::unchecked(), 1, log(1)).unwrap();
    committer.sync().unwrap();
    // It needs no sync any more, and so cannot find that the next batch failed.
    committer.poison();
    committer.sync().unwrap();
}

#[test]
fn a_store_that_is_opened_again_goes_on_behind_what_was_committed() {
    let (_dir, committer) = new();
    committer.commit(Permit::unchecked(), 1, log(1)).unwrap();
    committer.poison();
    let last_logged = |db: &Db| {
        db.reopen(|| Ok(()), Err)?;
        Ok(db.reader().last_logged()?.unwrap())
    };
    let (snapshot, _) = committer.snapshot().unwrap();
    assert!(matches!(committer.reopen(last_logged), Err(FsError::Poisoned)), "it is read from");
    assert!(matches!(snapshot.reader().last_logged(), Err(FsError::Reopened)));
    drop(snapshot);
    committer.defer_reopening();
    assert!(matches!(committer.reopen(last_logged), Err(FsError::Poisoned)), "not at once again");
    committer.forget_reopening();
    committer.reopen(last_logged).unwrap();
    assert!(!committer.is_poisoned());
    assert_eq!(committer.commit(Permit::unchecked(), 1, log(2)).unwrap().xid, Xid::new(2));
    committer.sync().unwrap();
    assert_eq!(logged(&committer), [1, 2]);
}

#[test]
fn what_was_decided_before_a_reopening_is_not_committed_after_it() {
    let (_dir, fs) = filesystem();
    let before = fs.admit(Purpose::Growth, 100).unwrap();
    fs.committer.poison();
    let after = fs.admit(Purpose::Growth, 100).unwrap();
    let committed = fs.committer.commit(before, 1, log(1));
    assert!(matches!(committed, Err(FsError::Reopened)), "{committed:?}");
    let last = fs.committer.last_xid();
    assert_eq!(fs.committer.commit(after, 1, log(1)).unwrap().xid, last.next());
}

#[test]
fn what_a_reopening_after_a_full_disk_overtakes_is_told_of_the_full_disk() {
    let (_dir, fs) = filesystem();
    let before = fs.admit(Purpose::Growth, 100).unwrap();
    fs.committer.group.leader().set_health(Health::Torn);
    drop(fs.admit(Purpose::Growth, 100).unwrap());
    assert!(!fs.committer.is_poisoned(), "it was opened again");
    let committed = fs.committer.commit(before, 1, log(1));
    assert!(matches!(committed, Err(FsError::NoSpace(_))), "{committed:?}");
}

#[test]
fn a_store_that_lost_what_was_committed_stays_as_it_is() {
    let (_dir, committer) = new();
    for ino in 1..4 {
        committer.commit(Permit::unchecked(), 1, log(ino)).unwrap();
    }
    committer.poison();
    let lost = |_: &Db| Ok(Xid::new(2));
    assert!(matches!(committer.reopen(lost), Err(FsError::Poisoned)));
    assert!(committer.is_poisoned());
}

/// Commits records of a size until the disk is full, and says how many there are then.
fn fill(committer: &Committer, mut next: u64) -> u64 {
    loop {
        let committed = committer.commit(Permit::unchecked(), 1, move |draft| {
            log(next)(draft);
            draft.put_xattr(Ino::new(next), b"user.large", vec![7; 100_000]);
        });
        match committed {
            Ok(_) => next += 1,
            Err(FsError::NoSpace(_)) => return next,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_disk_fails_operations_and_not_the_store() {
    let Some(disk) = LoopDisk::new(100 << 20) else { return };
    let path = disk.path().join("kvs");
    let options = KvfsOptions { write_buffer_bytes: 4 << 20, ..options() };
    let db = Db::open(&path, &options, OpenAs::New).unwrap();
    db.initialise(options.chunk_bytes, Xid::new(0)).unwrap();
    let db = Arc::new(db);
    let committer = committer(&db, Arc::new(StandingClock));
    let mut n_committed = 1;
    for round in 0..3 {
        // Another program takes all there is, and this one goes on until it is refused.
        disk.fill();
        let refused = fill(&committer, n_committed);
        n_committed = refused;
        assert_eq!(committer.last_xid(), Xid::new(n_committed - 1), "no id was used in {round}");
        // A sync may say that there is no room, and nothing else.
        match committer.sync() {
            Ok(()) | Err(FsError::NoSpace(_)) => {}
            Err(error) => panic!("round {round}: {error}"),
        }
        assert!(!committer.is_poisoned());
        disk.free();
        wait_for(|| match committer.commit(Permit::unchecked(), 1, log(n_committed)) {
            Ok(_) => true,
            Err(FsError::NoSpace(_)) => false,
            Err(error) => panic!("round {round}: {error}"),
        });
        n_committed += 1;
        committer.sync().unwrap();
    }
    let inos: Vec<_> = (1..n_committed).collect();
    assert_eq!(logged(&committer), inos);
    drop((committer, db));
    let db = Db::open(&path, &options, OpenAs::Tolerant).unwrap();
    assert_eq!(db.reader().last_logged().unwrap(), Some(Xid::new(n_committed - 1)));
}
