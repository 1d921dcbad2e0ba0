//! The index of an archive: from (inode, chunk) to a location in a tarball.
//!
//! An [`Index`] is a function of the committed tarballs. Its only input is [`Contents`], one part
//! of a tarball's table of contents, whether that was just written, replayed after a crash, or
//! found by scanning: every question is settled by transaction id, so that the order of
//! application does not matter (`docs/formats/index.md`).
//!
//! Contents go in through the one [`IndexWriter`], which can also put a whole new index in the
//! place of one that is being read.
//!
//! All of it can be read and taken in again as [`InodeRecord`]s. [`Index::dump`] writes a canonical
//! text form, and [`Index::persisted_until`] answers the [`Persisted`](tier_types::Persisted) port.
//!
//! This crate knows no tarball's bytes, no manifest's fields and no object store.

mod contents;
mod database;
mod delta;
mod dump;
mod edit;
mod error;
mod index;
mod key;
mod location;
mod lose;
mod merge;
mod options;
mod persisted;
mod record;
mod rows;
mod tables;
mod wire;
mod writer;

pub use contents::{Contents, Entry};
pub use error::IndexError;
pub use index::Index;
pub use location::{Extent, ExtentContent, InodeLocation, Location, StoredData, TarballId};
pub use options::IndexOptions;
pub use persisted::PersistedUntil;
pub use record::{InodeRange, InodeRecord};
pub use rows::Applied;
pub use writer::IndexWriter;

/// Decoders of untrusted bytes, for the fuzz targets: there only in a build for fuzzing.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// A key and the value of any table.
    pub fn pair(key: &[u8], value: &[u8]) {
        if let Some((ino, last)) = crate::key::parse_extent(key) {
            let _ = crate::wire::extent_from_bytes(ino, last, value);
        }
        let _ = (crate::key::parse_inode(key), crate::key::parse_tarball(key));
        let _ = (
            crate::wire::inode_from_bytes(tier_types::Ino::new(1), value),
            crate::wire::applied_from_bytes(value),
        );
        drop(crate::wire::tarball_from_bytes(value));
    }
}
