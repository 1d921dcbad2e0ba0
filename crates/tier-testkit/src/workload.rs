//! Workloads: random operations of a filesystem, and of tiering meanwhile.
//!
//! Names are few, so that operations meet on the same files, and most operations are writes and
//! cuts at random offsets. A fixed share is tiering: snapshots, evictions, recalls, a process that
//! ends, and a crash in the middle of a snapshot. A failing workload shrinks to a short one.

use proptest::prelude::*;

/// A name out of few, so that operations meet: in the root, or in one of its directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    dir: Option<usize>,
    base: usize,
}

const DIRS: [&str; 2] = ["d0", "d1"];
const BASES: [&str; 6] = ["d0", "d1", "a", "b", "c", "e"];

impl Name {
    /// The directory in the root; `None` for the root itself.
    pub fn dir(self) -> Option<&'static str> {
        self.dir.map(|dir| DIRS[dir])
    }

    /// The name in the directory.
    pub fn base(self) -> &'static str {
        BASES[self.base]
    }
}

/// An operation of a filesystem.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "they are what POSIX calls them")]
pub enum FsOp {
    Create(Name),
    Mkdir(Name),
    Symlink(Name, u8),
    Link(Name, Name),
    Unlink(Name),
    Rmdir(Name),
    Rename(Name, Name),
    Exchange(Name, Name),
    Write { name: Name, offset: usize, len: usize, byte: u8 },
    Truncate { name: Name, size: usize },
    Punch { name: Name, offset: usize, len: usize },
    Chmod(Name, u16),
    SetXattr(Name, u8),
}

/// What tiering does meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TierOp {
    /// A snapshot is taken and made safe.
    Snapshot,
    /// Everything that is safe is evicted.
    Evict,
    /// A file is recalled, if there is one.
    Recall(Name),
    /// The process ends and the store is opened again.
    Reopen,
    /// The snapshot's store fails from its n-th operation on, and the process ends.
    CrashInSnapshot(u64),
}

/// One of both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WorkloadOp {
    /// Of the filesystem.
    Fs(FsOp),
    /// Of tiering.
    Tier(TierOp),
}

fn name() -> impl Strategy<Value = Name> {
    (prop::option::weighted(0.4, 0..DIRS.len()), 0..BASES.len())
        .prop_map(|(dir, base)| Name { dir, base })
}

/// Up to `n_max` operations on files of up to about `bytes_max` bytes.
pub fn workload(n_max: usize, bytes_max: usize) -> impl Strategy<Value = Vec<WorkloadOp>> {
    let fs = prop_oneof![
        4 => name().prop_map(FsOp::Create),
        1 => (0..DIRS.len()).prop_map(|base| FsOp::Mkdir(Name { dir: None, base })),
        1 => (name(), any::<u8>()).prop_map(|(name, byte)| FsOp::Symlink(name, byte.max(1))),
        1 => (name(), name()).prop_map(|(from, to)| FsOp::Link(from, to)),
        2 => name().prop_map(FsOp::Unlink),
        1 => name().prop_map(FsOp::Rmdir),
        2 => (name(), name()).prop_map(|(from, to)| FsOp::Rename(from, to)),
        1 => (name(), name()).prop_map(|(a, b)| FsOp::Exchange(a, b)),
        8 => (name(), 0..bytes_max, 1..bytes_max / 2, any::<u8>())
            .prop_map(|(name, offset, len, byte)| FsOp::Write { name, offset, len, byte }),
        3 => (name(), 0..bytes_max).prop_map(|(name, size)| FsOp::Truncate { name, size }),
        3 => (name(), 0..bytes_max, 1..bytes_max)
            .prop_map(|(name, offset, len)| FsOp::Punch { name, offset, len }),
        1 => (name(), 0..0o1000_u16).prop_map(|(name, mode)| FsOp::Chmod(name, mode)),
        1 => (name(), any::<u8>()).prop_map(|(name, byte)| FsOp::SetXattr(name, byte)),
    ];
    let tier = prop_oneof![
        3 => Just(TierOp::Snapshot),
        3 => Just(TierOp::Evict),
        2 => name().prop_map(TierOp::Recall),
        1 => Just(TierOp::Reopen),
        1 => (0..12_u64).prop_map(TierOp::CrashInSnapshot),
    ];
    let op = prop_oneof![5 => fs.prop_map(WorkloadOp::Fs), 1 => tier.prop_map(WorkloadOp::Tier)];
    prop::collection::vec(op, 1..n_max)
}
