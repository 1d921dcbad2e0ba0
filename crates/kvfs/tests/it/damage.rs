//! Damaged rows: every operation that meets one says so, changes nothing, and panics never.

use kvfs::ops::{EntryRef, RenameMode, XattrMode};
use kvfs::{Core, Damage, FsError, Loss};
use rocksdb::DB;
use tempfile::TempDir;
use tier_types::{
    ErrorKind, FileKind, HasKind, Ino, LogReader, LogService, MountedInstance, Xid, XidRange,
};

use crate::common::{create, directory, file, name, node, open, options, reap_all};
use crate::fsck::{check, key, tamper};

const D: Ino = Ino::new(2);
const F: Ino = Ino::new(3);

/// A directory with a file of some chunks, and one row that is spoiled.
fn spoiled(table: &str, key: &[u8], value: Option<&[u8]>) -> TempDir {
    let (dir, fs) = create();
    assert_eq!((directory(&fs, Ino::ROOT, "d"), file(&fs, D, "f")), (D, F));
    fs.write(F, 0, &[1; 1500]).unwrap();
    fs.setxattr(F, b"user.a", b"1", XattrMode::Set).unwrap();
    fs.fsync().unwrap();
    drop(fs);
    tamper(&dir, |db: &DB| {
        let table = db.cf_handle(table).unwrap();
        match value {
            Some(value) => db.put_cf(table, key, value).unwrap(),
            None => db.delete_cf(table, key).unwrap(),
        }
    });
    dir
}

fn damage<T>(done: Result<T, FsError>) -> Option<Damage> {
    let error = done.err()?;
    let FsError::Damaged { damage, .. } = error else { panic!("{error:?}") };
    Some(damage)
}

#[test]
fn attributes_that_cannot_be_read() {
    let dir = spoiled("inodes", &key(F.get(), b""), Some(b"\xff"));
    let fs = open(&dir);
    let last = fs.last_xid();
    let expected = Some(Damage::Attributes);
    assert_eq!(damage(fs.getattr(F)), expected);
    assert_eq!(damage(fs.lookup(D, &name("f"))), expected);
    assert_eq!(damage(fs.read(F, 0, 1)), expected);
    assert_eq!(damage(fs.write(F, 0, b"x")), expected);
    assert_eq!(damage(fs.truncate(F, 0)), expected);
    assert_eq!(damage(fs.unlink(D, &name("f"))), expected);
    assert_eq!(damage(fs.open_handle(F)), expected);
    assert_eq!(damage(fs.link(F, D, &name("g"))), expected);
    assert_eq!(damage(fs.note_access(F)), expected);
    let listed = fs.readdir(D, 0, 9).unwrap().pop().unwrap();
    assert_eq!((listed.name, listed.ino, listed.attr), (b"f".to_vec(), F, None), "it is there");
    assert_eq!(fs.last_xid(), last, "nothing was changed");
    // What does not need them goes on.
    assert_eq!(fs.create_node(D, &name("g"), &node(FileKind::Fifo)).unwrap().nlink, 1);
}

#[test]
fn names_that_cannot_be_read() {
    let dir = spoiled("entries", &key(D.get(), b"f"), Some(b"\xff"));
    let fs = open(&dir);
    assert_eq!(damage(fs.lookup(D, &name("f"))), Some(Damage::Entry));
    assert_eq!(damage(fs.unlink(D, &name("f"))), Some(Damage::Entry));
    let taken = fs.create_node(D, &name("f"), &node(FileKind::Fifo));
    assert_eq!(damage(taken), Some(Damage::Entry), "the name is not given again");
    assert!(matches!(fs.rmdir(Ino::ROOT, &name("d")), Err(FsError::NotEmpty)));
    let slash = key(F.get(), &key(D.get(), b"a/b"));
    let dir = spoiled("links", &slash, Some(b""));
    let fs = open(&dir);
    assert_eq!(damage(fs.is_pinned(F)), None, "nothing is pinned: it is not looked at");
    fs.set_pin(Ino::ROOT, true).unwrap();
    assert_eq!(damage(fs.is_pinned(F)), Some(Damage::Link));
    let dir = spoiled("cookies", &key(D.get(), b"\xff\xff"), Some(b"f"));
    let fs = open(&dir);
    assert_eq!(damage(fs.readdir(D, 0, 9)), Some(Damage::Cookie));
}

