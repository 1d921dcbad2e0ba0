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

mod acl;
mod bulk;
mod chunk_map;
mod commit;
mod counters;
mod db;
mod demand;
mod dir;
mod dump;
mod error;
mod evict;
mod file;
mod fs;
mod fsck;
mod fuse;
mod inode;
mod locks;
mod mend;
mod patch;
mod publish;
mod remove;
mod rename;
mod repair;
mod restore;
mod schema;
mod snapshot;
mod space;
mod value;
mod view;
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
