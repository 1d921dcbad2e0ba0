//! What the committer's leader knows of extents: what was freed, and what is durable.

use crate::store::extents::{Committing, Place};

/// What the leader knows of extents.
#[derive(Debug)]
pub(super) struct ExtentState {
    /// The generation of what is freed now.
    pub(super) generation: u64,
    /// Bytes that were freed in it.
    pub(super) freed_bytes: u64,
    /// Where the last extent ends that is not known to be durable.
    pub(super) unsynced: Option<Place>,
    /// Bytes that were committed since a sync began.
    pub(super) unsynced_bytes: u64,
    /// Extents before this place are durable or free, and the store does not say so yet.
    pub(super) floor: Option<Place>,
}

impl ExtentState {
    /// Nothing is freed yet in the generation behind the last one.
    pub(super) fn new(last_generation: Option<u64>) -> Self {
        let generation = last_generation.map_or(0, |last| last + 1);
        Self { generation, freed_bytes: 0, unsynced: None, unsynced_bytes: 0, floor: None }
    }

    /// A sync covered everything before a place.
    pub(super) fn synced(&mut self, floor: Place) {
        if self.unsynced.is_some() {
            self.floor = Some(floor);
        }
        self.unsynced = self.unsynced.filter(|end| floor < *end);
    }

    pub(super) fn committed(&mut self, committing: Vec<Committing>, freed_bytes: u64) {
        self.freed_bytes += freed_bytes;
        self.unsynced_bytes += committing.iter().map(Committing::bytes).sum::<u64>();
        let ends = committing.into_iter().map(Committing::commit);
        self.unsynced = ends.chain(self.unsynced).max();
    }
}
