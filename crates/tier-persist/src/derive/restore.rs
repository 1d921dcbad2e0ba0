//! Restoring: a lost filesystem from its tarballs.
//!
//! Every inode's newest metadata is put back, and detours in place of its data: so restoring costs
//! reading the newest checkpoint and the tables of contents behind it, and data comes back when it
//! is read. Which metadata is the newest, and what the chunk map is, the index says; an entry of a
//! table that the index does not point at is an older version. Inodes come in any order, each once.
//!
//! What is lost stays lost. A range that the index knows as lost comes back with its data xid. The
//! filesystem persists it again as what it is, so that a restore of a restore knows it too. All of
//! it is returned, for the report. What the index knows nothing of is a hole that was never
//! written: a snapshot says something of each chunk of a file that it covers, or nothing of the
//! file.

use tier_index::{Extent, Index, InodeLocation, Location};
use tier_types::{
    ByteRange, ChunkNo, ChunkRun, ChunkState, Ino, InodeState, MountedInstance, PortError,
};

use crate::damage::Damage;
use crate::derive::doubt::{DoubtedRuns, Doubtful};
use crate::derive::salvage::Salvaged;
use crate::error::PersistError;
use crate::format::checkpoint::CheckpointInode;
use crate::format::tarball::layout::FramePosition;
use crate::format::tarball::toc::entry::TocEntry;
use crate::lost::{LostRange, LostRanges};
use crate::read::chain::Archive;
use crate::read::metadata::read_metadata;
use crate::read::small::is_of_the_object;
use crate::read::tarball_source::TarballSource;

/// Extents that are asked of the index at a time.
const EXTENTS_PER_READ: usize = 1024;

/// What was put back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RestoredInodes {
    /// Inodes.
    pub n_inodes: u64,
    /// What of their data is lost.
    pub lost: LostRanges,
    /// What metadata could be read nowhere.
    pub damages: Vec<Damage>,
}

impl Archive<'_> {
    /// Puts every inode of the newest snapshot into an empty filesystem, with detours in place of
    /// its data. The index must hold exactly these snapshots, as [salvaged](Self::salvage_index).
    pub fn restore_into(
        &self,
        index: &Index,
        instance: &dyn MountedInstance,
        salvaged: &Salvaged,
        progress: &mut dyn FnMut(u64),
    ) -> Result<RestoredInodes, PersistError> {
        let (doubtful, restored) = (salvaged.doubtful.as_slice(), RestoredInodes::default());
        let mut restore = Restore { index, instance, doubtful, restored };
        let (loaded, behind) = self.links().split_at(salvaged.n_loaded);
        if let Some(checkpoint) = loaded.last() {
            self.read_checkpoint(checkpoint, &mut |inodes| {
                for inode in &inodes {
                    restore.checkpoint_inode(inode, self.tarballs())?;
                    progress(restore.restored.n_inodes);
                }
                Ok(())
            })?;
        }
        for link in behind {
            self.visit_step(link, &mut |tarball, entry| {
                let FramePosition { frame, offset } = entry.at;
                restore.entry(&entry, Location { tarball, frame, offset })?;
                progress(restore.restored.n_inodes);
                Ok(())
            })?;
        }
        let RestoredInodes { n_inodes, lost, .. } = &restore.restored;
        tracing::info!(n_inodes, lost_bytes = lost.n_bytes(), "filesystem restored");
        Ok(restore.restored)
    }
}

/// A restore of one filesystem.
struct Restore<'a> {
    index: &'a Index,
    instance: &'a dyn MountedInstance,
    doubtful: &'a [Doubtful],
    restored: RestoredInodes,
}

