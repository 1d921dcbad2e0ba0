//! What can be told is put right; what cannot stays as it is, and no data goes.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvfs::check::{Finding, FsckReport};
use kvfs::{FsError, Kvfs};
use proptest::prelude::*;
use rocksdb::{DB, IteratorMode};
use tempfile::TempDir;
use tier_types::{ChunkRange, FileKind, Ino, Persisted, PortError, SnapshotId, Xid};

use crate::common::{create, directory, file, name, open};
use crate::fsck::{Everything, check, key, tamper};

/// An archive that has one version of everything.
struct Only(Xid);

impl Persisted for Only {
    fn first_persisted(
        &self,
        _: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        Ok((data_xid == self.0).then_some(chunks))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(None)
    }
}

/// What is left after a repair.
pub(crate) fn repair_from(archive: &dyn Persisted, fs: &Kvfs) -> (FsckReport, Vec<String>) {
    let mut left = Vec::new();
    let found = &mut |finding: Finding| {
        if !finding.repaired {
            left.push(finding.problem.to_string());
        }
    };
    let report = fs.repair(archive, found, &AtomicBool::new(false)).unwrap();
    assert!(!fs.repair_is_unfinished().unwrap());
    (report, left)
}

fn repair(fs: &Kvfs) -> (FsckReport, Vec<String>) {
    repair_from(&Everything, fs)
}

fn put(db: &DB, table: &str, key: &[u8], value: Option<&[u8]>) -> Option<Vec<u8>> {
    let table = db.cf_handle(table).unwrap();
    let before = db.get_cf(table, key).unwrap();
    match value {
        Some(value) => db.put_cf(table, key, value).unwrap(),
        None => db.delete_cf(table, key).unwrap(),
    }
    before
}

const D: u64 = 2;
const F: u64 = 3;
const CONTENT: [u8; 1200] = [1; 1200];

/// A directory with two files, one of them with data.
fn small() -> (TempDir, Arc<Kvfs>) {
    let (dir, fs) = create();
    assert_eq!(directory(&fs, Ino::ROOT, "d"), Ino::new(D));
    assert_eq!(file(&fs, Ino::new(D), "f"), Ino::new(F));
    fs.write(Ino::new(F), 0, &CONTENT).unwrap();
    file(&fs, Ino::new(D), "g");
    fs.fsync().unwrap();
    (dir, fs)
}

fn assert_whole(fs: &Kvfs) {
    assert_eq!(check(fs).1, Vec::<String>::new());
    assert_eq!(fs.lookup(Ino::ROOT, &name("d")).unwrap().ino, Ino::new(D));
    let f = fs.lookup(Ino::new(D), &name("f")).unwrap();
    assert_eq!((f.ino, f.size_bytes, f.nlink), (Ino::new(F), 1200, 1));
    assert_eq!(fs.lookup(Ino::new(D), &name("g")).unwrap().nlink, 1);
    assert_eq!(fs.read(Ino::new(F), 0, 2000).unwrap(), CONTENT);
}

/// A table, a key, and a value in place of the one that is there, or none.
type Wrong<'a> = (&'a str, Vec<u8>, Option<&'a [u8]>);

