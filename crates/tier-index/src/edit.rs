//! The pure part of the merge: what new contents make of one inode's extents, by transaction id.
//!
//! An [`ExtentMap`] holds disjoint extents. Adding one compares it with each extent that it meets:
//! where the new one ranks higher the old one is cut back to what sticks out, and where the old one
//! ranks higher the new one is. A chunk that both claim therefore ends with the higher rank, and
//! since a rank is never the same for two different states, in whatever order they are added.

use std::collections::BTreeMap;

use tier_types::{ChunkNo, ChunkRange};

use crate::Extent;
use crate::location::without;

/// The extents of one inode as far as an edit concerns them, disjoint, by first chunk.
#[derive(Debug, Default)]
pub(crate) struct ExtentMap(BTreeMap<ChunkNo, Extent>);

impl ExtentMap {
    /// Adds an extent that is known already, and overlaps with no other one.
    pub(crate) fn load(&mut self, extent: Extent) {
        debug_assert!(self.overlapping(extent.chunks).is_empty(), "known extents are disjoint");
        self.0.insert(extent.chunks.start(), extent);
    }

    /// Adds what a tarball says: it wins where its rank is higher.
    pub(crate) fn add(&mut self, new: Extent, chunk_bytes: u32) {
        let mut kept = Vec::new();
        for old in self.overlapping(new.chunks) {
            // Of equal ranks the old one stays, so that contents that come twice change no count.
            if old.rank() < new.rank() {
                self.0.remove(&old.chunks.start());
                for rest in without(old.chunks, &[new.chunks]) {
                    self.insert_part(&old, rest, chunk_bytes);
                }
            } else {
                kept.push(old.chunks);
            }
        }
        // `overlapping` goes in order, so that `kept` is sorted and disjoint.
        for rest in without(new.chunks, &kept) {
            self.insert_part(&new, rest, chunk_bytes);
        }
    }

    /// The extent that starts at this chunk.
    pub(crate) fn starting_at(&self, first: ChunkNo) -> Option<&Extent> {
        self.0.get(&first)
    }

    pub(crate) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.0.values()
    }

    fn insert_part(&mut self, whole: &Extent, chunks: ChunkRange, chunk_bytes: u32) {
        let part = whole.part(chunks, chunk_bytes);
        assert!(part.is_some_and(|part| part.chunks == chunks), "a part lies in the whole");
        self.0.extend(part.map(|part| (chunks.start(), part)));
    }

    /// In order.
    fn overlapping(&self, chunks: ChunkRange) -> Vec<Extent> {
        // Extents are disjoint: of those that start earlier only the last one can reach so far.
        let before = self.0.range(..chunks.start()).next_back();
        let within = self.0.range(chunks.start()..chunks.end());
        let all = before.into_iter().chain(within).map(|(_, extent)| *extent);
        all.filter(|extent| extent.chunks.intersection(chunks).is_some()).collect()
    }
}