impl Restore<'_> {
    /// Restores the inode if this is its newest metadata.
    fn entry(&mut self, entry: &TocEntry, location: Location) -> Result<(), PersistError> {
        // Data alone restores nothing: it comes back by recall.
        let Some(inode) = &entry.metadata else { return Ok(()) };
        let newest = InodeLocation::At { xid: inode.attr.xid, location };
        // By its position and not only its transaction: an inode that was written twice without a
        // change is restored once.
        if self.index.inode(entry.ino)? != Some(newest) {
            return Ok(());
        }
        self.inode(inode)
    }

    /// Restores an inode of a checkpoint, if no later step has it.
    fn checkpoint_inode(
        &mut self,
        inode: &CheckpointInode,
        source: TarballSource<'_>,
    ) -> Result<(), PersistError> {
        let CheckpointInode { record, metadata } = inode;
        let Some(InodeLocation::At { xid, location }) = record.newest else { return Ok(()) };
        if self.index.inode(record.ino)? != record.newest {
            return Ok(());
        }
        if let Some(metadata) = metadata {
            return self.inode(metadata);
        }
        // Not in the checkpoint: when that was made, the filesystem had another state of it.
        match read_metadata(source, self.index, record.ino, location) {
            Ok(inode) if inode.attr.xid == xid => self.inode(&inode),
            Err(error) if !is_of_the_object(&error) => Err(error),
            other => {
                let object = format!("the metadata of inode {}", record.ino);
                let problem = match other {
                    Ok(_) => "it is of another transaction".to_string(),
                    Err(error) => error.to_string(),
                };
                self.restored.damages.push(Damage { object, problem, missing: false });
                Ok(())
            }
        }
    }

    fn inode(&mut self, inode: &InodeState) -> Result<(), PersistError> {
        let (ino, size_bytes) = (inode.attr.ino, inode.attr.size_bytes);
        let chunk_bytes = self.index.chunk_bytes();
        let extents =
            Extents { index: self.index, ino, at: Some(ChunkNo::new(0)), page: Vec::new() };
        // What a step may have held of it that cannot be read is lost, whatever was there before.
        let runs = DoubtedRuns::new(extents, self.doubtful, inode, chunk_bytes);
        let lost = &mut self.restored.lost;
        // On their way to the filesystem, because the map of a large file is in no memory.
        let mut noted = runs.inspect(|run| {
            if let Ok(ChunkRun { chunks, state: ChunkState::Lost, .. }) = run {
                let offset = chunks.offset_bytes(chunk_bytes);
                let len = chunks.len_bytes(chunk_bytes, size_bytes);
                lost.add(LostRange { ino, bytes: ByteRange { offset, len } });
            }
        });
        self.instance.restore_inode(inode, &mut noted).map_err(PersistError::Restore)?;
        // Its newest state may be lost as well: then it was longer.
        let n_chunks = size_bytes.div_ceil(u64::from(chunk_bytes));
        for step in self.doubtful {
            for chunks in step.grown(ino, inode.attr.xid, n_chunks) {
                let offset = chunks.offset_bytes(chunk_bytes);
                let len = chunks.len().saturating_mul(u64::from(chunk_bytes));
                lost.add(LostRange { ino, bytes: ByteRange { offset, len } });
            }
        }
        self.restored.n_inodes += 1;
        Ok(())
    }
}

/// What the index knows of an inode's chunks, in order.
struct Extents<'a> {
    index: &'a Index,
    ino: Ino,
    /// Where the next page begins; none at the end.
    at: Option<ChunkNo>,
    /// Extents of the current page, last one first.
    page: Vec<Extent>,
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A large file has more extents than should be in memory at once.
        if self.page.is_empty() {
            match self.index.extents(self.ino, self.at?, EXTENTS_PER_READ) {
                Ok(page) => self.page = page,
                Err(error) => {
                    // After an error there is no next one: what came would pass for all there is.
                    self.at = None;
                    return Some(Err(error.into()));
                }
            }
            self.page.reverse();
        }
        let extent = self.page.pop()?;
        self.at = Some(extent.chunks.end()).filter(|end| *end < ChunkNo::END);
        Some(Ok(extent))
    }
}
