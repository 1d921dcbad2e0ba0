//! From what changed to tarballs, and back.
//!
//! A [`Persister`] writes the final state of each changed inode, read from a mounted snapshot, into
//! compressed, encrypted, seekable tarballs (`docs/formats/tarball.md`), commits them with a
//! manifest (`docs/formats/manifest.md`) and brings the index up to it. A [`Fetcher`] finds data by
//! inode, chunk and transaction, with one ranged read of one frame. [`Archive`] is the set of all
//! committed snapshots in a store: it lists, verifies, and regenerates the index, from tables of
//! contents or by scanning everything.
//!
//! [`Keys`] hold the identity that opens what was written.
//!
//! This crate knows no log: no log entry enters or leaves it. It decides nothing about when.

mod derive;
mod error;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod progress;
mod read;
mod write;

pub use derive::rebuild::{ScanMode, rebuild_without_manifests};
pub use derive::verify::{Damage, VerifyReport, check_object};
pub use error::PersistError;
pub use format::keys::Keys;
pub use format::names::FilesystemId;
pub use progress::Watch;
pub use read::chain::{Archive, SnapshotSummary, StoredObject};
pub use read::fetcher::{Fetcher, FetcherOptions};
pub use read::listing::{list_members, write_tar};
pub use write::persister::{PersistOptions, PersistReport, PersistRequest, Persister};
