//! Stores of immutable objects, behind the port [`ObjectStore`](tier_types::ObjectStore).
//!
//! [`DirStore`] keeps objects as files below a directory. It serves as the local store of tarballs,
//! which are written piece by piece ([`StagingStore`](tier_types::StagingStore)), and as a cloud on
//! a mounted disk. [`RemoteStore`] keeps them in a bucket of S3 and what speaks it, of Google Cloud
//! Storage, or of Azure. [`ObjectCache`] bounds the local store: what the cloud has as well is
//! dropped when its room is wanted.
//!
//! This crate knows objects and byte ranges. It knows no frame, no tarball and no manifest, and
//! decides nothing about what is stored or when.

mod cache;
mod conflict;
mod dir;
mod remote;

pub use cache::ObjectCache;
pub use dir::DirStore;
pub use remote::{RateLimits, RemoteStore, RemoteUrl, RequestCounts};
