//! Locations in tarballs, and what an index knows of chunks and inodes.
//!
//! A location is a tarball, a frame of it and a byte offset in the decompressed frame: one ranged
//! read and one decompression away. Two states of the same chunk, or of the same inode, are
//! compared by their *rank*: the transaction first, the location second. The transaction decides
//! what is newer. The location decides only between two copies of the same data, so that every
//! order of application ends with the same copy. Of one transaction data ranks above a lost range,
//! wherever the two come from: one copy that could be read is enough.

use std::fmt;
use std::ops::RangeInclusive;

use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

/// Which tarball. The order is that of writing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TarballId {
    /// The writer's term.
    pub epoch: Epoch,
    /// The snapshot that it belongs to.
    pub snapshot: SnapshotId,
    /// Its number within the snapshot, from 0.
    pub part: u32,
}

impl TarballId {
    /// All that a snapshot may have.
    pub fn of_snapshot(epoch: Epoch, snapshot: SnapshotId) -> RangeInclusive<Self> {
        let part = |part| Self { epoch, snapshot, part };
        part(0)..=part(u32::MAX)
    }
}

impl fmt::Display for TarballId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.epoch, self.snapshot, self.part)
    }
}

/// A byte in a tarball, found by decompressing one frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Location {
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
    /// The inode.
    pub ino: Ino,
    /// The chunks.
    pub chunks: ChunkRange,
    /// The transaction that wrote or unmapped them.
    pub data_xid: Xid,
    /// What the archive has of them.
    pub content: ExtentContent,
}

/// What the archive has of a run of chunks. The order is that in which states of one transaction
/// give way to each other: data stays, whatever else is said of it, and of two copies the later
/// one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ExtentContent {
    /// They were unmapped: zeros.
    Hole,
    /// They could not be read when they were persisted: an error to readers, never zeros.
    Lost,
    /// Their data.
    Data(StoredData),
}

/// Data of some chunks in a tarball.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StoredData {
    /// Where the data of the first chunk starts.
    pub location: Location,
    /// Bytes by which the last chunk is short of a whole one, because the file ended there.
    pub short_bytes: u32,
}

impl Extent {
    /// What orders two states of one chunk: the later transaction, then what is there of it.
    pub(crate) fn rank(&self) -> (Xid, ExtentContent) {
        (self.data_xid, self.content)
    }

    /// The data in the archive; `None` for a hole and for what is lost.
    pub fn data(&self) -> Option<StoredData> {
        match self.content {
            ExtentContent::Data(data) => Some(data),
            ExtentContent::Hole | ExtentContent::Lost => None,
        }
    }

    /// The tarball in which the data lies.
    pub fn tarball(&self) -> Option<TarballId> {
        self.data().map(|data| data.location.tarball)
    }

    /// Whether every chunk of it can have a location. An extent from outside is checked once,
    /// before anything is computed from it.
    pub(crate) fn is_possible(&self, chunk_bytes: u32) -> bool {
        // What has no location may be as long as the address space.
        let Some(StoredData { location, short_bytes }) = self.data() else { return true };
        // A range has at least one chunk.
        let before_last = (self.chunks.len() - 1).checked_mul(u64::from(chunk_bytes));
        let last = before_last.and_then(|bytes| bytes.checked_add(u64::from(location.offset)));
        // The last chunk must start at an offset of 32 bits, and then each one before it does:
        // `advanced` relies on it.
        last.is_some_and(|last| u32::try_from(last).is_ok()) && short_bytes <= chunk_bytes
    }

    /// The part of a [possible](Self::is_possible) extent that lies in `chunks`.
    pub(crate) fn part(&self, chunks: ChunkRange, chunk_bytes: u32) -> Option<Self> {
        let chunks = self.chunks.intersection(chunks)?;
        let content = match self.content {
            ExtentContent::Hole | ExtentContent::Lost => self.content,
            ExtentContent::Data(StoredData { location, short_bytes }) => {
                let skipped = chunks.start().get() - self.chunks.start().get();
                let offset = advanced(location.offset, skipped, chunk_bytes);
                // Only the last chunk may be short, and a part without it has whole ones.
                let has_last = chunks.end() == self.chunks.end();
                let short_bytes = if has_last { short_bytes } else { 0 };
                let location = Location { offset, ..location };
                ExtentContent::Data(StoredData { location, short_bytes })
            }
        };
        Some(Self { chunks, content, ..*self })
    }

