//! Catching up: an index that is behind its archive, brought up to it.
//!
//! It is behind after a crash between a manifest and the index, and after a crash that took what
//! was applied and not yet flushed. The index says which manifest was the last that it has all of.
//! If that one is on the chain, what comes after it is applied. If it is not, the manifests are not
//! those that the index was made from: one is lost from this store, or it is another history. Then
//! nothing may be applied and, above all, no tarball be taken for a leftover.

use tier_index::Index;

use crate::derive::apply::ScanMode;
use crate::error::PersistError;
use crate::progress::Watch;
use crate::read::chain::{Archive, ChainLink};

impl Archive<'_> {
    /// Brings an index up to the newest snapshot: applies the manifests after the last one that it
    /// knows. An index of another history is an error.
    pub fn catch_up(&self, index: &Index) -> Result<(), PersistError> {
        // The writer is held from the look at what is applied to the end: no commit comes between.
        let mut writer = index.writer();
        let first = match index.applied()? {
            None => 0,
            Some(applied) => {
                // By digest: a manifest of the same number may be of another history.
                let is_known = |link: &ChainLink| {
                    link.reference.digest == applied.manifest_digest
                        && link.reference.snapshot == applied.snapshot
                };
                let position = self.links().iter().position(is_known);
                let object = format!("the manifest of snapshot {}", applied.snapshot);
                let problem =
                    "the index includes it, and it is not here; copy it back from the cloud";
                position.ok_or_else(|| PersistError::damaged(object, problem))? + 1
            }
        };
        let n_behind = self.links().len() - first;
        if n_behind > 0 {
            tracing::info!(n_behind, "bringing the index up to the manifests");
        }
        let watch = &mut Watch::default();
        self.apply_from(first, &mut writer, ScanMode::Tables, watch).map(drop)
    }
}
