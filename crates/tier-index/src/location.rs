//! Places in tarballs.

use std::fmt;

use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

/// Which tarball. The order is that of writing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TarballId {
    /// The writer's reign.
    pub epoch: Epoch,
    /// The snapshot that it belongs to.
    pub snapshot: SnapshotId,
    /// Its number within the snapshot, from 0.
    pub part: u32,
}

impl fmt::Display for TarballId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.epoch, self.snapshot, self.part)
    }
}

/// A byte in a tarball, found by decompressing one frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Which tarball.
    pub tarball: TarballId,
    /// Which of its frames, from 0.
    pub frame: u32,
    /// Where in the decompressed frame, in bytes.
    pub offset: u32,
}

/// The newest known state of a run of chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Which inode.
    pub ino: Ino,
    /// Which chunks.
    pub chunks: ChunkRange,
    /// The transaction that wrote or unmapped them.
    pub data_xid: Xid,
    /// Where the data starts; `None` for a hole.
    pub place: Option<Place>,
    /// Bytes by which the last chunk is short of a whole one, because the file ended there.
    pub short_bytes: u32,
}

impl Extent {
    /// What orders two states of one chunk: the later transaction, and for copies of the same data
    /// the later tarball.
    pub(crate) fn rank(&self) -> (Xid, Option<Place>) {
        (self.data_xid, self.place)
    }

    /// The part of the extent that lies in `chunks`.
    pub(crate) fn part(&self, chunks: ChunkRange, chunk_bytes: u32) -> Option<Self> {
        let chunks = self.chunks.intersection(chunks)?;
        let short_bytes = if chunks.end() == self.chunks.end() { self.short_bytes } else { 0 };
        let skipped = chunks.start().get() - self.chunks.start().get();
        let place = match self.place {
            None => None,
            Some(place) => {
                let skipped_bytes = u32::try_from(skipped).ok()?.checked_mul(chunk_bytes)?;
                Some(Place { offset: place.offset.checked_add(skipped_bytes)?, ..place })
            }
        };
        Some(Self { chunks, place, short_bytes, ..*self })
    }

    /// Both as one, if `next` just goes on where this one ends.
    pub(crate) fn joined(&self, next: &Self, chunk_bytes: u32) -> Option<Self> {
        let chunks = ChunkRange::new(self.chunks.start(), next.chunks.end())?;
        let whole = Self { chunks, short_bytes: next.short_bytes, ..*self };
        let adjacent = self.ino == next.ino
            && self.chunks.end() == next.chunks.start()
            && self.short_bytes == 0;
        (adjacent && whole.part(next.chunks, chunk_bytes) == Some(*next)).then_some(whole)
    }

    /// Bytes of data in the tarball; zero for a hole.
    pub fn data_bytes(&self, chunk_bytes: u32) -> u64 {
        let whole = self.chunks.len().saturating_mul(u64::from(chunk_bytes));
        if self.place.is_some() { whole.saturating_sub(u64::from(self.short_bytes)) } else { 0 }
    }

    /// Chunks that this extent keeps alive in its tarball.
    pub(crate) fn live_chunks(&self) -> u64 {
        if self.place.is_some() { self.chunks.len() } else { 0 }
    }
}

/// The newest known state of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InodePlace {
    /// Its newest metadata.
    At {
        /// Metadata xid.
        xid: Xid,
        /// The member's header.
        place: Place,
    },
    /// It is gone for good.
    Gone {
        /// The transaction that ended it.
        xid: Xid,
    },
}

impl InodePlace {
    pub(crate) fn rank(&self) -> (Xid, Option<Place>) {
        match self {
            Self::At { xid, place } => (*xid, Some(*place)),
            Self::Gone { xid } => (*xid, None),
        }
    }
}

/// Cuts out of `from` what `others` (sorted, disjoint) cover.
pub(crate) fn without(from: ChunkRange, others: &[ChunkRange]) -> Vec<ChunkRange> {
    let mut left = Vec::new();
    let mut at: ChunkNo = from.start();
    for other in others.iter().filter_map(|other| other.intersection(from)) {
        left.extend(ChunkRange::new(at, other.start()));
        at = other.end();
    }
    left.extend(ChunkRange::new(at, from.end()));
    left
}
