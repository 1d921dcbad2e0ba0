//! The check finds nothing where nothing is wrong, and everything that is.

use std::sync::atomic::AtomicBool;

use kvfs::check::{Finding, FsckReport};
use kvfs::{FsError, Kvfs};
use rocksdb::{DB, Options};
use tempfile::TempDir;
use tier_types::{ChunkRange, ErrorKind, HasKind, Ino, Persisted, PortError, SnapshotId, Xid};

use crate::common::{create, directory, file, name, open};

/// An archive that has everything.
pub(crate) struct Everything;

impl Persisted for Everything {
    fn first_persisted(
        &self,
        _: Ino,
        chunks: ChunkRange,
        _: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        Ok(Some(chunks))
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
    let wrongs: [Wrong<'_>; 16] = [
        ("inodes", key(f, b""), None, "which is gone"),
        ("inodes", key(f, b""), Some(b"\xff"), "cannot be read"),
        ("entries", key(d, b"f"), None, "does not know it as"),
        ("links", key(f, &key(d, b"f")), None, "does not know its name"),
        ("cookies", key(d, &5_u64.to_be_bytes()), None, "is not listed at its place"),
        ("orphans", key(f, b""), Some(b""), "is listed as having none"),
        ("chunks", chunk(1), None, "neither data nor detour"),
        ("chunks", chunk(9), Some(b"x"), "its map knows nothing of it"),
        ("resident", key(f, b""), None, "are said to be local"),
        ("cuts", key(99, b""), Some(&[1, 2, 5, 9]), "it does not exist"),
        ("cuts", key(f, b""), Some(&[1, 2, 5, 99]), "what was cut off it"),
        ("dying", key(f, b""), Some(&[0, 0]), "is listed as being deleted"),
        ("dying", key(99, b""), Some(b"\xff"), "how far it is deleted cannot be read"),
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

/// An archive that has nothing.
pub(crate) struct Nothing;

impl Persisted for Nothing {
    fn first_persisted(
        &self,
        _: Ino,
        _: ChunkRange,
        _: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        Ok(None)
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(None)
    }
}

#[test]
fn every_problem_is_told_by_its_name() {
    // Rows that are put, or deleted, and the problem that comes of it.
    type Row<'a> = (&'a str, Vec<u8>, Option<&'a [u8]>);
    let (root, d, f) = (1, 2, 3);
    let pair = |first: u64, second: u64| key(first, &second.to_be_bytes());
    let wrongs: [(&[Row<'_>], &str); 19] = [
        (&[("inodes", key(root, b""), None)], "root-missing"),
        (&[("links", key(root, &key(d, b"x")), Some(b""))], "root-named"),
        (&[("inodes", key(f, b""), Some(b"\xff"))], "attributes-unreadable"),
        (&[("map", pair(f, 0), Some(b"\xff"))], "damaged"),
        (&[("orphans", key(f, b""), Some(b""))], "named-orphan"),
        (&[("links", key(f, &key(d, b"f")), None)], "nameless"),
        (&[("links", key(d, &key(root, b"two")), Some(b""))], "directory-names"),
        (
            &[
                ("links", key(d, &key(root, b"d")), None),
                ("links", key(d, &key(d, b"d")), Some(b"")),
            ],
            "unreachable",
        ),
        (&[("links", key(f, &key(root, b"two")), Some(b""))], "link-count"),
        (&[("inodes", key(d, b""), None), ("entries", key(d, b"f"), None)], "directory-lost"),
        (&[("entries", key(d, b"f"), None)], "entry-missing"),
        (&[("entries", key(d, b"f"), Some(b"\xff"))], "entry-unreadable"),
        (&[("inodes", key(f, b""), None)], "entry-dead"),
        (&[("cookies", pair(d, 99), Some(b"f"))], "listing-length"),
        (&[("map", pair(d, 0), Some(b"\x01\x02"))], "data-of-no-file"),
        (&[("map", pair(f, 0), Some(b"\x02\x04"))], "warm-unlisted"),
        (&[("map", pair(f, 0), Some(b"\x03\x04"))], "not-archived"),
        (&[("pins", b"short".to_vec(), Some(b""))], "key-unreadable"),
        (&[("log", key(3, b""), None)], "log-gap"),
    ];
    for (rows, told) in wrongs {
        let (dir, fs) = create();
        assert_eq!(directory(&fs, Ino::ROOT, "d"), Ino::new(d));
        assert_eq!(file(&fs, Ino::new(d), "f"), Ino::new(f));
        fs.write(Ino::new(f), 0, &[1; 1200]).unwrap();
        fs.fsync().unwrap();
        drop(fs);
        tamper(&dir, |db| {
            for (table, key, value) in rows {
                let table = db.cf_handle(table).unwrap();
                match value {
                    Some(value) => db.put_cf(table, key, value).unwrap(),
                    None => db.delete_cf(table, key).unwrap(),
                }
            }
        });
        let mut names = Vec::new();
        let found = &mut |finding: Finding| names.push(finding.problem.name());
        open(&dir).fsck(&Nothing, found, &AtomicBool::new(false)).unwrap();
        assert!(names.contains(&told), "{told}: {names:?}");
    }
}

#[test]
fn a_check_can_be_stopped() {
    let (_dir, fs) = create();
    let stopped = fs.fsck(&Everything, &mut |_| {}, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(FsError::Interrupted)), "{stopped:?}");
}

#[test]
fn an_archive_that_fails_ends_the_check() {
    struct Away;

    impl Persisted for Away {
        fn first_persisted(
            &self,
            _: Ino,
            _: ChunkRange,
            _: Xid,
        ) -> Result<Option<ChunkRange>, PortError> {
            Err(PortError::new(ErrorKind::Away, "away"))
        }

        fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
            Ok(None)
        }
    }

    let (_dir, fs) = create();
    let f = file(&fs, Ino::ROOT, "f");
    fs.write(f, 0, &[1; 600]).unwrap();
    let fsck = || fs.fsck(&Away, &mut |_| {}, &AtomicBool::new(false));
    assert!(fsck().is_ok(), "it is asked for nothing");
    crate::archive::evict(&fs, f);
    assert_eq!(fsck().unwrap_err().kind(), ErrorKind::Away);
}
