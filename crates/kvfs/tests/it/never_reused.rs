//! The property over all losses: whatever file of a closed store is lost, cut or put back, an
//! opening finds everything that was synced, or says that something is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvfs::{Core, FsError, Kvfs, NoArchive};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use tier_testkit::VirtualClock;
use tier_types::{ErrorKind, HasKind, Ino, LogReader, LogService, Xid};

use crate::common::{create, file, name, options};
use crate::fsck::check;
use crate::loss::copy_tree;

/// What is done to a store before it is damaged.
#[derive(Clone, Copy, Debug)]
enum Op {
    Create,
    Write,
    Sync,
    Publish,
    /// Retires what ends in the first so many percent of all transactions.
    Retire(u64),
    Reclaim,
    /// Closes it, keeps a copy, and opens it again.
    Save,
}

/// What happens to a closed store. Numbers choose a file or a copy.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Remove(usize),
    /// Only this share of a hundred stays.
    Truncate(usize, usize),
    /// A file of an earlier moment comes back, over a later one or anew.
    PutBack {
        file: usize,
        copy: usize,
    },
    /// The whole key-value store of an earlier moment comes back.
    PutBackStore(usize),
    Nothing,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Create),
        3 => Just(Op::Write),
        2 => Just(Op::Sync),
        2 => Just(Op::Publish),
        1 => (0..100_u64).prop_map(Op::Retire),
        1 => Just(Op::Reclaim),
        2 => Just(Op::Save),
    ]
}

fn harm() -> impl Strategy<Value = Harm> {
    let (file, copy) = (0..1000_usize, 0..100_usize);
    prop_oneof![
        3 => file.clone().prop_map(Harm::Remove),
        3 => (file.clone(), 0..100_usize).prop_map(|(file, share)| Harm::Truncate(file, share)),
        4 => (file, copy.clone()).prop_map(|(file, copy)| Harm::PutBack { file, copy }),
        2 => copy.prop_map(Harm::PutBackStore),
        1 => Just(Harm::Nothing),
    ]
}

/// A store in use, and what was promised.
struct Subject {
    dir: TempDir,
    fs: Option<Arc<Kvfs>>,
    copies: Vec<TempDir>,
    /// The last transaction of which a sync has returned.
    synced: Xid,
    n_files: usize,
    /// The files of which a sync has returned.
    n_synced: usize,
}

impl Subject {
    fn new() -> Self {
        let (dir, fs) = create();
        let synced = fs.last_xid();
        Self { dir, fs: Some(fs), copies: Vec::new(), synced, n_files: 0, n_synced: 0 }
    }

    fn apply(&mut self, op: Op) {
        let fs = self.fs.as_ref().unwrap();
        match op {
            Op::Create => {
                self.n_files += 1;
                file(fs, Ino::ROOT, &self.n_files.to_string());
            }
            Op::Write => {
                let last = self.n_files.to_string();
                if let Ok(attr) = fs.lookup(Ino::ROOT, &name(&last)) {
                    fs.write(attr.ino, 100, &[7; 3000]).unwrap();
                }
            }
            Op::Sync => {
                fs.fsync().unwrap();
                self.promise();
            }
            Op::Publish => {
                if let Some(publication) = fs.publish().unwrap() {
                    fs.release(&publication).unwrap();
                    self.promise();
                }
            }
            Op::Retire(percent) => {
                let xid = Xid::new(fs.last_xid().get() * percent / 100);
                fs.retire_segments(xid).unwrap();
            }
            Op::Reclaim => {
                tier_types::MountedInstance::reclaim(fs.core().as_ref(), &|| false).unwrap();
                self.promise();
            }
            Op::Save => {
                self.fs = None;
                let copy = tempfile::tempdir().unwrap();
                copy_tree(self.dir.path(), copy.path());
                self.copies.push(copy);
                self.fs = Some(open(self.dir.path()).expect("nothing was harmed"));
            }
        }
    }

    /// Everything so far is durable.
    fn promise(&mut self) {
        (self.synced, self.n_synced) = (self.fs.as_ref().unwrap().last_xid(), self.n_files);
    }

    fn close_and_harm(&mut self, harm: Harm) {
        self.fs = None;
        let root = self.dir.path();
        match harm {
            Harm::Remove(file) => fs::remove_file(chosen(&files(root), file)).unwrap(),
            Harm::Truncate(file, share) => {
                let path = chosen(&files(root), file).clone();
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() * share / 100]).unwrap();
            }
            Harm::PutBack { file, copy } if !self.copies.is_empty() => {
                let from = chosen(&self.copies, copy).path();
                let path = chosen(&files(from), file).clone();
                fs::copy(&path, root.join(path.strip_prefix(from).unwrap())).unwrap();
            }
            Harm::PutBackStore(copy) if !self.copies.is_empty() => {
                let from = chosen(&self.copies, copy).path();
                fs::remove_dir_all(root.join("kvs")).unwrap();
                copy_tree(&from.join("kvs"), &root.join("kvs"));
            }
            Harm::Nothing | Harm::PutBack { .. } | Harm::PutBackStore(_) => {}
        }
    }
}

fn open(root: &Path) -> Result<Arc<Kvfs>, FsError> {
    let core = Core::open(root, &options(), Arc::new(VirtualClock::at(0)))?;
    Ok(Arc::new(Kvfs::new(Arc::new(core), Arc::new(NoArchive))))
}

fn chosen<T>(of: &[T], number: usize) -> &T {
    &of[number % of.len()]
}

/// All files of a store, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = vec![root.join("witness")];
    for directory in ["kvs", "segments"] {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.exists());
    files.sort();
    files
}

fn holds(ops: &[Op], harm: Harm) -> Result<(), TestCaseError> {
    let mut subject = Subject::new();
    for op in ops {
        subject.apply(*op);
    }
    subject.close_and_harm(harm);
    match open(subject.dir.path()) {
        Ok(fs) => {
            let last = fs.last_xid();
            prop_assert!(last >= subject.synced, "{last} of {} transactions", subject.synced);
            for number in 1..=subject.n_synced {
                let found = fs.lookup(Ino::ROOT, &name(&number.to_string()));
                prop_assert!(found.is_ok(), "file {}: {:?}", number, found);
            }
            prop_assert_eq!(check(&fs).1, Vec::<String>::new());
            let made = file(&fs, Ino::ROOT, "made after it");
            prop_assert_eq!(made.get(), last.get() + 1);
        }
        // RocksDB refuses what it cannot open.
        Err(FsError::Store { .. }) => {}
        Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error),
    }
    Ok(())
}

#[test]
fn no_number_is_ever_given_out_twice() {
    let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
    let cases = (prop::collection::vec(op(), 1..15), harm());
    runner.run(&cases, |(ops, harm)| holds(&ops, harm)).unwrap();
}
