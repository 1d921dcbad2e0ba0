//! The port of the live filesystem.

use std::collections::BTreeMap;
use std::sync::Arc;

use tier_types::{
    ChunkNo, ChunkPlace, ChunkRange, ChunkRun, ChunkState, ErrorKind, EvictOutcome, EvictionFacts,
    Ino, InodeState, InstanceView, MountedInstance, MountedSnapshot, PortError, Publication,
    Reclaimed, ResidentExtent, Usage, to_u64,
};

use super::chunk_map::{ChunkMap, RunState};
use super::inode::FakeInode;
use super::snapshot::FakeSnapshot;
use super::{FakeKvs, Inodes};

fn is_resident(run: &ChunkRun) -> bool {
    run.state.is_resident()
}

impl InstanceView for FakeKvs {
    fn resident_extents(
        &self,
        from: &[ChunkPlace],
        n_max: usize,
    ) -> Vec<Result<Vec<ResidentExtent>, PortError>> {
        let inodes = self.shared.inodes.lock();
        let of_place = |&ChunkPlace { ino, chunk }: &ChunkPlace| {
            // One that is gone has none, and neither has what lies behind the last chunk.
            let inode = inodes.get(&ino).zip(ChunkRange::from(chunk));
            let runs = inode.map_or_else(Vec::new, |(inode, rest)| inode.map.runs(rest));
            let extent =
                |run: ChunkRun| ResidentExtent { ino, chunks: run.chunks, data_xid: run.data_xid };
            Ok(runs.into_iter().filter(is_resident).take(n_max).map(extent).collect())
        };
        from.iter().map(of_place).collect()
    }

    fn eviction_facts(&self, asked: &[Ino]) -> Vec<Result<Option<EvictionFacts>, PortError>> {
        let inodes = self.shared.inodes.lock();
        let of_inode = |&ino: &Ino| {
            Ok(inodes.get(&ino).map(|inode| EvictionFacts {
                ino,
                size_bytes: inode.size_bytes(),
                resident_bytes: inode.bytes_of(is_resident),
                last_used: inode.state.attr.modified,
                pinned: false,
            }))
        };
        asked.iter().map(of_inode).collect()
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        let inodes = self.shared.inodes.lock();
        let warm = |inode: &FakeInode| {
            inode.map.runs(ChunkRange::ALL).iter().any(|run| run.state == ChunkState::Warm)
        };
        let found = inodes.range(after.next()..).filter(|(_, inode)| warm(inode));
        Ok(found.map(|(ino, _)| *ino).take(n_max).collect())
    }

    fn inodes_after(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        let inodes = self.shared.inodes.lock();
        Ok(inodes.range(after.next()..).map(|(ino, _)| *ino).take(n_max).collect())
    }

    fn usage(&self) -> Result<Usage, PortError> {
        let inodes = self.shared.inodes.lock();
        let sum = |counts: fn(&ChunkRun) -> bool| -> u64 {
            inodes.values().map(|inode| inode.bytes_of(counts)).sum()
        };
        let resident_bytes = sum(is_resident);
        Ok(Usage {
            physical_bytes: resident_bytes,
            n_inodes: to_u64(inodes.len()),
            resident_bytes,
            cold_bytes: sum(|run| run.state == ChunkState::Cold),
            lost_bytes: sum(|run| run.state == ChunkState::Lost),
            // It has no limit, and keeps no account of what was done.
            ..Usage::default()
        })
    }
}

impl MountedInstance for FakeKvs {
    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        let xid = publication.range.last();
        let now = self.log().while_last(xid, || Arc::new(self.shared.inodes.lock().clone()));
        let mut snapshots = self.shared.snapshots.lock();
        if let Some(now) = now {
            // Nothing happened since: the present is the same.
            snapshots.entry(xid).or_insert(now);
        }
        let inodes: Arc<Inodes> = snapshots.get(&xid).cloned().ok_or_else(|| {
            PortError::new(ErrorKind::Missing, format!("no snapshot at xid {xid}"))
        })?;
        Ok(Arc::new(FakeSnapshot { inodes, xid, chunk_bytes: self.shared.chunk_bytes }))
    }

    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, PortError>> {
        let mut inodes = self.shared.inodes.lock();
        let evict = |extent: &ResidentExtent| {
            let inode = inodes.get_mut(&extent.ino);
            let bytes = inode.map_or(0, |inode| inode.evict(extent.chunks, extent.data_xid));
            Ok(if bytes > 0 { EvictOutcome::Evicted { bytes } } else { EvictOutcome::Skipped })
        };
        extents.iter().map(evict).collect()
    }

    fn reclaim(&self, _: &dyn Fn() -> bool) -> Result<Reclaimed, PortError> {
        Ok(Reclaimed::default())
    }

    fn restore_inode(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        let ino = inode.attr.ino;
        let mut map = ChunkMap::default();
        let mut at = ChunkNo::new(0);
        for run in runs {
            let run = run?;
            if run.chunks.start() < at || is_resident(&run) {
                let message = format!("the chunk map of inode {ino} cannot be restored");
                return Err(PortError::new(ErrorKind::Damaged, message));
            }
            at = run.chunks.end();
            map.set(run.chunks, RunState { state: run.state, data_xid: run.data_xid });
        }
        let (data, chunk_bytes) = (BTreeMap::new(), self.shared.chunk_bytes);
        let restored = FakeInode { state: inode.clone(), map, data, chunk_bytes };
        let mut inodes = self.shared.inodes.lock();
        // A root that came with the filesystem gives way to the one that is restored.
        if ino != Ino::ROOT && inodes.contains_key(&ino) {
            let message = format!("inode {ino} is there already; restore into an empty filesystem");
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        inodes.insert(ino, restored);
        Ok(())
    }
}
