//! The live filesystem as a port.

use std::sync::Arc;

use tier_types::{
    ChunkPlace, ChunkRun, EvictOutcome, EvictionFacts, Ino, InodeState, InstanceView,
    MountedInstance, MountedSnapshot, PortError, Publication, Reclaimed, ResidentExtent, Usage,
};

use crate::FsError;
use crate::core::Core;
use crate::space::Purpose;
use crate::store::{KvsSnapshot, OrderedTables, StoreReader};

impl Core {
    /// Asks a question about each of many inodes, best in ascending order. It is no use of any of
    /// them, and not foreground activity.
    pub(super) fn read_each<Q, T>(
        &self,
        asked: &[Q],
        mut read: impl FnMut(StoreReader<'_>, &Q) -> Result<T, FsError>,
    ) -> Vec<Result<T, FsError>> {
        match KvsSnapshot::take(&self.db) {
            Ok(snapshot) => {
                let tables = OrderedTables::new(&snapshot);
                asked.iter().map(|question| read(tables.reader(), question)).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }
}

impl InstanceView for Core {
    fn resident_extents(
        &self,
        from: &[ChunkPlace],
        n_max: usize,
    ) -> Vec<Result<Vec<ResidentExtent>, PortError>> {
        self.resident(from, n_max).into_iter().map(|found| Ok(found?)).collect()
    }

    fn eviction_facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, PortError>> {
        self.facts(inodes).into_iter().map(|facts| Ok(facts?)).collect()
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        Ok(self.reader().listed_warm(after, n_max)?)
    }

    fn inodes_after(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        Ok(self.db.reader().listed_inodes(after, n_max)?)
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

impl MountedInstance for Core {
    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        Ok(Arc::new(self.snapshot_at(publication)?))
    }

    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, PortError>> {
        self.evict(extents).into_iter().map(|outcome| Ok(outcome?)).collect()
    }

    fn reclaim(&self, is_stopped: &dyn Fn() -> bool) -> Result<Reclaimed, PortError> {
        Ok(self.reclaim_now(is_stopped)?)
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
}
