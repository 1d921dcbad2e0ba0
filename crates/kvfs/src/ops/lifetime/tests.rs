//! Lifetimes against a model: an inode is there as long as a name, a handle or the kernel refers to
//! it, and is gone when the reaper has been there after that.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tier_types::{FileKind, Ino, to_u64};

use super::OpenHandle;
use crate::ops::{EntryRef, ListingPlaces, RenameMode};
use crate::testing::{evict, filesystem, name, node};
use crate::{FsError, Kvfs};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Copy, Debug)]
enum Op {
    Create { name: usize, is_dir: bool },
    CreateOpen(usize),
    LookUp(usize),
    List,
    Forget { ino: usize, n: u64 },
    ForgetAll,
    Open(usize),
    Close(usize),
    Link { ino: usize, name: usize },
    Rename { from: usize, to: usize },
    Remove(usize),
    Evict(usize),
    Reap,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    let ino = 0..20_usize;
    prop_oneof![
        4 => (name.clone(), any::<bool>()).prop_map(|(name, is_dir)| Op::Create { name, is_dir }),
        2 => name.clone().prop_map(Op::CreateOpen),
        4 => name.clone().prop_map(Op::LookUp),
        2 => Just(Op::List),
        4 => (ino.clone(), 1..3_u64).prop_map(|(ino, n)| Op::Forget { ino, n }),
        1 => Just(Op::ForgetAll),
        3 => ino.clone().prop_map(Op::Open),
        3 => ino.clone().prop_map(Op::Close),
        2 => (ino.clone(), name.clone()).prop_map(|(ino, name)| Op::Link { ino, name }),
        3 => (name.clone(), name.clone()).prop_map(|(from, to)| Op::Rename { from, to }),
        5 => name.prop_map(Op::Remove),
        2 => ino.prop_map(Op::Evict),
        2 => Just(Op::Reap),
    ]
}

/// What should refer to an inode.
#[derive(Default)]
struct Model {
    is_dir: bool,
    n_lookups: u64,
    handles: Vec<OpenHandle>,
}

struct World<'a> {
    fs: &'a Kvfs,
    names: BTreeMap<usize, Ino>,
    inodes: BTreeMap<Ino, Model>,
}