    /// Both as one, if `next` just goes on where this one ends.
    pub(crate) fn joined(&self, next: &Self, chunk_bytes: u32) -> Option<Self> {
        let adjacent = self.ino == next.ino
            && self.chunks.end() == next.chunks.start()
            && self.data_xid == next.data_xid;
        let content = match (self.content, next.content) {
            (ExtentContent::Data(first), ExtentContent::Data(second)) => {
                let bytes = self.chunks.len().saturating_mul(u64::from(chunk_bytes));
                let (at, then) = (first.location, second.location);
                let end = u64::from(at.offset).saturating_add(bytes);
                // Data must lie together in one frame, because one frame is what a recall reads.
                // Behind a short chunk it cannot go on: offsets are counted in whole chunks.
                let follows = (at.tarball, at.frame) == (then.tarball, then.frame)
                    && end == u64::from(then.offset)
                    && first.short_bytes == 0;
                let short_bytes = second.short_bytes;
                follows.then_some(ExtentContent::Data(StoredData { location: at, short_bytes }))
            }
            (one, other) => (one == other).then_some(one),
        }?;
        if !adjacent {
            return None;
        }
        let chunks = ChunkRange::new(self.chunks.start(), next.chunks.end())?;
        Some(Self { chunks, content, ..*self })
    }

    /// Bytes of data in the tarball; zero for a hole and for what is lost.
    pub fn data_bytes(&self, chunk_bytes: u32) -> u64 {
        let whole = self.chunks.len().saturating_mul(u64::from(chunk_bytes));
        self.data().map_or(0, |data| whole.saturating_sub(u64::from(data.short_bytes)))
    }

    /// Chunks that this extent keeps alive in its tarball.
    pub(crate) fn live_chunks(&self) -> u64 {
        if self.data().is_some() { self.chunks.len() } else { 0 }
    }
}

/// An offset in a frame, so many chunks further on.
#[expect(clippy::expect_used, reason = "extents from outside are checked when they come in")]
fn advanced(offset: u32, n_chunks: u64, chunk_bytes: u32) -> u32 {
    let bytes = n_chunks * u64::from(chunk_bytes);
    u32::try_from(u64::from(offset) + bytes).expect("a chunk of a possible extent")
}

/// The newest known state of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InodeLocation {
    /// Its newest metadata.
    At {
        /// Metadata xid.
        xid: Xid,
        /// The member's header.
        location: Location,
    },
    /// It is gone for good.
    Gone {
        /// The transaction that ended it.
        xid: Xid,
    },
}

impl InodeLocation {
    /// The tarball in which the metadata lies.
    pub(crate) fn tarball(self) -> Option<TarballId> {
        match self {
            Self::At { location, .. } => Some(location.tarball),
            Self::Gone { .. } => None,
        }
    }

    pub(crate) fn rank(&self) -> (Xid, Option<Location>) {
        match self {
            Self::At { xid, location } => (*xid, Some(*location)),
            Self::Gone { xid } => (*xid, None),
        }
    }
}

