//! Locations in tarballs, and what an index knows of chunks and inodes.
//!
//! A location is a tarball, a frame of it and a byte offset in the decompressed frame: one ranged
//! read and one decompression away. Two states of the same chunk, or of the same inode, are compared
//! by their *rank*: the transaction first, the location second. The transaction decides what is
//! newer. The location decides only between two copies of the same data, so that every order of
//! application ends with the same copy.

use std::fmt;

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
    /// Where the data starts; `None` for a hole.
    pub location: Option<Location>,
    /// Bytes by which the last chunk is short of a whole one, because the file ended there.
    pub short_bytes: u32,
}

impl Extent {
    /// What orders two states of one chunk: the later transaction, and for copies of the same data
    /// the later tarball.
    pub(crate) fn rank(&self) -> (Xid, Option<Location>) {
        // `None` ranks lowest: of data and a hole of one transaction the data stays.
        (self.data_xid, self.location)
    }

    /// Whether every chunk of it can have a location. An extent from outside is checked once, before
    /// anything is computed from it.
    pub(crate) fn is_possible(&self, chunk_bytes: u32) -> bool {
        // A hole may be as long as the address space.
        let Some(location) = self.location else { return true };
        // A range has at least one chunk.
        let before_last = (self.chunks.len() - 1).checked_mul(u64::from(chunk_bytes));
        let last = before_last.and_then(|bytes| bytes.checked_add(u64::from(location.offset)));
        // The last chunk must start at an offset of 32 bits, and then each one before it does:
        // `advanced` relies on it.
        last.is_some_and(|last| u32::try_from(last).is_ok()) && self.short_bytes <= chunk_bytes
    }

    /// The part of a [possible](Self::is_possible) extent that lies in `chunks`.
    pub(crate) fn part(&self, chunks: ChunkRange, chunk_bytes: u32) -> Option<Self> {
        let chunks = self.chunks.intersection(chunks)?;
        // Only the last chunk may be short, and a part without it has whole ones.
        let short_bytes = if chunks.end() == self.chunks.end() { self.short_bytes } else { 0 };
        let skipped = chunks.start().get() - self.chunks.start().get();
        let location = self.location.map(|location| Location {
            offset: advanced(location.offset, skipped, chunk_bytes),
            ..location
        });
        Some(Self { chunks, location, short_bytes, ..*self })
    }

    /// Both as one, if `next` just goes on where this one ends.
    pub(crate) fn joined(&self, next: &Self, chunk_bytes: u32) -> Option<Self> {
        // Behind a short chunk an extent cannot go on: offsets are counted in whole chunks.
        let adjacent = self.ino == next.ino
            && self.chunks.end() == next.chunks.start()
            && self.data_xid == next.data_xid
            && self.short_bytes == 0;
        // Data must also lie together in one frame, because one frame is what a recall reads.
        let follows = match (self.location, next.location) {
            (None, None) => true,
            (Some(location), Some(next)) => {
                let bytes = self.chunks.len().saturating_mul(u64::from(chunk_bytes));
                let end = u64::from(location.offset).saturating_add(bytes);
                (location.tarball, location.frame) == (next.tarball, next.frame)
                    && end == u64::from(next.offset)
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !adjacent || !follows {
            return None;
        }
        let chunks = ChunkRange::new(self.chunks.start(), next.chunks.end())?;
        Some(Self { chunks, short_bytes: next.short_bytes, ..*self })
    }

    /// Bytes of data in the tarball; zero for a hole.
    pub fn data_bytes(&self, chunk_bytes: u32) -> u64 {
        let whole = self.chunks.len().saturating_mul(u64::from(chunk_bytes));
        if self.location.is_some() { whole.saturating_sub(u64::from(self.short_bytes)) } else { 0 }
    }

    /// Chunks that this extent keeps alive in its tarball.
    pub(crate) fn live_chunks(&self) -> u64 {
        if self.location.is_some() { self.chunks.len() } else { 0 }
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
        let location = Some(Location { tarball, frame: 4, offset });
        let (ino, data_xid) = (Ino::new(5), Xid::new(6));
        Extent { ino, chunks: range(start, end), data_xid, location, short_bytes: 0 }
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
            let whole = Extent { short_bytes, ..data(10, 20, 100) };
            let first = whole.part(range(0, 10 + cut), CHUNK_BYTES).unwrap();
            let second = whole.part(range(10 + cut, 99), CHUNK_BYTES).unwrap();
            prop_assert_eq!(first.short_bytes, 0);
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
        let hole = Extent { location: None, ..data(2, 3, 32) };
        assert_eq!(first.joined(&hole, CHUNK_BYTES), None, "data and a hole");
        let short = Extent { short_bytes: 1, ..first };
        assert_eq!(short.joined(&data(2, 3, 32), CHUNK_BYTES), None, "the file ended there");
    }

    #[test]
    fn an_extent_beyond_its_frame_is_not_possible() {
        assert!(data(0, 10, 0).is_possible(CHUNK_BYTES));
        assert!(!data(0, 2, u32::MAX).is_possible(CHUNK_BYTES));
        assert!(!data(0, u64::MAX, 0).is_possible(CHUNK_BYTES));
        assert!(!Extent { short_bytes: 17, ..data(0, 1, 0) }.is_possible(CHUNK_BYTES));
        assert!(Extent { location: None, ..data(0, u64::MAX, 0) }.is_possible(CHUNK_BYTES));
    }

    #[test]
    fn the_transaction_comes_before_the_location() {
        let (old, new) = (data(0, 1, 99), Extent { data_xid: Xid::new(7), ..data(0, 1, 1) });
        assert!(old.rank() < new.rank());
        assert!(data(0, 1, 1).rank() < data(0, 1, 2).rank(), "two copies of the same data");
        let (xid, location) = (Xid::new(5), new.location.unwrap());
        let gone = InodeLocation::Gone { xid: Xid::new(6) };
        assert!(InodeLocation::At { xid, location }.rank() < gone.rank());
    }
}