#[test]
fn what_others_tell_is_put_right() {
    let entry_of_g = {
        let (dir, fs) = small();
        drop(fs);
        let mut value = None;
        tamper(&dir, |db| value = put(db, "entries", &key(D, b"g"), Some(b"")));
        value.unwrap()
    };
    let root_entry = b"\x01\x63";
    let wrongs: [Wrong<'_>; 22] = [
        ("inodes", key(D, b""), None),
        ("inodes", key(D, b""), Some(b"\xff")),
        ("inodes", key(1, b""), None),
        ("links", key(1, &key(D, b"x")), Some(b"")),
        ("entries", key(D, b"x"), Some(root_entry)),
        ("entries", key(D, b"f"), None),
        ("entries", key(D, b"f"), Some(b"\xff")),
        ("entries", key(D, b"f"), Some(&entry_of_g)),
        ("links", key(F, &key(D, b"f")), None),
        ("cookies", key(D, &5_u64.to_be_bytes()), None),
        ("cookies", key(D, &5_u64.to_be_bytes()), Some(b"g")),
        ("cookies", key(D, &99_u64.to_be_bytes()), Some(b"f")),
        ("orphans", key(F, b""), Some(b"")),
        ("orphans", key(1, b""), Some(b"")),
        ("orphans", key(99, b""), Some(b"")),
        ("chunks", key(F, &9_u64.to_be_bytes()), Some(b"x")),
        ("resident", key(F, b""), Some(b"\xff")),
        ("cuts", key(99, b""), Some(&[1, 2, 5, 9])),
        ("dying", key(F, b""), Some(&[0, 0])),
        ("dying", key(99, b""), Some(b"\xff")),
        ("xattrs", key(99, b"user.a"), Some(b"1")),
        ("meta", b"counters".to_vec(), Some(&[0xff])),
    ];
    for (table, key, value) in wrongs {
        let (dir, fs) = small();
        drop(fs);
        tamper(&dir, |db| drop(put(db, table, &key, value)));
        let fs = open(&dir);
        assert_ne!(check(&fs).1, Vec::<String>::new(), "{table} {key:?} {value:?}");
        let (report, left) = repair(&fs);
        assert!(report.n_repaired > 0, "{table} {key:?} {value:?}");
        assert_eq!(left, Vec::<String>::new(), "{table} {key:?} {value:?}");
        drop(fs);
        let fs = open(&dir);
        assert_whole(&fs);
        assert_eq!(repair(&fs).0.n_repaired, 0);
    }
}

#[test]
fn no_file_gets_the_name_of_another() {
    let (dir, fs) = small();
    drop(fs);
    tamper(&dir, |db| {
        let entry_of_g = put(db, "entries", &key(D, b"g"), None).unwrap();
        put(db, "entries", &key(D, b"g"), Some(&entry_of_g));
        put(db, "entries", &key(D, b"f"), Some(&entry_of_g));
        put(db, "links", &key(F, &key(D, b"f")), None);
    });
    let fs = open(&dir);
    assert_eq!(repair(&fs).1, Vec::<String>::new());
    assert!(matches!(fs.lookup(Ino::new(D), &name("f")), Err(FsError::NotFound)));
    assert_eq!(fs.lookup(Ino::new(D), &name("g")).unwrap().nlink, 1);
    let home = fs.lookup(Ino::ROOT, &name("lost+found")).unwrap().ino;
    assert_eq!(fs.lookup(home, &name(&format!("#{F}"))).unwrap().ino, Ino::new(F));
    assert_eq!(fs.read(Ino::new(F), 0, 2000).unwrap(), CONTENT);
}

/// Both entries say that they are `f`, and one of them is where the listing has it.
#[test]
fn of_two_entries_of_one_name_the_listed_one_is_right() {
    let (dir, fs) = small();
    let e = file(&fs, Ino::new(D), "e");
    fs.fsync().unwrap();
    drop(fs);
    tamper(&dir, |db| {
        let entry_of_f = db.get_cf(db.cf_handle("entries").unwrap(), key(D, b"f")).unwrap();
        put(db, "entries", &key(D, b"e"), entry_of_f.as_deref());
        put(db, "links", &key(F, &key(D, b"f")), None);
        put(db, "links", &key(e.get(), &key(D, b"e")), None);
    });
    let fs = open(&dir);
    assert_eq!(repair(&fs).1, Vec::<String>::new());
    assert_whole(&fs);
    let home = fs.lookup(Ino::ROOT, &name("lost+found")).unwrap().ino;
    assert_eq!(fs.lookup(home, &name(&format!("#{e}"))).unwrap().ino, e);
}

#[test]
fn the_last_name_of_data_without_attributes_stays() {
    let (dir, fs) = small();
    drop(fs);
    tamper(&dir, |db| {
        put(db, "inodes", &key(F, b""), None);
        put(db, "links", &key(F, &key(D, b"f")), None);
    });
    let fs = open(&dir);
    let (_, left) = repair(&fs);
    let entry = format!("its entry f is of inode {F}, which is gone");
    assert!(left.contains(&entry), "{left:?}");
}

