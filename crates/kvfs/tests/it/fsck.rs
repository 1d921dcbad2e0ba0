//! The check finds nothing where nothing is wrong, and everything that is.

use std::sync::atomic::AtomicBool;

use kvfs::{Finding, FsError, FsckReport, Kvfs};
use proptest::prelude::*;
use rocksdb::{DB, IteratorMode, Options};
use tempfile::TempDir;
use tier_types::{ChunkRange, FileKind, Ino, Persisted, PortError, SnapshotId, Xid};

use crate::common::{create, directory, file, name, open};

/// An archive that has everything.
struct Everything;

impl Persisted for Everything {
    fn is_persisted(&self, _: Ino, _: ChunkRange, _: Xid) -> Result<bool, PortError> {
        Ok(true)
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(None)
    }
}

fn check(fs: &Kvfs) -> (FsckReport, Vec<String>) {
    let mut problems = Vec::new();
    let report = fs
        .fsck(&Everything, &mut |finding| problems.push(finding.problem), &AtomicBool::new(false))
        .unwrap();
    (report, problems)
}

fn key(number: u64, rest: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), rest].concat()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let (_dir, fs) = create();
    let d = directory(&fs, Ino::ROOT, "d");
    let f = file(&fs, d, "f");
    fs.write(f, 100, &[1; 3000]).unwrap();
    fs.truncate(f, 1000).unwrap();
    fs.punch_hole(f, 512, 100).unwrap();
    fs.link(f, Ino::ROOT, &name("g")).unwrap();
    fs.unlink(d, &name("f")).unwrap();
    let open = fs.open_handle(f).unwrap();
    fs.unlink(Ino::ROOT, &name("g")).unwrap();
    let (report, problems) = check(&fs);
    assert_eq!((report.n_inodes, report.n_entries, problems), (3, 1, vec![]));
    drop(open);
    let (report, problems) = check(&fs);
    assert_eq!((report.n_inodes, report.n_chunks, problems), (2, 0, vec![]));
}

#[test]
fn every_kind_of_contradiction_is_found() {
    // Table, key, value (or none to delete), and what is said of it.
    type Wrong<'a> = (&'a str, Vec<u8>, Option<&'a [u8]>, &'a str);
    let (d, f) = (2, 3);
    let chunk = |number: u64| key(f, &number.to_be_bytes());
    let wrongs: [Wrong<'_>; 14] = [
        ("inodes", key(f, b""), None, "which is gone"),
        ("inodes", key(f, b""), Some(b"\xff"), "cannot be read"),
        ("entries", key(d, b"f"), None, "does not know it as"),
        ("links", key(f, &key(d, b"f")), None, "does not know its name"),
        ("cookies", key(d, &5_u64.to_be_bytes()), None, "is not listed at its place"),
        ("orphans", key(f, b""), Some(b""), "is listed as having none"),
        ("chunks", chunk(1), None, "neither data nor detour"),
        ("chunks", chunk(9), Some(b"x"), "its map knows nothing of it"),
        ("resident", key(f, b""), None, "are said to be local"),
        ("xattrs", key(99, b"user.a"), Some(b"1"), "it does not exist"),
        ("meta", b"counters".to_vec(), Some(&[0; 4]), "the totals are"),
        ("orphans", key(99, b""), Some(b""), "it does not exist"),
        ("inodes", key(d, b""), None, "table entries has something of it"),
        ("log", key(3, b""), None, "the log has a gap"),
    ];
    for (table, key, value, said) in wrongs {
        let (dir, fs) = create();
        assert_eq!(directory(&fs, Ino::ROOT, "d"), Ino::new(d));
        assert_eq!(file(&fs, Ino::new(d), "f"), Ino::new(f));
        fs.write(Ino::new(f), 0, &[1; 1200]).unwrap();
        fs.fsync().unwrap();
        assert_eq!(check(&fs).1, Vec::<String>::new());
        drop(fs);
        tamper(&dir, |db| {
            let table = db.cf_handle(table).unwrap();
            match value {
                Some(value) => db.put_cf(table, &key, value).unwrap(),
                None => db.delete_cf(table, &key).unwrap(),
            }
        });
        let fs = open(&dir);
        let (_, problems) = check(&fs);
        assert!(problems.iter().any(|problem| problem.contains(said)), "{said}: {problems:?}");
        let (report, left) = repair(&fs);
        if table == "log" {
            assert_eq!((report.n_repaired, left), (0, problems), "what is lost is not invented");
            continue;
        }
        assert!(report.n_repaired > 0, "{said}");
        assert_eq!(left, Vec::<String>::new(), "{said}");
        drop(fs);
        assert_eq!(check(&open(&dir)).1, Vec::<String>::new(), "{said}");
    }
}

