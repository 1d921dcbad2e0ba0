//! What drafts write.

use tier_types::{ChunkState, FileKind, FileName};

use super::*;
use crate::space::Permit;
use crate::store::CutMark;
use crate::testing::{StandingClock, attr, committer, name, store};

fn link(parent: u64, text: &str) -> Link {
    Link { parent: Ino::new(parent), name: name(text) }
}

#[test]
fn a_name_has_three_rows_that_come_and_go_together() {
    let (_dir, db) = store();
    let committer = committer(&db, std::sync::Arc::new(StandingClock));
    let (ino, link) = (Ino::new(7), link(3, "f"));
    let (added, removed) = (link.clone(), link.clone());
    committer.commit(Permit::unchecked(), 0, move |draft| draft.add_name(ino, &added)).unwrap();
    let reader = db.reader();
    let entry = reader.entry(link.parent, &link.name).unwrap().unwrap();
    assert_eq!(entry, Entry { ino, cookie: 1 + COOKIE_PARENT });
    assert_eq!(reader.listed_name(link.parent, entry.cookie).unwrap().unwrap(), b"f");
    assert!(reader.has_link(ino, &link).unwrap());
    committer
        .commit(Permit::unchecked(), 0, move |draft| draft.remove_name(ino, &removed, entry.cookie))
        .unwrap();
    for table in [Table::Entries, Table::Cookies] {
        assert!(!reader.has_rows(table, link.parent).unwrap());
    }
    assert!(!reader.has_rows(Table::Links, ino).unwrap());
}

#[test]
fn records_have_the_ids_of_their_operations() {
    let mut draft = Draft::new(Xid::new(5), Timestamp::default());
    for ino in [1, 2, 3] {
        draft.log(Operation::SetAttr { ino: Ino::new(ino) });
    }
    assert_eq!(draft.n_operations(), 3);
    let mut batch = Batch::default();
    assert_eq!(draft.append_to(&mut batch).next_xid, Xid::new(8));
    let (_dir, db) = store();
    db.write(batch).unwrap();
    let records: Vec<_> = db.reader().log_from(Xid::new(0)).unwrap().map(Result::unwrap).collect();
    let ids: Vec<_> =
        records.iter().map(|record| (record.xid.get(), record.operation.ino().get())).collect();
    assert_eq!(ids, [(5, 1), (6, 2), (7, 3)]);
}

#[test]
fn an_inode_leaves_no_rows_but_those_that_others_delete() {
    let (_dir, db) = store();
    let committer = committer(&db, std::sync::Arc::new(StandingClock));
    let attr = attr(9, FileKind::Regular);
    let ino = attr.ino;
    let sums = DataSums { resident_bytes: 100, warm_bytes: 100, cold_bytes: 0 };
    let mark = CutMark { chunks: ChunkRange::ALL, xid: Xid::new(1) };
    let cuts = CutMarks::new(vec![mark]).unwrap();
    committer
        .commit(Permit::unchecked(), 0, move |draft| {
            draft.put_new_inode(&attr);
            draft.put_sums(ino, sums);
            draft.counters.gain(ChunkState::Warm, 100);
            draft.put_cuts(ino, &cuts);
            draft.list(ListKind::Orphans, ino);
            draft.list(ListKind::Warm, ino);
            draft.set_pin(ino, true);
        })
        .unwrap();
    let counters = committer.counters();
    assert_eq!((counters.n_inodes, counters.n_pins), (1, 1));
    let rows = InodeRows { sums, is_pinned: true, is_cut: true };
    committer.commit(Permit::unchecked(), 0, move |draft| draft.delete_inode(ino, rows)).unwrap();
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
        assert!(!db.reader().has_rows(table, ino).unwrap(), "{table:?}");
    }
    assert_eq!(committer.counters(), Counters::default());
    assert_eq!(db.reader().counters().unwrap(), Some(Counters::default()));
}

#[test]
fn chunks_are_deleted_one_by_one() {
    let (_dir, db) = store();
    let committer = committer(&db, std::sync::Arc::new(StandingClock));
    let range = |start, end| ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap();
    let ino = Ino::new(9);
    committer
        .commit(Permit::unchecked(), 0, move |draft| {
            for number in 0..20 {
                draft.put_chunk(ino, ChunkNo::new(number), &[1]);
            }
            draft.put_chunk(ino.next(), ChunkNo::new(0), &[2]);
        })
        .unwrap();
    committer
        .commit(Permit::unchecked(), 0, move |draft| {
            draft.delete_chunks(ino, range(1, 3), &[]);
            draft.delete_chunks(ino, range(5, 19), &[]);
        })
        .unwrap();
    let left = db.reader().chunk_rows(ino, ChunkRange::ALL).unwrap();
    let left: Vec<_> = left.map(|row| row.unwrap().chunk.get()).collect();
    assert_eq!(left, [0, 3, 4, 19]);
    assert_eq!(db.reader().chunk(ino.next(), ChunkNo::new(0)).unwrap(), [2]);
}

#[test]
fn a_patch_changes_a_chunk_in_its_place() {
    let (_dir, db) = store();
    let committer = committer(&db, std::sync::Arc::new(StandingClock));
    let (ino, chunk) = (Ino::new(9), ChunkNo::new(0));
    committer
        .commit(Permit::unchecked(), 0, move |draft| draft.put_chunk(ino, chunk, b"content"))
        .unwrap();
    committer
        .commit(Permit::unchecked(), 0, move |draft| draft.patch_chunk(ino, chunk, patch(3, b"X")))
        .unwrap();
    assert_eq!(db.reader().chunk(ino, chunk).unwrap(), b"conXent");
    let lost = ChunkNo::new(1);
    committer
        .commit(Permit::unchecked(), 0, move |draft| draft.patch_chunk(ino, lost, patch(3, b"X")))
        .unwrap();
    assert!(db.reader().chunk(ino, lost).is_err(), "there is nothing to patch");
    let run = RunState { state: ChunkState::Hot, data_xid: Xid::new(1) };
    committer.commit(Permit::unchecked(), 0, move |draft| draft.put_run(ino, chunk, run)).unwrap();
    assert_eq!(db.reader().stored_at(ino, lost).unwrap().state, run);
}

#[test]
fn a_directory_is_touched_at_the_time_of_the_commit() {
    let time = Timestamp { seconds: 7, nanos: 0 };
    let mut draft = Draft::new(Xid::new(5), time);
    let mut dir = attr(3, FileKind::Directory);
    draft.touch_directory(&mut dir);
    assert_eq!((dir.modified, dir.changed, dir.xid), (time, time, Xid::new(5)));
    assert_eq!(dir.accessed, Timestamp::default());
    assert!(FileName::new(b"..").is_none(), "no entry is ever called so");
}