#[test]
fn a_directory_of_which_only_its_files_know_comes_back() {
    let (dir, fs) = small();
    drop(fs);
    tamper(&dir, |db| {
        put(db, "inodes", &key(D, b""), None);
        for name in [b"f", b"g"] {
            put(db, "entries", &key(D, name), None);
        }
    });
    let fs = open(&dir);
    assert_eq!(repair(&fs).1, Vec::<String>::new());
    assert_whole(&fs);
}

#[test]
fn a_directory_of_which_only_its_entries_are_left_comes_back() {
    let (dir, fs) = small();
    let g = fs.lookup(Ino::new(D), &name("g")).unwrap().ino.get();
    drop(fs);
    tamper(&dir, |db| {
        put(db, "inodes", &key(D, b""), None);
        put(db, "links", &key(F, &key(D, b"f")), None);
        put(db, "links", &key(g, &key(D, b"g")), None);
    });
    let fs = open(&dir);
    assert_eq!(repair(&fs).1, Vec::<String>::new());
    assert_whole(&fs);
}

#[test]
fn what_is_listed_as_an_orphan_and_is_none_survives_its_last_handle() {
    let (dir, fs) = small();
    drop(fs);
    tamper(&dir, |db| drop(put(db, "orphans", &key(F, b""), Some(b""))));
    let fs = Arc::new(open(&dir));
    drop(fs.open_handle(Ino::new(F)).unwrap());
    assert_eq!(fs.read(Ino::new(F), 0, 2000).unwrap(), CONTENT);
    // Nor when it has lost its name.
    drop(fs);
    tamper(&dir, |db| {
        put(db, "entries", &key(D, b"f"), None);
        put(db, "links", &key(F, &key(D, b"f")), None);
    });
    let fs = Arc::new(open(&dir));
    drop(fs.open_handle(Ino::new(F)).unwrap());
    // A file has the name of the place for what is lost.
    file(&fs, Ino::ROOT, "lost+found");
    assert_eq!(repair(&fs).1, Vec::<String>::new());
    let home = fs.lookup(Ino::ROOT, &name("lost+found.1")).unwrap().ino;
    let found = fs.lookup(home, &name(&format!("#{F}"))).unwrap();
    assert_eq!((found.ino, found.nlink), (Ino::new(F), 1));
    assert_eq!(fs.read(Ino::new(F), 0, 2000).unwrap(), CONTENT);
}

#[test]
fn what_is_said_nowhere_else_stays_as_it_is() {
    let wrongs: [Wrong<'_>; 6] = [
        ("inodes", key(F, b""), None),
        ("inodes", key(F, b""), Some(b"\xff")),
        ("map", key(F, &0_u64.to_be_bytes()), None),
        ("map", key(F, &0_u64.to_be_bytes()), Some(b"\xff")),
        ("chunks", key(F, &1_u64.to_be_bytes()), None),
        ("log", key(3, b""), None),
    ];
    for (table, key, value) in wrongs {
        let (dir, fs) = small();
        drop(fs);
        let mut before = None;
        tamper(&dir, |db| before = put(db, table, &key, value));
        let fs = open(&dir);
        // Another version in the archive is none.
        let (_, left) = repair_from(&Only(Xid::new(3)), &fs);
        assert_ne!(left, Vec::<String>::new(), "{table} {key:?} {value:?}");
        drop(fs);
        // Nothing of it is gone: with the row that was lost all is there again.
        tamper(&dir, |db| drop(put(db, table, &key, before.as_deref())));
        let fs = open(&dir);
        repair(&fs);
        assert_whole(&fs);
    }
}

#[test]
fn lost_data_comes_from_the_archive_in_exactly_its_version() {
    for (data_xid, comes) in [(4, true), (3, false), (5, false)] {
        let (dir, fs) = small();
        drop(fs);
        let chunk = key(F, &1_u64.to_be_bytes());
        tamper(&dir, |db| drop(put(db, "chunks", &chunk, None)));
        let fs = open(&dir);
        assert!(matches!(fs.read(Ino::new(F), 512, 10), Err(FsError::Damaged { .. })));
        let (report, left) = repair_from(&Only(Xid::new(data_xid)), &fs);
        assert_eq!((report.n_cold_runs, left.is_empty()), (u64::from(comes), comes));
        assert_eq!(fs.read(Ino::new(F), 0, 512).unwrap(), [1; 512]);
        // Without a way to the archive: an error, and never zeros.
        let read = fs.read(Ino::new(F), 512, 10);
        assert_eq!(matches!(read, Err(FsError::Damaged { .. })), !comes, "{read:?}");
        assert!(read.is_err());
    }
}

