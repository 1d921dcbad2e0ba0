//! One damaged block of the key-value store: everything else is served, checked and written.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tier_testkit::OneByOne;

use kvfs::check::{Finding, FsckReport, Problem};
use kvfs::ops::XattrMode;
use kvfs::{FsError, Kvfs};
use rocksdb::{DB, Options};
use tempfile::TempDir;
use tier_types::{
    ChunkNo, ErrorKind, FileKind, HasKind, Ino, LogService, MountedInstance, Persisted, with_causes,
};

use crate::common::{create, directory, file, name, node, open};
use crate::fsck::{Everything, Nothing};

/// So many that every table has several blocks.
const N_FILES: u64 = 800;

fn file_name(number: u64) -> String {
    format!("{number}-{}", "n".repeat(60))
}

fn content(number: u64) -> Vec<u8> {
    let noise = |i: u64| (i + number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    (0..700).map(noise).collect()
}

/// A directory of files, all of it in table files.
struct Tree {
    dir: TempDir,
    home: Ino,
    files: Vec<Ino>,
}

impl Tree {
    fn new() -> Self {
        let (dir, fs) = create();
        let home = directory(&fs, Ino::ROOT, "home");
        let make = |number| {
            let ino = file(&fs, home, &file_name(number));
            fs.write(ino, 0, &content(number)).unwrap();
            fs.setxattr(ino, b"user.number", &content(number)[..40], XattrMode::Set).unwrap();
            ino
        };
        let files = (0..N_FILES).map(make).collect();
        fs.fsync().unwrap();
        drop(fs);
        // Opening brings what is in the write-ahead log into table files.
        drop(open(&dir));
        Self { dir, home, files }
    }

    /// The table file that has most of a table.
    fn file_of(&self, table: &str) -> PathBuf {
        let path = self.dir.path().join("kvs");
        let tables = DB::list_cf(&Options::default(), &path).unwrap();
        let db = DB::open_cf_for_read_only(&Options::default(), &path, tables, false).unwrap();
        let files = db.live_files().unwrap().into_iter();
        let of_table = files.filter(|file| file.column_family_name == table);
        let largest = of_table.max_by_key(|file| file.size).unwrap();
        path.join(largest.name.trim_start_matches('/'))
    }

    /// Flips a bit in the middle of a table.
    fn damage(&self, table: &str) {
        self.damage_at(table, |len| len / 2);
    }

    fn damage_at(&self, table: &str, place: impl Fn(usize) -> usize) {
        let file = self.file_of(table);
        let mut bytes = fs::read(&file).unwrap();
        let at = place(bytes.len());
        bytes[at] ^= 1;
        fs::write(file, bytes).unwrap();
    }

    /// The filesystem once damage was met. If a compaction met it before any reader did, one write
    /// fails, and the filesystem must be opened again.
    fn writable(&self, fs: Arc<Kvfs>) -> Arc<Kvfs> {
        let Err(error) = write_file(&fs, "probe") else { return fs };
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(with_causes(&error).contains(".sst"), "{}", with_causes(&error));
        drop(fs);
        let fs = open(&self.dir);
        write_file(&fs, "probe").unwrap();
        fs
    }

    /// All that can be asked of a file.
    fn look(&self, fs: &Kvfs, number: u64, ino: Ino) -> Result<(), FsError> {
        let attr = fs.lookup(self.home, &name(&file_name(number)))?;
        assert_eq!((attr.ino, attr.size_bytes), (ino, 700));
        assert_eq!(fs.getattr(ino)?, attr);
        assert_eq!(fs.read(ino, 0, 1000)?, content(number));
        assert_eq!(fs.getxattr(ino, b"user.number")?, content(number)[..40]);
        assert_eq!(fs.resident_bytes(ino)?, 700);
        Ok(())
    }

    /// What each file that cannot be read fails with; all others are what they were.
    fn failures(&self, fs: &Kvfs) -> Vec<FsError> {
        let numbered = self.files.iter().zip(0..);
        numbered.filter_map(|(ino, number)| self.look(fs, number, *ino).err()).collect()
    }
}

fn write_file(fs: &Kvfs, text: &str) -> Result<(), FsError> {
    let made = fs.create_node(Ino::ROOT, &name(text), &node(FileKind::Regular))?;
    fs.write(made.ino, 0, text.as_bytes())?;
    fs.fsync()
}

fn run(archive: &dyn Persisted, fs: &Kvfs, is_repair: bool) -> (FsckReport, Vec<Finding>) {
    let mut findings = Vec::new();
    let found = &mut |finding: Finding| findings.push(finding);
    let stop = AtomicBool::new(false);
    let report = if is_repair {
        fs.repair(archive, found, &stop).unwrap()
    } else {
        fs.fsck(archive, found, &stop).unwrap()
    };
    (report, findings)
}

/// Whether a check names an inode, by itself or in a range.
fn is_named(findings: &[Finding], ino: Ino) -> bool {
    findings.iter().any(|finding| {
        let is_in_range = if let Problem::TableUnreadable { from, until, .. } = finding.problem {
            from <= ino && until.is_none_or(|until| ino < until)
        } else {
            false
        };
        finding.ino == Some(ino) || is_in_range
    })
}

const TABLES: [&str; 9] =
    ["inodes", "entries", "cookies", "links", "xattrs", "map", "chunks", "resident", "log"];

#[test]
fn a_damaged_block_costs_what_it_holds_and_no_more() {
    for table in TABLES {
        let tree = Tree::new();
        tree.damage(table);
        let fs = open(&tree.dir);
        let failures = tree.failures(&fs);
        assert!(failures.len() < tree.files.len() / 2, "{table}: {}", failures.len());
        for error in &failures {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{table}: {error:?}");
            let text = with_causes(error);
            assert!(text.contains(".sst") && text.contains(table.trim_end_matches('s')), "{text}");
        }
        // The check goes on to the end and names all that was met.
        let (report, findings) = run(&Nothing, &fs, false);
        assert!(report.n_unreadable > 0, "{table}: {findings:?}");
        for error in &failures {
            let FsError::Unreadable { rows, .. } = error else { panic!("{table}: {error:?}") };
            let ino = rows.ino.expect("these rows are of an inode");
            assert!(is_named(&findings, ino), "{table}: inode {ino} in {findings:?}");
        }
        // Writers go on, whatever would be compacted.
        let fs = tree.writable(fs);
        let new = file(&fs, Ino::ROOT, "new");
        fs.write(new, 0, b"new").unwrap();
        fs.reclaim(&|| false).unwrap();
        fs.write(new, 3, b"er").unwrap();
        fs.fsync().unwrap();
        drop(fs);
        let fs = open(&tree.dir);
        assert_eq!(fs.read(new, 0, 9).unwrap(), b"newer", "{table}");
        // A repair comes to its end, and takes nothing away.
        let (_, findings) = run(&Nothing, &fs, true);
        assert!(!fs.repair_is_unfinished().unwrap(), "{table}");
        let after = tree.failures(&fs);
        assert!(after.len() <= failures.len(), "{table}: {after:?} {findings:?}");
        assert!(after.iter().all(|error| error.kind() == ErrorKind::Damaged), "{after:?}");
    }
}

#[test]
fn the_names_of_inodes_that_cannot_be_read_are_listed() {
    let tree = Tree::new();
    tree.damage("inodes");
    let fs = open(&tree.dir);
    let listed = fs.readdir(tree.home, 0, usize::MAX).unwrap();
    assert_eq!(listed.len(), tree.files.len() + 2);
    let unreadable: HashSet<_> =
        listed.iter().filter(|entry| entry.attr.is_none()).map(|entry| entry.ino).collect();
    assert_eq!(unreadable.len(), tree.failures(&fs).len());
    let (_, findings) = run(&Nothing, &fs, false);
    for ino in unreadable {
        let is_it = |finding: &Finding| {
            finding.ino == Some(ino) && finding.problem.name() == "attributes-unreadable"
        };
        assert!(findings.iter().any(is_it), "inode {ino}: {findings:?}");
    }
}

#[test]
fn chunks_that_cannot_be_read_come_from_the_archive_if_it_has_them() {
    let tree = Tree::new();
    tree.damage("chunks");
    let fs = open(&tree.dir);
    let unreadable: Vec<_> = tree.failures(&fs).iter().map(row_of).collect();
    assert!(!unreadable.is_empty());
    let fs = tree.writable(fs);
    // Nowhere: they are named, and stay where they are.
    let (report, findings) = run(&Nothing, &fs, true);
    for ino in &unreadable {
        let is_it = |finding: &Finding| {
            finding.ino == Some(*ino) && finding.problem.name() == "chunks-unreadable"
        };
        assert!(findings.iter().any(|f| is_it(f) && !f.repaired), "inode {ino}: {findings:?}");
    }
    assert!(report.n_findings > 0);
    assert_eq!(tree.failures(&fs).len(), unreadable.len(), "an error, never zeros");
    // In the archive: they are evicted data from then on, and everything else is what it was.
    let (_, findings) = run(&Everything, &fs, true);
    assert!(findings.iter().any(|finding| finding.repaired), "{findings:?}");
    let after = tree.failures(&fs);
    assert_eq!(after.len(), unreadable.len());
    for error in after {
        assert!(matches!(error, FsError::Recall { .. }), "there is no archive: {error:?}");
    }
    for finding in run(&Everything, &fs, false).1 {
        assert_ne!(finding.problem.name(), "chunks-unreadable", "{finding:?}");
    }
}

#[test]
fn what_lies_in_a_damaged_block_can_be_replaced_cut_evicted_and_removed() {
    let tree = Tree::new();
    tree.damage("chunks");
    let fs = open(&tree.dir);
    let unreadable: Vec<_> = tree.failures(&fs).iter().map(row_of).collect();
    assert!(unreadable.len() >= 4, "{unreadable:?}");
    let fs = tree.writable(fs);
    for (turn, ino) in unreadable.iter().enumerate() {
        match turn % 4 {
            0 => {
                fs.write(*ino, 0, &[turn.to_le_bytes()[0]; 700]).unwrap();
                assert_eq!(fs.read(*ino, 0, 999).unwrap(), [turn.to_le_bytes()[0]; 700]);
            }
            1 => {
                fs.truncate(*ino, 0).unwrap();
                fs.truncate(*ino, 700).unwrap();
                assert_eq!(fs.read(*ino, 0, 999).unwrap(), [0; 700]);
            }
            2 => {
                for extent in fs.resident_of(*ino, ChunkNo::new(0), 9).unwrap() {
                    fs.evict_extent(&extent).unwrap();
                }
                assert_eq!(fs.resident_bytes(*ino).unwrap(), 0);
            }
            _ => {
                let number = tree.files.iter().zip(0..).find(|(file, _)| *file == ino).unwrap().1;
                fs.unlink(tree.home, &name(&file_name(number))).unwrap();
                while fs.reap(100).unwrap() {}
                assert!(matches!(fs.getattr(*ino), Err(FsError::NotFound)));
            }
        }
    }
    for finding in run(&Everything, &fs, false).1 {
        assert!(finding.ino.is_none_or(|ino| !unreadable.contains(&ino)), "{finding:?}");
    }
}

#[test]
fn a_store_is_not_compacted_while_a_block_is_damaged_that_no_inode_leads_to() {
    let (dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "large");
    for number in 0..200 {
        fs.write(ino, number * 2048, &content(number)[..300]).unwrap();
    }
    fs.fsync().unwrap();
    drop(fs);
    drop(open(&dir));
    let tree = Tree { dir, home: Ino::ROOT, files: vec![ino] };
    tree.damage("chunks");
    let fs = open(&tree.dir);
    assert!((0..200).any(|number| fs.read(ino, number * 2048, 300).is_err()));
    let mark = tree.dir.path().join("kvs/compaction-is-off");
    assert!(mark.exists());
    // What was cut is read by nothing, and its rows are in the damaged block all the same.
    fs.truncate(ino, 0).unwrap();
    run(&Nothing, &fs, true);
    assert!(mark.exists());
}

#[test]
fn a_damaged_block_of_the_dying_does_not_end_a_check() {
    let (dir, fs) = create();
    for number in 0..60 {
        let ino = file(&fs, Ino::ROOT, &file_name(number));
        for part in 0..70 {
            fs.write(ino, part * 1024, &[7; 10]).unwrap();
        }
        fs.unlink(Ino::ROOT, &name(&file_name(number))).unwrap();
    }
    fs.fsync().unwrap();
    drop(fs);
    drop(open(&dir));
    let tree = Tree { dir, home: Ino::ROOT, files: Vec::new() };
    // In the only block of its rows.
    tree.damage_at("dying", |_| 100);
    let fs = open(&tree.dir);
    let (report, findings) = run(&Nothing, &fs, false);
    assert!(report.n_unreadable > 0, "{findings:?}");
    assert!(findings.iter().any(|finding| finding.problem.to_string().contains("dying")));
}

fn row_of(error: &FsError) -> Ino {
    let FsError::Unreadable { rows, .. } = error else { panic!("{error:?}") };
    rows.ino.unwrap()
}

#[test]
fn a_log_that_cannot_be_read_is_not_published_and_everything_else_goes_on() {
    let tree = Tree::new();
    tree.damage("log");
    let fs = open(&tree.dir);
    let error = fs.publish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(with_causes(&error).contains("table log"), "{}", with_causes(&error));
    assert!(tree.failures(&fs).is_empty());
}

#[test]
fn a_compaction_that_meets_damage_stops_no_writer_for_ever() {
    let tree = Tree::new();
    tree.damage("chunks");
    let fs = open(&tree.dir);
    // Nothing was read before: the compaction is the first that meets it.
    drop(fs.reclaim(&|| false));
    if let Err(error) = write_file(&fs, "first") {
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    }
    drop(fs);
    let fs = open(&tree.dir);
    for number in 0..10 {
        write_file(&fs, &format!("new-{number}")).unwrap();
        fs.reclaim(&|| false).unwrap();
    }
}

#[test]
fn a_store_that_is_whole_again_is_compacted_again() {
    let tree = Tree::new();
    let path = tree.file_of("chunks");
    let whole = fs::read(&path).unwrap();
    tree.damage("chunks");
    let fs = open(&tree.dir);
    assert!(!tree.failures(&fs).is_empty());
    drop(fs);
    let mark = tree.dir.path().join("kvs/compaction-is-off");
    assert!(mark.exists());
    let fs = open(&tree.dir);
    run(&Nothing, &fs, true);
    assert!(mark.exists(), "it is still damaged");
    drop(fs);
    fs::write(path, whole).unwrap();
    let fs = open(&tree.dir);
    assert_eq!(run(&Nothing, &fs, false).0.n_findings, 0);
    assert!(mark.exists(), "a check changes nothing");
    run(&Nothing, &fs, true);
    assert!(!mark.exists());
    fs.reclaim(&|| false).unwrap();
    assert!(tree.failures(&fs).is_empty());
}