/// Cuts out of `from` what `others` (sorted, disjoint) cover.
pub(crate) fn without(from: ChunkRange, others: &[ChunkRange]) -> Vec<ChunkRange> {
    debug_assert!(others.is_sorted_by(|a, b| a.end() <= b.start()), "sorted and disjoint");
    let mut left = Vec::new();
    let mut at: ChunkNo = from.start();
    for other in others.iter().filter_map(|other| other.intersection(from)) {
        // An empty piece is no range, and so adds nothing.
        left.extend(ChunkRange::new(at, other.start()));
        at = other.end();
    }
    left.extend(ChunkRange::new(at, from.end()));
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK_BYTES: u32 = 16;

    fn range(start: u64, end: u64) -> ChunkRange {
        ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
    }

    fn data(start: u64, end: u64, offset: u32) -> Extent {
        let (epoch, snapshot) = (Epoch::new(1), SnapshotId::new(2));
        let tarball = TarballId { epoch, snapshot, part: 3 };
        let location = Location { tarball, frame: 4, offset };
        let content = ExtentContent::Data(StoredData { location, short_bytes: 0 });
        Extent { ino: Ino::new(5), chunks: range(start, end), data_xid: Xid::new(6), content }
    }

    fn short(extent: Extent, short_bytes: u32) -> Extent {
        let data = StoredData { short_bytes, ..extent.data().unwrap() };
        Extent { content: ExtentContent::Data(data), ..extent }
    }

    proptest! {
        #[test]
        fn what_is_cut_out_is_gone_and_the_rest_stays(
            from in (0..40_u64, 1..30_u64),
            cuts in prop::collection::vec((1..8_u64, 1..8_u64), 0..6),
        ) {
            let (start, len) = from;
            let mut others = Vec::new();
            let mut at = 0;
            for (gap, len) in cuts {
                others.push(range(at + gap, at + gap + len));
                at += gap + len;
            }
            let left = without(range(start, start + len), &others);
            for chunk in (0..100).map(ChunkNo::new) {
                let expected = range(start, start + len).contains(chunk)
                    && !others.iter().any(|other| other.contains(chunk));
                let n_found = left.iter().filter(|range| range.contains(chunk)).count();
                prop_assert_eq!(n_found, usize::from(expected), "chunk {}", chunk);
            }
        }

        #[test]
        fn the_parts_of_an_extent_join_to_it_again(cut in 1..9_u64, short_bytes in 0..16_u32) {
            let whole = short(data(10, 20, 100), short_bytes);
            let first = whole.part(range(0, 10 + cut), CHUNK_BYTES).unwrap();
            let second = whole.part(range(10 + cut, 99), CHUNK_BYTES).unwrap();
            prop_assert_eq!(first.data().unwrap().short_bytes, 0);
            prop_assert_eq!(first.joined(&second, CHUNK_BYTES), Some(whole));
            prop_assert_eq!(second.joined(&first, CHUNK_BYTES), None);
            let bytes = first.data_bytes(CHUNK_BYTES) + second.data_bytes(CHUNK_BYTES);
            prop_assert_eq!(bytes, whole.data_bytes(CHUNK_BYTES));
        }
    }

    #[test]
    fn only_what_follows_is_joined() {
        let first = data(0, 2, 0);
        assert!(first.joined(&data(2, 3, 32), CHUNK_BYTES).is_some());
        assert_eq!(first.joined(&data(2, 3, 33), CHUNK_BYTES), None, "elsewhere in the frame");
        assert_eq!(first.joined(&data(3, 4, 48), CHUNK_BYTES), None, "not adjacent");
        let other = Extent { data_xid: Xid::new(7), ..data(2, 3, 32) };
        assert_eq!(first.joined(&other, CHUNK_BYTES), None, "another version");
        let hole = Extent { content: ExtentContent::Hole, ..data(2, 3, 32) };
        assert_eq!(first.joined(&hole, CHUNK_BYTES), None, "data and a hole");
        let lost = Extent { content: ExtentContent::Lost, ..hole };
        assert_eq!(first.joined(&lost, CHUNK_BYTES), None, "data and a lost range");
        assert_eq!(Extent { chunks: range(0, 2), ..hole }.joined(&lost, CHUNK_BYTES), None);
        let both = Extent { chunks: range(0, 3), ..lost };
        assert_eq!(Extent { chunks: range(0, 2), ..lost }.joined(&lost, CHUNK_BYTES), Some(both));
        let short = short(first, 1);
        assert_eq!(short.joined(&data(2, 3, 32), CHUNK_BYTES), None, "the file ended there");
    }

    #[test]
    fn an_extent_beyond_its_frame_is_not_possible() {
        assert!(data(0, 10, 0).is_possible(CHUNK_BYTES));
        assert!(!data(0, 2, u32::MAX).is_possible(CHUNK_BYTES));
        assert!(!data(0, u64::MAX, 0).is_possible(CHUNK_BYTES));
        assert!(!short(data(0, 1, 0), 17).is_possible(CHUNK_BYTES));
        for content in [ExtentContent::Hole, ExtentContent::Lost] {
            assert!(Extent { content, ..data(0, u64::MAX, 0) }.is_possible(CHUNK_BYTES));
        }
    }

    #[test]
    fn the_transaction_comes_before_the_location() {
        let (old, new) = (data(0, 1, 99), Extent { data_xid: Xid::new(7), ..data(0, 1, 1) });
        assert!(old.rank() < new.rank());
        assert!(data(0, 1, 1).rank() < data(0, 1, 2).rank(), "two copies of the same data");
        let lost = Extent { content: ExtentContent::Lost, ..old };
        assert!(lost.rank() < data(0, 1, 0).rank(), "one copy that can be read is enough");
        assert!(old.rank() < Extent { data_xid: Xid::new(7), ..lost }.rank(), "and no older one");
        let (xid, location) = (Xid::new(5), new.data().unwrap().location);
        let gone = InodeLocation::Gone { xid: Xid::new(6) };
        assert!(InodeLocation::At { xid, location }.rank() < gone.rank());
    }
}
