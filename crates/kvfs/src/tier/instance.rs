//! The live filesystem as a port.

use std::sync::Arc;

use tier_types::{
    ChunkNo, ChunkRun, EvictOutcome, EvictionFacts, Ino, InodeState, MountedInstance,
    MountedSnapshot, PortError, Publication, Reclaimed, ResidentExtent, Usage,
};

use crate::core::Core;
use crate::space::Purpose;

impl MountedInstance for Core {
    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        Ok(Arc::new(self.snapshot_at(publication)?))
    }

    fn evict_extent(&self, extent: &ResidentExtent) -> Result<EvictOutcome, PortError> {
        Ok(self.evict(extent)?)
    }

    fn reclaim(&self, is_stopped: &dyn Fn() -> bool) -> Result<Reclaimed, PortError> {
        Ok(self.reclaim_now(is_stopped)?)
    }

    fn resident_extents(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ResidentExtent>, PortError> {
        Ok(self.resident(ino, from, n_max)?)
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        Ok(self.reader().listed_warm(after, n_max)?)
    }

    fn inodes_after(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        Ok(self.db.reader().listed_inodes(after, n_max)?)
    }

    fn eviction_facts(&self, ino: Ino) -> Result<Option<EvictionFacts>, PortError> {
        Ok(self.facts(ino)?)
    }

    fn restore_inode(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        self.put_back(inode, runs)
    }

    fn check_room(&self, bytes: u64) -> Result<(), PortError> {
        drop(self.admit(Purpose::Archive, bytes)?);
        self.room.archive_writes(bytes);
        Ok(())
    }

    fn expect_room(&self, is_expected: bool) {
        self.room.expect(is_expected);
    }

    fn usage(&self) -> Result<Usage, PortError> {
        let counters = self.committer.counters();
        Ok(Usage {
            physical_bytes: self.db.physical_bytes()?,
            n_inodes: counters.n_inodes(),
            resident_bytes: counters.resident_bytes(),
            cold_bytes: counters.cold_bytes(),
            lost_bytes: counters.lost_bytes(),
            space: self.room.usage()?,
            backlog: self.backlog(),
        })
    }
}
