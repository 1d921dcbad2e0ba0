//! A POSIX filesystem on RocksDB, made to be tiered.
//!
//! [`Core`] is the storage: it keeps inodes, names, chunk maps, chunks and an operation log in one
//! key-value store. Every operation and its log record go into one atomic batch, transaction ids
//! are consecutive and in commit order, and [`fsync`](Core::fsync) shares one sync of the
//! write-ahead log among all callers that wait. It implements the two ports of a tiered filesystem,
//! [`LogService`](tier_types::LogService) and [`MountedInstance`](tier_types::MountedInstance).
//!
//! [`Kvfs`] is the filesystem: a core, and the [`Recall`](tier_types::Recall) by which evicted data
//! comes back. What may need evicted data is an operation of it. [`Mount`] serves it to the kernel.
//!
//! Deleting and cutting files costs the same whatever their size: what is left of them goes in the
//! background, while a [`Reaper`] runs.
//!
//! What operations take and answer is in [`ops`], what is wrong with a store in [`check`].
//!
//! The crate knows no tarball, no index and no agent.

mod error;
mod loss;
mod options;
mod sync;

mod store;

mod access_times;
mod activity;
mod admission;
mod space;

mod tx;

mod core;
mod freed;
mod reaping;
mod references;
mod unsynced;

pub mod ops;

mod reaper;
mod tier;

pub mod check;

mod fuse;

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod testing;

pub use core::{Core, Kvfs, ResidencyListener};
pub use error::{Damage, FsError, UnreadableRows};
pub use fuse::{Mount, MountOptions};
pub use loss::Loss;
pub use options::KvfsOptions;
pub use reaper::Reaper;
pub use space::{StatFs, UsedElsewhere};
pub use store::TableStatistics;
pub use tier::{Heat, NoArchive};
