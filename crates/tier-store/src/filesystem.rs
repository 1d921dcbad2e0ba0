//! The filesystem that a store tiers, as far as the store knows it: its two ports.

use std::sync::Arc;

use tier_types::{LogService, MountedInstance};

/// What a filesystem gives to its store.
#[derive(Clone)]
pub struct Filesystem {
    /// Its operation log.
    pub log: Arc<dyn LogService>,
    /// Its live state.
    pub instance: Arc<dyn MountedInstance>,
    /// Bytes of a chunk, which must be what the store's settings say.
    pub chunk_bytes: u32,
}

impl std::fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filesystem").field("chunk_bytes", &self.chunk_bytes).finish_non_exhaustive()
    }
}