fn tamper(dir: &TempDir, change: impl FnOnce(&DB)) {
    let path = dir.path().join("kvs");
    let tables = DB::list_cf(&Options::default(), &path).unwrap();
    change(&DB::open_cf(&Options::default(), &path, tables).unwrap());
}

/// What is left after a repair.
fn repair(fs: &Kvfs) -> (FsckReport, Vec<String>) {
    let mut left = Vec::new();
    let found = &mut |finding: Finding| {
        if !finding.repaired {
            left.push(finding.problem);
        }
    };
    let report = fs.repair(&Everything, found, &AtomicBool::new(false)).unwrap();
    (report, left)
}

/// Every path from the root down, with its inode.
fn paths(fs: &Kvfs, dir: Ino, above: &str, into: &mut Vec<(String, Ino)>) {
    for entry in fs.readdir(dir, 0, usize::MAX).unwrap() {
        let name = String::from_utf8(entry.name).unwrap();
        if name == "." || name == ".." {
            continue;
        }
        let path = format!("{above}/{name}");
        if matches!(entry.attr.kind, FileKind::Directory) {
            paths(fs, entry.attr.ino, &path, into);
        }
        into.push((path, entry.attr.ino));
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

#[test]
fn data_that_is_lost_here_and_archived_is_evicted_data() {
    let (dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    fs.write(f, 0, &[1; 5 * 512]).unwrap();
    fs.fsync().unwrap();
    drop(fs);
    tamper(&dir, |db| {
        let table = db.cf_handle("chunks").unwrap();
        for number in [1_u64, 2] {
            db.delete_cf(table, key(f.get(), &number.to_be_bytes())).unwrap();
        }
    });
    let fs = open(&dir);
    assert!(matches!(fs.read(f, 512, 10), Err(FsError::Damaged { .. })));
    let (report, left) = repair(&fs);
    assert_eq!((report.n_cold_runs, left), (1, vec![]));
    let cold = fs.heat(f).unwrap();
    assert_eq!(fs.read(f, 0, 512).unwrap(), [1; 512]);
    assert_eq!(format!("{cold:?}"), "Mixed");
}

/// One row of a derived table is lost, or spoiled.
#[derive(Clone, Copy, Debug)]
struct Harm {
    table: usize,
    row: usize,
    spoiled: bool,
}

const DERIVED: [&str; 6] = ["entries", "cookies", "links", "orphans", "resident", "warm"];

fn harm() -> impl Strategy<Value = Harm> {
    (0..DERIVED.len(), any::<usize>(), any::<bool>()).prop_map(|(table, row, spoiled)| Harm {
        table,
        row,
        spoiled,
    })
}

fn do_harm(db: &DB, harm: Harm) {
    let table = db.cf_handle(DERIVED[harm.table]).unwrap();
    let rows: Vec<_> = db.iterator_cf(table, IteratorMode::Start).map(Result::unwrap).collect();
    let Some((key, _)) = rows.get(harm.row % rows.len().max(1)) else { return };
    match harm.spoiled {
        true => db.put_cf(table, key, [0xff; 3]).unwrap(),
        false => db.delete_cf(table, key).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_loss_of_names_and_sums_loses_a_file(harms in prop::collection::vec(harm(), 1..12)) {
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
        tamper(&dir, |db| harms.iter().for_each(|harm| do_harm(db, *harm)));
        let fs = open(&dir);
        let (_, left) = repair(&fs);
        prop_assert_eq!(left, Vec::<String>::new());
        let mut found = Vec::new();
        paths(&fs, Ino::ROOT, "", &mut found);
        for (ino, number) in files {
            prop_assert!(found.iter().any(|(_, at)| *at == ino), "{} is not in {:?}", ino, found);
            prop_assert_eq!(fs.read(ino, 0, 1000).unwrap(), vec![number + 1; 700]);
        }
    }
}
