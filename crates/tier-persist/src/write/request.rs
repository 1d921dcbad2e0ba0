//! What a persister is asked for, and what it answers.
//!
//! A request names a state of the filesystem and what changed in it, and where it stands in the
//! history: its number, its transactions, and the parts of the same snapshot that are committed
//! already. Nothing in it is of the log but
//! segments as bytes.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use tier_status::StatusSink;
use tier_types::{Epoch, FileUpdate, Ino, MountedSnapshot, PortError, SnapshotId, Xid, XidRange};

use crate::format::claim::WriterToken;
use crate::lost::LostRanges;
use crate::read::link::StoredObject;

/// What to persist.
pub struct PersistRequest<'a> {
    /// The writer's epoch: its term over the archive.
    pub epoch: Epoch,
    /// The store that writes.
    pub writer: WriterToken,
    /// The number of the snapshot to be.
    pub snapshot: SnapshotId,
    /// Its transactions, with those of its earlier parts.
    pub range: XidRange,
    /// What its earlier parts hold, if there are any.
    pub part: Option<PartsSoFar>,
    /// Inodes that the last snapshot could not read in full. Those that a part does not come to are
    /// left to the next one.
    pub failed_before: &'a [Ino],
    /// Inodes that were looked at to find out which changed; zero if the log said it.
    pub n_looked_at: u64,
    /// The filesystem's state after the last of them.
    pub mounted: &'a dyn MountedSnapshot,
    /// What changed, in order of inodes.
    pub updates: &'a mut dyn Iterator<Item = Result<FileUpdate, PortError>>,
    /// The log segments of its own transactions, which go into the archive as they are.
    pub segments: &'a mut dyn Iterator<Item = Result<OpenSegment, PortError>>,
    /// How large parts and tarballs may be: room may be short.
    pub bounds: PartBounds,
    /// Is told of each tarball when it is durable, long before the snapshot is committed: it may be
    /// uploaded meanwhile. Called on the thread that all tarballs pass, which it must not hold up.
    pub on_sealed: &'a (dyn Fn(&StoredObject) + Sync),
    /// Where events and progress go.
    pub status: &'a dyn StatusSink,
    /// When this becomes true the work stops, with nothing committed.
    pub stop: &'a AtomicBool,
}

/// How much of a snapshot is written at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartBounds {
    /// No part has much more file data than this.
    pub part_bytes: u64,
    /// No tarball is much longer than this. Where that is shorter than the persister's own limit,
    /// each is made durable before the next one is begun.
    pub tarball_bytes: u64,
}

impl PartBounds {
    /// None but those of the persister.
    pub const NONE: Self = Self { part_bytes: u64::MAX, tarball_bytes: u64::MAX };
}

/// A log segment, whose bytes are nothing but bytes to the persister.
pub struct OpenSegment {
    /// Its transactions.
    pub range: XidRange,
    /// What to call it in a message.
    pub name: PathBuf,
    /// Its bytes.
    pub bytes: Box<dyn Read + Send>,
}

impl std::fmt::Debug for OpenSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSegment").field("range", &self.range).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PersistRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersistRequest")
            .field("snapshot", &self.snapshot)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// The parts of a long snapshot that are committed already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartsSoFar {
    /// They hold the inodes up to this one.
    pub covered: Ino,
    /// As of this transaction.
    pub last_xid: Xid,
}

/// A new epoch of an archive that has a history already.
pub struct EpochBegin<'a> {
    /// The epoch.
    pub epoch: Epoch,
    /// The store that has it.
    pub writer: WriterToken,
    /// The number of the step.
    pub snapshot: SnapshotId,
    /// The last transaction of the history that it continues.
    pub last_xid: Xid,
    /// How far its parts have got, if its last snapshot is not complete.
    pub covered: Option<Ino>,
    /// Inodes that the last snapshot could not read in full.
    pub failed: &'a [Ino],
    /// Where events go.
    pub status: &'a dyn StatusSink,
}

impl std::fmt::Debug for EpochBegin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpochBegin").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What was persisted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PersistReport {
    /// Inodes.
    pub n_inodes: u64,
    /// File data before compression, in bytes.
    pub data_bytes: u64,
    /// Tarballs.
    pub n_tarballs: u64,
    /// Their length in bytes.
    pub tarball_bytes: u64,
    /// Inodes that could not be read in full, for another reason than damage of their data. The
    /// next snapshot tries again; until then they are in the archive with lost ranges, or, if not
    /// even their chunk map could be read, as the last snapshot had them.
    pub failed: Vec<Ino>,
    /// Those of them of which nothing can be read, because the filesystem is damaged there.
    pub unreadable: Vec<Ino>,
    /// The last inode that it holds, if it is a part of a snapshot and there are more.
    pub covered: Option<Ino>,
    /// Data that is damaged or missing, and in no earlier snapshot: lost ranges from now on, until
    /// the file has new content there.
    pub lost: LostRanges,
    /// Data that is damaged or missing, and in an earlier snapshot.
    pub unread: LostRanges,
}
