//! Transactions under many threads.

use std::collections::BTreeSet;
use std::sync::Arc;

use tier_types::{Ino, LogReader, LogService, Xid, XidRange};

use crate::common::{create, file, name, open};
use crate::fsck::check;
use crate::publish::copy;

#[test]
fn xids_are_consecutive_and_records_describe_what_happened_under_many_threads() {
    let (dir, fs) = create();
    let parents: Vec<_> =
        (0..4).map(|i| crate::common::directory(&fs, Ino::ROOT, &format!("d{i}"))).collect();
    std::thread::scope(|scope| {
        for (thread, &parent) in parents.iter().enumerate() {
            let fs = Arc::clone(&fs);
            scope.spawn(move || {
                for i in 0..100 {
                    let ino = file(&fs, parent, &format!("f{i}"));
                    fs.write(ino, 0, format!("{thread} {i}").as_bytes()).unwrap();
                    if i % 10 == 0 {
                        fs.fsync().unwrap();
                    }
                    if i % 3 == 0 {
                        fs.unlink(parent, &name(&format!("f{i}"))).unwrap();
                    }
                    if i % 25 == 0 {
                        fs.publish().unwrap();
                    }
                }
            });
        }
    });
    drop(fs);
    let fs = open(&dir);
    fs.publish().unwrap();
    let last = fs.last_xid();
    // Root, four directories, and for each thread 100 x create and write, 34 x unlink and end.
    assert_eq!(last.get(), 1 + 4 + 4 * (100 * 2 + 34 * 2));
    let all = XidRange::new(Xid::new(1), last.next()).unwrap();
    let (mut xids, mut created) = (Vec::new(), BTreeSet::new());
    tier_log::read_range(fs.core().as_ref(), all, |_, record| {
        xids.push(record.xid.get());
        if let tier_log::Operation::Create { ino, .. } = record.operation {
            assert_eq!(ino.get(), record.xid.get(), "an inode is numbered by its transaction");
            created.insert(ino);
        }
        Ok::<(), tier_log::LogError>(())
    })
    .unwrap();
    assert_eq!(xids, (1..=last.get()).collect::<Vec<_>>());
    assert_eq!(created.len(), 400);
    for (thread, &parent) in parents.iter().enumerate() {
        for i in 0..100 {
            let found = fs.lookup(parent, &name(&format!("f{i}")));
            match i % 3 {
                0 => assert!(found.is_err()),
                _ => {
                    let content = fs.read(found.unwrap().ino, 0, 100).unwrap();
                    assert_eq!(content, format!("{thread} {i}").as_bytes());
                }
            }
        }
    }
}

#[test]
fn what_an_fsync_acknowledged_survives_and_ids_go_on() {
    let (dir, fs) = create();
    let mut files = Vec::new();
    for round in 0..4_u8 {
        let ino = file(&fs, Ino::ROOT, &format!("f{round}"));
        fs.write(ino, 0, &[round; 900]).unwrap();
        files.push(ino);
        fs.fsync().unwrap();
        let last = fs.last_xid();
        // Not acknowledged: it may be there or not.
        file(&fs, Ino::ROOT, &format!("maybe{round}"));
        let left = copy(&dir);
        let crashed = open(&left);
        assert!(crashed.last_xid() >= last);
        for (byte, &ino) in (0..).zip(&files) {
            assert_eq!(crashed.read(ino, 0, 999).unwrap(), [byte; 900]);
        }
        assert_eq!(check(&crashed).1, Vec::<String>::new());
        let next = crashed.last_xid().next().get();
        assert_eq!(file(&crashed, Ino::ROOT, "after the crash").get(), next);
    }
}

#[test]
fn the_end_of_the_process_loses_nothing() {
    let (dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    for number in 0..50_u8 {
        fs.write(ino, u64::from(number), &[number]).unwrap();
    }
    let last = fs.last_xid();
    drop(fs);
    let fs = open(&dir);
    assert_eq!(fs.last_xid(), last);
    assert_eq!(fs.read(ino, 0, 99).unwrap(), (0..50).collect::<Vec<u8>>());
}
