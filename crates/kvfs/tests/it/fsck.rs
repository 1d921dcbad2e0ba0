//! The check finds nothing where nothing is wrong, and everything that is.

use std::sync::atomic::AtomicBool;

use kvfs::{FsckReport, Kvfs};
use rocksdb::{DB, Options};
use tempfile::TempDir;
use tier_types::{ChunkRange, Ino, Persisted, PortError, SnapshotId, Xid};

use crate::common::{create, directory, file, name, open};

/// An archive that has everything.
pub(crate) struct Everything;

impl Persisted for Everything {
    fn is_persisted(&self, _: Ino, _: ChunkRange, _: Xid) -> Result<bool, PortError> {
        Ok(true)
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(None)
    }
}

pub(crate) fn check(fs: &Kvfs) -> (FsckReport, Vec<String>) {
    let mut problems = Vec::new();
    let report = fs
        .fsck(
            &Everything,
            &mut |finding| problems.push(finding.problem.to_string()),
            &AtomicBool::new(false),
        )
        .unwrap();
    (report, problems)
}

pub(crate) fn key(number: u64, rest: &[u8]) -> Vec<u8> {
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
    let wrongs: [Wrong<'_>; 12] = [
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
        let (_, problems) = check(&open(&dir));
        assert!(problems.iter().any(|problem| problem.contains(said)), "{said}: {problems:?}");
    }
}

/// Changes the database below a filesystem that is not open.
pub(crate) fn tamper(dir: &TempDir, change: impl FnOnce(&DB)) {
    let path = dir.path().join("kvs");
    let tables = DB::list_cf(&Options::default(), &path).unwrap();
    change(&DB::open_cf(&Options::default(), &path, tables).unwrap());
}