#[test]
fn a_repair_that_is_stopped_is_known_and_finished_by_the_next() {
    let (dir, fs) = small();
    drop(fs);
    tamper(&dir, |db| {
        put(db, "links", &key(F, &key(D, b"f")), None);
        put(db, "resident", &key(F, b""), None);
    });
    let fs = open(&dir);
    let (stop, n_found) = (AtomicBool::new(false), Cell::new(0));
    let found = &mut |_| {
        n_found.set(n_found.get() + 1);
        stop.store(true, Ordering::Relaxed);
    };
    let stopped = fs.repair(&Everything, found, &stop);
    assert!(matches!(stopped, Err(FsError::Interrupted)));
    assert_eq!(n_found.get(), 1);
    drop(fs);
    let fs = open(&dir);
    assert!(fs.repair_is_unfinished().unwrap());
    assert_eq!(repair(&fs).1, Vec::<String>::new());
    assert_whole(&fs);
}

/// Every path from the root down, with its inode.
fn paths(fs: &Kvfs, dir: Ino, above: &str, into: &mut Vec<(String, Ino)>) {
    for entry in fs.readdir(dir, 0, usize::MAX).unwrap() {
        let name = String::from_utf8(entry.name).unwrap();
        if name == "." || name == ".." {
            continue;
        }
        let path = format!("{above}/{name}");
        if matches!(entry.attr.unwrap().kind, FileKind::Directory) {
            paths(fs, entry.ino, &path, into);
        }
        into.push((path, entry.ino));
    }
}

#[test]
fn what_has_lost_its_name_is_found_in_lost_and_found_with_all_that_lies_below() {
    let (dir, fs) = create();
    let top = directory(&fs, Ino::ROOT, "a");
    let middle = directory(&fs, top, "b");
    let low = directory(&fs, middle, "c");
    let inner = file(&fs, low, "f");
    let other = file(&fs, Ino::ROOT, "g");
    fs.write(inner, 0, b"below").unwrap();
    fs.fsync().unwrap();
    drop(fs);
    tamper(&dir, |db| {
        let table = |name| db.cf_handle(name).unwrap();
        let root = Ino::ROOT.get();
        for (ino, name) in [(top, b"a"), (other, b"g")] {
            db.delete_cf(table("entries"), key(root, name)).unwrap();
            db.delete_cf(table("links"), key(ino.get(), &key(root, name))).unwrap();
        }
        // A circle: a in c.
        db.put_cf(table("links"), key(top.get(), &key(low.get(), b"a")), b"").unwrap();
    });
    let fs = open(&dir);
    let (_, left) = repair(&fs);
    assert_eq!(left, Vec::<String>::new());
    let mut found = Vec::new();
    paths(&fs, Ino::ROOT, "", &mut found);
    found.sort();
    let names: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    let below = |ino: Ino, rest: &str| format!("/lost+found/#{ino}{rest}");
    // Somewhere the circle was opened.
    let opened = [(top, "/b/c/f"), (middle, "/c/f"), (low, "/f")];
    let whole = opened.iter().any(|(at, rest)| names.contains(&below(*at, rest).as_str()));
    assert!(whole && names.contains(&below(other, "").as_str()), "{names:?}");
    assert_eq!(fs.read(inner, 0, 100).unwrap(), b"below");
}

/// One row of a derived table is lost, spoiled, or says what another one says.
#[derive(Clone, Copy, Debug)]
struct Harm {
    table: usize,
    row: usize,
    how: usize,
}

const DERIVED: [&str; 4] = ["entries", "cookies", "links", "resident"];

fn harm() -> impl Strategy<Value = Harm> {
    (0..DERIVED.len(), any::<usize>(), 0..3_usize).prop_map(|(table, row, how)| Harm {
        table,
        row,
        how,
    })
}

