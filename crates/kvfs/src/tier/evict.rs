//! The port through which the filesystem is read, evicted from and filled again.

use std::sync::Arc;

use tier_types::{
    ChunkNo, ChunkRun, ChunkState, ErrorKind, EvictOutcome, EvictionFacts, Ino, InodeState,
    MountedInstance, MountedSnapshot, PortError, Publication, ResidentExtent, Usage, to_usize,
};

use crate::FsError;
use crate::chunk_map::{MapWindow, delete_chunks};
use crate::fs::Kvfs;
use crate::schema::{self, Table};
use crate::snapshot::KvfsSnapshot;
use crate::view::resident_bytes;

impl Kvfs {
    /// Keeps an inode, and for a directory everything below it, from being evicted, or not any
    /// longer.
    pub fn set_pin(&self, ino: Ino, pinned: bool) -> Result<(), FsError> {
        let _guard = self.locks.lock(&[ino]);
        self.live().attr(ino)?;
        let key = schema::ino(ino);
        if self.live().0.get(Table::Pins, &key)?.is_some() == pinned {
            return Ok(());
        }
        self.committer.commit(0, move |draft| {
            draft.counters.n_pins += if pinned { 1 } else { -1 };
            match pinned {
                true => draft.changes.put(Table::Pins, &key, Vec::new()),
                false => draft.changes.delete(Table::Pins, &key),
            }
        })?;
        Ok(())
    }

    fn evict(&self, extent: &ResidentExtent) -> Result<EvictOutcome, FsError> {
        let ResidentExtent { ino, chunks, data_xid } = *extent;
        let _guard = self.locks.lock(&[ino]);
        let Some(attr) = self.live().find_attr(ino)? else { return Ok(EvictOutcome::Skipped) };
        let window = MapWindow::load(self.live(), ino, chunks, self.size_of(&attr))?;
        let goes = |run: &ChunkRun| {
            run.data_xid == data_xid && matches!(run.state, ChunkState::Hot | ChunkState::Warm)
        };
        let going: Vec<_> = window.runs.iter().filter(|run| goes(run)).copied().collect();
        if going.is_empty() {
            return Ok(EvictOutcome::Skipped);
        }
        let bytes = resident_bytes(&going, self.chunk_bytes, attr.size_bytes);
        let cold = |run: &ChunkRun| match goes(run) {
            true => ChunkRun { state: ChunkState::Cold, ..*run },
            false => *run,
        };
        let new: Vec<_> = window.runs.iter().map(cold).collect();
        // An eviction is no operation: the filesystem's content stays what it is.
        self.committer.commit(0, move |draft| {
            for run in &going {
                delete_chunks(ino, run.chunks, draft);
            }
            window.replace(&new, attr.size_bytes, draft);
            window.put_resident(draft);
        })?;
        Ok(EvictOutcome::Evicted { bytes })
    }

    /// Stores recalled chunks as warm, where a detour still stands for exactly this version.
    pub(crate) fn store_recalled(
        &self,
        extent: &ResidentExtent,
        bytes: &[u8],
    ) -> Result<(), FsError> {
        let ResidentExtent { ino, chunks, data_xid } = *extent;
        let guard = self.locks.lock(&[ino]);
        let Some(attr) = self.live().find_attr(ino)? else { return Ok(()) };
        let window = MapWindow::load(self.live(), ino, chunks, self.size_of(&attr))?;
        let comes = |run: &ChunkRun| run.data_xid == data_xid && run.state == ChunkState::Cold;
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let mut stored = Vec::new();
        for run in window.runs.iter().filter(|run| comes(run)) {
            for number in run.chunks.start().get()..run.chunks.end().get() {
                let start = to_usize(number - chunks.start().get()) * chunk_bytes;
                let end = (start + chunk_bytes).min(bytes.len());
                let content = bytes.get(start..end).unwrap_or_default().to_vec();
                stored.push((ChunkNo::new(number), content));
            }
        }
        if stored.is_empty() {
            return Ok(());
        }
        let warm = |run: &ChunkRun| match comes(run) {
            true => ChunkRun { state: ChunkState::Warm, ..*run },
            false => *run,
        };
        let new: Vec<_> = window.runs.iter().map(warm).collect();
        self.committer.commit(0, move |draft| {
            for (chunk, content) in stored {
                draft.changes.put(Table::Chunks, &schema::chunk(ino, chunk), content);
            }
            draft.changes.put(Table::Warm, &schema::ino(ino), Vec::new());
            window.replace(&new, attr.size_bytes, draft);
            window.put_resident(draft);
        })?;
        drop(guard);
        self.residency_changed(ino);
        Ok(())
    }

