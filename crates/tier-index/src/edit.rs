//! What new contents make of one inode's extents: pure, by transaction id.

use std::collections::BTreeMap;

use tier_types::{ChunkNo, ChunkRange};

use crate::Extent;
use crate::location::without;

/// The extents of one inode as far as an edit concerns them, disjoint, by first chunk.
#[derive(Debug, Default)]
pub(crate) struct ExtentMap(BTreeMap<ChunkNo, Extent>);

impl ExtentMap {
    /// Adds an extent that is known to be there already.
    pub(crate) fn load(&mut self, extent: Extent) {
        self.0.insert(extent.chunks.start(), extent);
    }

    /// Adds what a tarball says: it wins where its rank is higher.
    pub(crate) fn add(&mut self, new: Extent, chunk_bytes: u32) {
        let met = self.overlapping(new.chunks);
        let (lost, kept): (Vec<Extent>, Vec<Extent>) =
            met.into_iter().partition(|old| old.rank() < new.rank());
        for old in lost {
            self.0.remove(&old.chunks.start());
            for rest in without(old.chunks, &[new.chunks]) {
                self.insert_part(&old, rest, chunk_bytes);
            }
        }
        let kept: Vec<_> = kept.iter().map(|old| old.chunks).collect();
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
        if let Some(part) = whole.part(chunks, chunk_bytes) {
            self.0.insert(chunks.start(), part);
        }
    }

    fn overlapping(&self, chunks: ChunkRange) -> Vec<Extent> {
        let before = self.0.range(..chunks.start()).next_back();
        let within = self.0.range(chunks.start()..chunks.end());
        let all = before.into_iter().chain(within).map(|(_, extent)| *extent);
        all.filter(|extent| extent.chunks.intersection(chunks).is_some()).collect()
    }
}
