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
//!
//! Its modules are layers, from the bottom up: the formats (bytes to values and back), reading
//! (objects to values), deriving (an archive to an index, a filesystem, a verdict), and writing (a
//! snapshot to an archive and its index). A layer uses those below it, and errors, damage, lost
//! ranges and progress are for all of them.

mod damage;
mod error;
mod lost;
mod progress;
mod sync;

mod format;

mod read;

mod derive;

mod write;

#[cfg(fuzzing)]
pub mod fuzzing;

pub use damage::Damage;
pub use derive::apply::ScanMode;
pub use derive::catch_up::NextStep;
pub use derive::doubt::{ArchivedSegment, ReadLog};
pub use derive::rebuild::rebuild_without_manifests;
pub use derive::restore::RestoredInodes;
pub use derive::salvage::Salvaged;
pub use derive::verify::{VerifyReport, check_object, check_sample};
pub use error::PersistError;
pub use format::claim::{Claim, WriterToken};
pub use format::digest::ContentDigest;
pub use format::keys::Keys;
pub use format::names::FilesystemId;
pub use format::signer::Signer;
pub use lost::{LostRange, LostRanges};
pub use progress::Watch;
pub use read::chain::{Archive, Head, Heads, UnreadManifest};
pub use read::checked_content::CheckedContent;
pub use read::claims::{AfterEpoch, Claims, Fenced};
pub use read::fetcher::{Fetcher, FetcherOptions, FrameId, Located};
pub use read::history::History;
pub use read::link::{SnapshotSummary, StepKind, StoredObject};
pub use read::listing::{list_members, write_tar};
pub use read::objects::{
    DataObject, SnapshotObjects, each_data_object, is_known_kind, tarball_of, tarballs_in,
};
pub use read::recall_plan::{PlannedExtent, PlannedTarball, RecallPlan};
pub use write::checkpoint::{CheckpointReport, CheckpointRequest};
pub use write::options::PersistOptions;
pub use write::persister::Persister;
pub use write::request::{
    EpochBegin, OpenSegment, PartBounds, PartsSoFar, PersistReport, PersistRequest,
};
