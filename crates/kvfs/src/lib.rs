//! A POSIX filesystem on RocksDB, made to be tiered.
//!
//! [`Kvfs`] keeps inodes, names, chunk maps, chunks and an operation log in one key-value store.
//! Every operation and its log record go into one atomic batch, transaction ids are consecutive
//! and in commit order, and [`fsync`](Kvfs::fsync) shares one sync of the write-ahead log among
//! all who wait.
//!
//! It implements the two ports of a tiered filesystem, [`LogService`](tier_types::LogService) and
//! [`MountedInstance`](tier_types::MountedInstance), and is given a
//! [`Recall`](tier_types::Recall) for what was evicted. It knows no tarball, no index and no
//! agent.

#[path = "ops/acl.rs"]
mod acl;
mod bulk;
#[path = "tx/map_window.rs"]
mod chunk_map;
#[path = "tx/committer/mod.rs"]
mod commit;
#[path = "tx/counters.rs"]
mod counters;
#[path = "store/db.rs"]
mod db;
#[path = "activity.rs"]
mod demand;
#[path = "ops/dir.rs"]
mod dir;
#[path = "store/dump.rs"]
mod dump;
mod error;
#[path = "tier/evict.rs"]
mod evict;
#[path = "ops/change.rs"]
mod file;
#[path = "core.rs"]
mod fs;
#[path = "check/mod.rs"]
mod fsck;
mod fuse;
#[path = "ops/create.rs"]
mod inode;
#[path = "tx/locks.rs"]
mod locks;
#[path = "check/apply/mod.rs"]
mod mend;
#[path = "store/patch.rs"]
mod patch;
#[path = "tier/publications.rs"]
mod publish;
#[path = "ops/unlink.rs"]
mod remove;
#[path = "ops/rename.rs"]
mod rename;
#[path = "check/repair.rs"]
mod repair;
#[path = "tier/restore.rs"]
mod restore;
#[path = "store/keys.rs"]
mod schema;
#[path = "tier/snapshot.rs"]
mod snapshot;
#[path = "ops/ranges.rs"]
mod space;
#[path = "store/rows.rs"]
mod value;
#[path = "store/reader/mod.rs"]
mod view;
#[path = "ops/xattr.rs"]
mod xattr;

pub use bulk::NewFile;
pub use dir::DirEntry;
pub use error::FsError;
pub use file::Patience;
pub use fs::{Kvfs, KvfsOptions, OpenHandle, ResidencyListener, StatFs};
pub use fsck::{Finding, FsckReport};
pub use fuse::{Mount, MountOptions};
pub use inode::{NewNode, SetAttr};
pub use rename::RenameMode;
pub use space::Heat;
pub use xattr::XattrMode;

/// Decoders of untrusted bytes, for the fuzz targets: there only in a build for fuzzing.
#[cfg(fuzzing)]
pub mod fuzzing {
    use tier_types::Ino;

    /// A key and the value of any table.
    pub fn pair(key: &[u8], value: &[u8]) {
        drop(crate::value::attr_from_bytes(Ino::new(1), value));
        let _ = crate::value::entry_from_bytes(value);
        let _ = crate::value::run_from_bytes(value);
        let _ = crate::value::counters_from_bytes(value).is_some();
        let _ = crate::schema::parse_pair(key);
        drop(crate::acl::Acl::from_bytes(value));
        drop(crate::view::parse_link(Ino::new(1), key));
        let _ = crate::view::parse_run(Ino::new(1), key, value).is_ok();
    }
}
