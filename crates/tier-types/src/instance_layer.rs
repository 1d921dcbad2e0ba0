//! Filesystems over another filesystem.

use std::sync::Arc;

use crate::{
    ChunkPlace, ChunkRun, EvictOutcome, EvictionFacts, Ino, InodeState, InstanceView,
    MountedInstance, MountedSnapshot, PortError, Publication, Reclaimed, ResidentExtent, Usage,
};

/// A filesystem that passes its calls on to another one. What it does differently it overrides: so
/// a test has one that fails where it wants, and a program one that counts.
#[expect(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "the methods of `InstanceView` and `MountedInstance`"
)]
pub trait InstanceLayer: Send + Sync {
    /// The other one.
    fn inner(&self) -> &dyn MountedInstance;

    fn resident_extents(
        &self,
        from: &[ChunkPlace],
        n_max: usize,
    ) -> Vec<Result<Vec<ResidentExtent>, PortError>> {
        self.inner().resident_extents(from, n_max)
    }

    fn eviction_facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, PortError>> {
        self.inner().eviction_facts(inodes)
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        self.inner().warm_inodes(after, n_max)
    }

    fn inodes_after(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        self.inner().inodes_after(after, n_max)
    }

    fn usage(&self) -> Result<Usage, PortError> {
        self.inner().usage()
    }

    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        self.inner().open_snapshot(publication)
    }

    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, PortError>> {
        self.inner().evict_extents(extents)
    }

    fn reclaim(&self, is_stopped: &dyn Fn() -> bool) -> Result<Reclaimed, PortError> {
        self.inner().reclaim(is_stopped)
    }

    fn restore_inode(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        self.inner().restore_inode(inode, runs)
    }

    fn expect_room(&self, is_expected: bool) {
        self.inner().expect_room(is_expected);
    }

    fn check_room(&self, bytes: u64) -> Result<(), PortError> {
        self.inner().check_room(bytes)
    }
}

impl<L: InstanceLayer> InstanceView for L {
    fn resident_extents(
        &self,
        from: &[ChunkPlace],
        n_max: usize,
    ) -> Vec<Result<Vec<ResidentExtent>, PortError>> {
        InstanceLayer::resident_extents(self, from, n_max)
    }

    fn eviction_facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, PortError>> {
        InstanceLayer::eviction_facts(self, inodes)
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        InstanceLayer::warm_inodes(self, after, n_max)
    }

    fn inodes_after(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        InstanceLayer::inodes_after(self, after, n_max)
    }

    fn usage(&self) -> Result<Usage, PortError> {
        InstanceLayer::usage(self)
    }
}

impl<L: InstanceLayer> MountedInstance for L {
    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        InstanceLayer::open_snapshot(self, publication)
    }

    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, PortError>> {
        InstanceLayer::evict_extents(self, extents)
    }

    fn reclaim(&self, is_stopped: &dyn Fn() -> bool) -> Result<Reclaimed, PortError> {
        InstanceLayer::reclaim(self, is_stopped)
    }

    fn restore_inode(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        InstanceLayer::restore_inode(self, inode, runs)
    }

    fn expect_room(&self, is_expected: bool) {
        InstanceLayer::expect_room(self, is_expected);
    }

    fn check_room(&self, bytes: u64) -> Result<(), PortError> {
        InstanceLayer::check_room(self, bytes)
    }
}
