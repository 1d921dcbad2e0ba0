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

mod age_stream;
mod archive;
mod compress;
mod error;
mod fetcher;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keys;
mod manifest;
mod names;
mod object;
mod persister;
mod pipeline;
mod plan;
mod planner;
mod rebuild;
mod restore;
mod seekable;
mod tarball;
mod verify;
mod watch;

pub use archive::{Archive, SnapshotSummary, StoredObject};
pub use error::PersistError;
pub use fetcher::{Fetcher, FetcherOptions};
pub use keys::Keys;
pub use names::FilesystemId;
pub use persister::{PersistOptions, PersistReport, PersistRequest, Persister};
pub use rebuild::{ScanMode, rebuild_without_manifests};
pub use tarball::{list_members, write_tar};
pub use verify::{Damage, VerifyReport, check_object};
pub use watch::Watch;