    fn resident(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ResidentExtent>, FsError> {
        let mut extents = Vec::new();
        for run in self.live().all_runs(ino, from) {
            let ChunkRun { chunks, state, data_xid } = run?;
            if matches!(state, ChunkState::Hot | ChunkState::Warm) {
                extents.push(ResidentExtent { ino, chunks, data_xid });
                if extents.len() >= n_max {
                    break;
                }
            }
        }
        Ok(extents)
    }

    fn facts(&self, ino: Ino) -> Result<Option<EvictionFacts>, FsError> {
        let Some(attr) = self.live().find_attr(ino)? else { return Ok(None) };
        let last_used = self.last_use(ino).unwrap_or(attr.accessed.max(attr.modified));
        Ok(Some(EvictionFacts {
            ino,
            size_bytes: attr.size_bytes,
            resident_bytes: self.live().resident_bytes(ino)?,
            last_used,
            pinned: self.is_pinned(ino)?,
        }))
    }

    /// Whether an operator wants the inode, or a directory above it, to stay.
    pub fn is_pinned(&self, ino: Ino) -> Result<bool, FsError> {
        if self.committer.counters().n_pins == 0 {
            return Ok(false);
        }
        // A file with several names is pinned through any of them.
        let mut todo = vec![ino];
        while let Some(ino) = todo.pop() {
            if self.live().0.get(Table::Pins, &schema::ino(ino))?.is_some() {
                return Ok(true);
            }
            todo.extend(self.live().links(ino)?.into_iter().map(|link| link.parent));
        }
        Ok(false)
    }

    fn warm(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, FsError> {
        let from = schema::ino(after.next());
        let pairs = self.live().0.scan(Table::Warm, &from, &[0xff; 9])?;
        let inos = pairs.take(n_max).map(|pair| {
            let parsed = schema::take_number(&pair?.0).map(|(ino, _)| Ino::new(ino));
            parsed.ok_or(FsError::Damaged { ino: after, problem: "a warm key cannot be read" })
        });
        inos.collect()
    }

    /// Forgets that an inode has warm data, if it has none.
    fn settle_warm(&self, ino: Ino) -> Result<(), FsError> {
        let _guard = self.locks.lock(&[ino]);
        let key = schema::ino(ino);
        if self.live().0.get(Table::Warm, &key)?.is_none() {
            return Ok(());
        }
        for run in self.live().all_runs(ino, ChunkNo::new(0)) {
            if run?.state == ChunkState::Warm {
                return Ok(());
            }
        }
        self.committer.commit(0, move |draft| draft.changes.delete(Table::Warm, &key))?;
        Ok(())
    }

    fn snapshot_at(&self, publication: &Publication) -> Result<KvfsSnapshot, PortError> {
        let last = publication.range.last();
        if self.publications.snapshot(last).is_none() {
            // A crash let go of it. If nothing happened since, the present is the same.
            let (view, now) = self.committer.snapshot();
            if now == last {
                self.publications.hold(last, Arc::new(view));
            }
        }
        let view = self.publications.snapshot(last).ok_or_else(|| {
            let message = format!("the snapshot at xid {last} is gone; publish again");
            PortError::new(ErrorKind::Missing, message)
        })?;
        let (chunk_bytes, demand) = (self.chunk_bytes, Arc::clone(&self.demand));
        Ok(KvfsSnapshot { view, xid: last, chunk_bytes, demand })
    }
}

impl MountedInstance for Kvfs {
    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        Ok(Arc::new(self.snapshot_at(publication)?))
    }

    fn evict_extent(&self, extent: &ResidentExtent) -> Result<EvictOutcome, PortError> {
        let outcome = self.evict(extent)?;
        if matches!(outcome, EvictOutcome::Evicted { .. }) {
            self.residency_changed(extent.ino);
            self.settle_warm(extent.ino)?;
        }
        Ok(outcome)
    }

    fn reclaim(&self) -> Result<u64, PortError> {
        let before = self.db.physical_bytes()?;
        self.fsync()?;
        for table in [Table::Chunks, Table::Map, Table::Log] {
            self.db.compact(table)?;
        }
        Ok(before.saturating_sub(self.db.physical_bytes()?))
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
        Ok(self.warm(after, n_max)?)
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

    fn usage(&self) -> Result<Usage, PortError> {
        let counters = self.committer.counters();
        let bytes = |counted: i64| u64::try_from(counted).unwrap_or(0);
        Ok(Usage {
            physical_bytes: self.db.physical_bytes()?,
            n_inodes: u64::try_from(counters.n_inodes).unwrap_or(0),
            resident_bytes: bytes(counters.resident_bytes),
            cold_bytes: bytes(counters.cold_bytes),
        })
    }
}
