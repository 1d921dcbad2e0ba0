//! Questions about one inode, for tests: the port's are about many.

use tier_types::{
    ChunkNo, ChunkPlace, EvictOutcome, EvictionFacts, Ino, MountedInstance, PortError,
    ResidentExtent,
};

/// What a filesystem is asked about one inode, and told to do with one extent.
pub trait OneByOne: MountedInstance {
    /// The resident extents of an inode from a chunk on, `n_max` at most.
    fn resident_of(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ResidentExtent>, PortError> {
        only(self.resident_extents(&[ChunkPlace { ino, chunk: from }], n_max))
    }

    /// The facts of an inode.
    fn facts_of(&self, ino: Ino) -> Result<Option<EvictionFacts>, PortError> {
        only(self.eviction_facts(&[ino]))
    }

    /// Evicts an extent.
    fn evict_extent(&self, extent: &ResidentExtent) -> Result<EvictOutcome, PortError> {
        only(self.evict_extents(std::slice::from_ref(extent)))
    }
}

impl<I: MountedInstance + ?Sized> OneByOne for I {}

fn only<T>(mut answers: Vec<Result<T, PortError>>) -> Result<T, PortError> {
    assert_eq!(answers.len(), 1, "one question has one answer");
    answers.pop().unwrap()
}