impl World<'_> {
    fn n_names(&self, ino: Ino) -> usize {
        self.names.values().filter(|named| **named == ino).count()
    }

    fn is_alive(&self, ino: Ino) -> bool {
        let model = &self.inodes[&ino];
        self.n_names(ino) > 0 || model.n_lookups > 0 || !model.handles.is_empty()
    }

    /// One of the inodes that ever were.
    fn pick(&self, number: usize) -> Option<Ino> {
        let n = self.inodes.len();
        self.inodes.keys().nth(number % n.max(1)).copied()
    }

    fn made(&mut self, at: usize, ino: Ino, is_dir: bool) -> &mut Model {
        self.names.insert(at, ino);
        let model = Model { is_dir, n_lookups: 1, handles: Vec::new() };
        self.inodes.entry(ino).or_insert(model)
    }

    fn apply(&mut self, op: Op) {
        let fs = self.fs;
        match op {
            Op::Create { name: at, is_dir } => {
                let kind = if is_dir { FileKind::Directory } else { FileKind::Regular };
                let made = fs.create_known(Ino::ROOT, &name(NAMES[at]), &node(kind));
                assert_eq!(made.is_ok(), !self.names.contains_key(&at));
                if let Ok(attr) = made {
                    self.made(at, attr.ino, is_dir);
                }
            }
            Op::CreateOpen(at) => {
                let node = node(FileKind::Regular);
                if let Ok((attr, handle)) = fs.create_open(Ino::ROOT, &name(NAMES[at]), &node) {
                    fs.write(attr.ino, 0, &[7; 1000]).unwrap();
                    self.made(at, attr.ino, false).handles.push(handle);
                }
            }
            Op::LookUp(at) => match fs.look_up_known(Ino::ROOT, &name(NAMES[at])) {
                Ok(attr) => {
                    assert_eq!(self.names.get(&at), Some(&attr.ino));
                    self.known(attr.ino);
                }
                Err(error) => {
                    assert!(matches!(error, FsError::NotFound), "{error}");
                    assert!(!self.names.contains_key(&at));
                }
            },
            Op::List => {
                let entries = fs
                    .readdir_known(Ino::ROOT, ListingPlaces { after: 0, end: u64::MAX }, 99)
                    .unwrap();
                assert_eq!(entries.len(), 2 + self.names.len());
                entries.iter().skip(2).for_each(|entry| self.known(entry.ino));
            }
            Op::Forget { ino, n } => {
                let Some(ino) = self.pick(ino) else { return };
                fs.forget(ino, n);
                let model = self.inodes.get_mut(&ino).unwrap();
                model.n_lookups = model.n_lookups.saturating_sub(n);
            }
            Op::ForgetAll => {
                fs.forget_all();
                self.inodes.values_mut().for_each(|model| model.n_lookups = 0);
            }
            Op::Open(ino) => {
                let Some(ino) = self.pick(ino) else { return };
                match fs.open_handle(ino) {
                    Ok(handle) => self.inodes.get_mut(&ino).unwrap().handles.push(handle),
                    Err(error) => assert!(!self.is_alive(ino), "{error}"),
                }
            }
            Op::Close(ino) => {
                let Some(ino) = self.pick(ino) else { return };
                drop(self.inodes.get_mut(&ino).unwrap().handles.pop());
            }
            Op::Link { .. } | Op::Rename { .. } | Op::Remove(_) => self.apply_to_names(op),
            Op::Evict(ino) => {
                let Some(ino) = self.pick(ino) else { return };
                if self.is_alive(ino) && !self.inodes[&ino].is_dir {
                    evict(fs, ino);
                }
            }
            Op::Reap => while fs.reap(100).unwrap() {},
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller has the others")]
    fn apply_to_names(&mut self, op: Op) {
        let fs = self.fs;
        match op {
            Op::Link { ino, name: at } => {
                let Some(ino) = self.pick(ino) else { return };
                if fs.link_known(ino, Ino::ROOT, &name(NAMES[at])).is_ok() {
                    self.names.insert(at, ino);
                    self.known(ino);
                }
            }
            Op::Rename { from, to } => {
                let (old, new) = (name(NAMES[from]), name(NAMES[to]));
                let [old, new] = [&old, &new].map(|name| EntryRef::new(Ino::ROOT, name));
                let same = self.names.get(&from) == self.names.get(&to);
                if fs.rename(old, new, RenameMode::Replace).is_ok() && !same {
                    let moved = self.names.remove(&from).unwrap();
                    self.names.insert(to, moved);
                }
            }
            Op::Remove(at) => {
                let Some(ino) = self.names.remove(&at) else { return };
                if self.inodes[&ino].is_dir {
                    fs.rmdir(Ino::ROOT, &name(NAMES[at])).unwrap();
                } else {
                    fs.unlink(Ino::ROOT, &name(NAMES[at])).unwrap();
                }
            }
            _ => unreachable!("it changes no name of what is there"),
        }
    }

    fn known(&mut self, ino: Ino) {
        self.inodes.get_mut(&ino).unwrap().n_lookups += 1;
    }

    fn check(&self) {
        for ino in self.inodes.keys().filter(|ino| self.is_alive(**ino)) {
            let attr = self.fs.getattr(*ino).unwrap();
            let n_names = u32::try_from(self.n_names(*ino)).unwrap();
            let of_dir = if n_names > 0 { 2 } else { 0 };
            assert_eq!(attr.nlink, if self.inodes[ino].is_dir { of_dir } else { n_names }, "{ino}");
        }
    }

    /// What nothing refers to is gone.
    fn check_end(&self) {
        while self.fs.reap(100).unwrap() {}
        for ino in self.inodes.keys() {
            let found = self.fs.getattr(*ino);
            assert_eq!(found.is_ok(), self.is_alive(*ino), "{ino}: {found:?}");
        }
    }
}

#[test]
fn an_inode_lives_as_long_as_something_refers_to_it() {
    let mut runner = TestRunner::new(Config { cases: 100, ..Config::default() });
    let ops = prop::collection::vec(op(), 1..120);
    runner
        .run(&ops, |ops| {
            let (_dir, fs) = filesystem();
            let mut world = World { fs: &fs, names: BTreeMap::new(), inodes: BTreeMap::new() };
            for op in ops {
                world.apply(op);
                world.check();
            }
            world.check_end();
            world.apply(Op::ForgetAll);
            world.inodes.values_mut().for_each(|model| model.handles.clear());
            world.check_end();
            let n_orphans = fs.db.reader().listed_orphans(Ino::default(), 99).unwrap().len();
            assert_eq!(n_orphans, 0);
            let n_alive = world.inodes.keys().filter(|ino| world.is_alive(**ino)).count();
            assert_eq!(fs.statfs().unwrap().n_inodes, 1 + to_u64(n_alive));
            Ok(())
        })
        .unwrap();
}