fn rows(db: &DB, table: &str) -> Vec<Row> {
    let rows = db.iterator_cf(db.cf_handle(table).unwrap(), IteratorMode::Start);
    rows.map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())).unwrap()).collect()
}

fn do_harm(db: &DB, harm: Harm) {
    let rows = rows(db, DERIVED[harm.table]);
    let Some((key, _)) = rows.get(harm.row % rows.len().max(1)) else { return };
    let value = match harm.how {
        0 => None,
        1 => Some([0xff; 3].as_slice()),
        _ => rows.get(harm.row / 7 % rows.len()).map(|(_, value)| value.as_slice()),
    };
    put(db, DERIVED[harm.table], key, value);
}

type Row = (Vec<u8>, Vec<u8>);

/// The inode that an entry says, and whether the listing has its name at its place. Small numbers
/// are one byte each.
fn said((key, value): &Row, cookies: &[Row]) -> Option<(u8, bool)> {
    let &[ino, cookie] = value.as_slice() else { return None };
    let place = [&key[..8], &u64::from(cookie).to_be_bytes()].concat();
    Some((ino, cookies.contains(&(place, key[8..].to_vec()))))
}

/// The names that are still told by an inode, or by its directory as ever and with more right than
/// a false entry of the same inode: directory, name, inode.
fn told(db: &DB, entries: &[Row], links: &[Vec<u8>]) -> Vec<(Ino, String, Ino)> {
    let (entries_now, links_now) = (rows(db, "entries"), rows(db, "links"));
    let cookies = rows(db, "cookies");
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().unwrap());
    let false_ones: Vec<_> = entries_now.iter().filter(|row| !entries.contains(row)).collect();
    let has_most_right = |entry: &Row| {
        let (ino, is_listed) = said(entry, &cookies).unwrap();
        let mut rivals = false_ones.iter().filter_map(|row| said(row, &cookies));
        rivals.all(|(of, is_rival_listed)| of != ino || (is_listed && !is_rival_listed))
    };
    let is_told = |link: &&Vec<u8>| {
        let entry = entries.iter().find(|(key, _)| *key == link[8..]);
        links_now.iter().any(|(key, _)| key == *link)
            || entry.is_some_and(|entry| entries_now.contains(entry) && has_most_right(entry))
    };
    let parts = |link: &Vec<u8>| {
        let name = String::from_utf8(link[16..].to_vec()).unwrap();
        (Ino::new(number(&link[8..])), name, Ino::new(number(link)))
    };
    links.iter().filter(is_told).map(parts).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_name_is_lost_that_is_told_anywhere(harms in prop::collection::vec(harm(), 1..12)) {
        let (dir, fs) = create();
        let mut files = Vec::new();
        let mut parent = Ino::ROOT;
        for number in 0..4_u8 {
            for name_of in ["a", "b"] {
                let f = file(&fs, parent, &format!("{name_of}{number}"));
                fs.write(f, 0, &[number + 1; 700]).unwrap();
                fs.link(f, Ino::ROOT, &name(&format!("{name_of}{number} too"))).unwrap();
                files.push((f, number));
            }
            parent = directory(&fs, parent, &format!("d{number}"));
        }
        fs.fsync().unwrap();
        drop(fs);
        let mut names = Vec::new();
        tamper(&dir, |db| {
            let entries = rows(db, "entries");
            let links: Vec<_> = rows(db, "links").into_iter().map(|(key, _)| key).collect();
            for harm in &harms {
                do_harm(db, *harm);
            }
            names = told(db, &entries, &links);
        });
        let fs = open(&dir);
        let (_, left) = repair(&fs);
        prop_assert_eq!(left, Vec::<String>::new());
        for (dir, text, ino) in names {
            prop_assert_eq!(fs.lookup(dir, &name(&text)).unwrap().ino, ino, "{} in {}", text, dir);
        }
        let mut found = Vec::new();
        paths(&fs, Ino::ROOT, "", &mut found);
        for (ino, number) in files {
            prop_assert!(found.iter().any(|(_, at)| *at == ino), "{} is not in {:?}", ino, found);
            prop_assert_eq!(fs.read(ino, 0, 1000).unwrap(), vec![number + 1; 700]);
        }
    }
}