#[test]
fn maps_that_cannot_be_read() {
    let row = key(F.get(), &0_u64.to_be_bytes());
    let dir = spoiled("map", &row, Some(b"\xff"));
    let fs = open(&dir);
    let expected = Some(Damage::ChunkMap);
    assert_eq!(damage(fs.read(F, 0, 9)), expected);
    assert_eq!(damage(fs.write(F, 0, b"x")), expected);
    assert_eq!(damage(fs.truncate(F, 5)), expected);
    assert_eq!(damage(fs.punch_hole(F, 0, 5)), expected);
    assert_eq!(damage(fs.data_ranges(F, 0, 9)), expected);
    // It can be removed all the same, and nothing of it stays.
    fs.unlink(D, &name("f")).unwrap();
    reap_all(&fs);
    assert_eq!(check(&fs).1, Vec::<String>::new());
    assert_eq!(check(&fs).0.n_chunks, 0);
    let dir = spoiled("cuts", &key(F.get(), b""), Some(b"\xff"));
    let fs = open(&dir);
    let expected = Some(Damage::CutMarks);
    assert_eq!(damage(fs.read(F, 0, 9)), expected, "what was cut must not come back");
    assert_eq!(damage(fs.write(F, 0, b"x")), expected);
    assert_eq!(damage(fs.data_ranges(F, 0, 9)), expected);
    assert!(!fs.reap(1000).unwrap(), "it is left alone");
    fs.unlink(D, &name("f")).unwrap();
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn chunks_that_are_lost() {
    let row = key(F.get(), &1_u64.to_be_bytes());
    let dir = spoiled("chunks", &row, None);
    let fs = open(&dir);
    assert_eq!(fs.read(F, 0, 512).unwrap(), [1; 512]);
    assert_eq!(damage(fs.read(F, 512, 1)), Some(Damage::LostChunk), "an error, never zeros");
    assert_eq!(damage(fs.truncate(F, 700)), Some(Damage::LostChunk), "a part would be kept");
    assert_eq!(damage(fs.punch_hole(F, 600, 50)), Some(Damage::LostChunk));
    // A write in part is a patch of what is lost, and stays an error.
    fs.write(F, 600, b"patch").unwrap();
    assert_eq!(damage(fs.read(F, 600, 5)), Some(Damage::LostChunk));
    // A write of the whole is as good as ever.
    fs.write(F, 512, &[2; 512]).unwrap();
    assert_eq!(fs.read(F, 512, 512).unwrap(), [2; 512]);
    assert_eq!(check(&fs).1, Vec::<String>::new());
}

#[test]
fn sums_and_lists_that_cannot_be_read() {
    let dir = spoiled("resident", &key(F.get(), b""), Some(b"short"));
    let fs = open(&dir);
    assert_eq!(damage(fs.resident_bytes(F)), Some(Damage::ResidentBytes));
    assert_eq!(fs.read(F, 0, 9).unwrap().len(), 9, "reading needs no sum");
    // Keys that cannot be read keep no filesystem from opening.
    for table in ["orphans", "warm", "pins", "resident", "cuts", "dying", "inodes"] {
        let dir = spoiled(table, b"short", Some(b""));
        let fs = open(&dir);
        reap_all(&fs);
        assert_eq!(fs.read(F, 0, 9).unwrap().len(), 9, "{table}");
        assert!(!check(&fs).1.is_empty(), "{table}");
    }
}

#[test]
fn a_store_without_its_settings_is_not_opened() {
    for (key, value, expected) in [
        ("chunk-bytes", None, Damage::ChunkSize),
        ("chunk-bytes", Some(&b"\0\0\0\0"[..]), Damage::ChunkSize),
        ("xid-floor", None, Damage::XidFloor),
        ("xid-floor", Some(b"short"), Damage::XidFloor),
        ("last-xid", None, Damage::LastXid),
        ("last-xid", Some(b"short"), Damage::LastXid),
    ] {
        let dir = spoiled("meta", key.as_bytes(), value);
        let clock = std::sync::Arc::new(tier_testkit::VirtualClock::at(0));
        let opened = Core::open(dir.path(), &options(), clock);
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{key}");
        assert!(matches!(error, FsError::Damaged { ino: None, damage } if damage == expected));
    }
    // Totals can be made anew.
    let dir = spoiled("meta", b"counters", Some(b"\xff"));
    let fs = open(&dir);
    assert_eq!(fs.read(F, 0, 9).unwrap().len(), 9);
    assert!(check(&fs).1.iter().any(|problem| problem.contains("the totals are")));
}

#[test]
fn a_log_that_cannot_be_read_is_not_published() {
    // A record in the middle is lost: the history would have a gap.
    let dir = spoiled("log", &key(3, b""), None);
    let fs = open(&dir);
    let error = fs.publish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(fs.read(F, 0, 9).unwrap().len(), 9, "files are there all the same");
    // The first one: nothing says where the log goes on.
    let dir = spoiled("log", &key(1, b""), None);
    let clock = std::sync::Arc::new(tier_testkit::VirtualClock::at(0));
    let opened = Core::open(dir.path(), &options(), clock);
    let range = XidRange::one(Xid::new(1)).unwrap();
    assert!(matches!(opened, Err(FsError::Lost(lost)) if lost == Loss::Records { range }));
}

#[test]
fn names_that_lead_in_a_circle_end_every_walk() {
    let (dir, fs) = create();
    let a = directory(&fs, Ino::ROOT, "a");
    let b = directory(&fs, a, "b");
    let other = directory(&fs, Ino::ROOT, "other");
    file(&fs, b, "f");
    fs.fsync().unwrap();
    drop(fs);
    tamper(&dir, |db: &DB| {
        let links = db.cf_handle("links").unwrap();
        db.delete_cf(links, key(a.get(), &key(Ino::ROOT.get(), b"a"))).unwrap();
        db.put_cf(links, key(a.get(), &key(b.get(), b"a")), b"").unwrap();
    });
    let fs = open(&dir);
    fs.set_pin(other, true).unwrap();
    assert!(!fs.is_pinned(b).unwrap(), "nothing on the way is");
    fs.set_pin(a, true).unwrap();
    assert!(fs.is_pinned(b).unwrap());
    let text = name("other");
    let (from, to) = (EntryRef::new(Ino::ROOT, &text), EntryRef::new(b, &text));
    let moved = fs.rename(from, to, RenameMode::NoReplace);
    assert_eq!(damage(moved), Some(Damage::LinkCircle));
    // What no way leads to has no path, and is persisted by its names.
    let publication = fs.publish().unwrap().unwrap();
    let snapshot = fs.open_snapshot(&publication).unwrap();
    let mut reader = snapshot.reader();
    assert_eq!(reader.inode(b).unwrap().unwrap().links.len(), 1);
    assert_eq!(reader.path(b).unwrap(), None);
    assert!(check(&fs).1.iter().any(|problem| problem.contains("does not lead to the root")));
}
