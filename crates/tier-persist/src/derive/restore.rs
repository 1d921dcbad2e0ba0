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

use std::thread;

use crossbeam_channel::{Sender, bounded};
use tier_index::{Extent, Index, IndexError, InodeLocation, Location};
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
/// And before an inode's turn has come: most have one.
const EXTENTS_AT_FIRST: usize = 16;

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
        let doubtful = salvaged.doubtful.as_slice();
        let (sender, found) = bounded(N_UNDER_WAY);
        // What is looked up in the index and what is written to the filesystem take as long as each
        // other, so that two threads take half the time.
        let (looked_up, restored) = thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let restored = RestoredInodes::default();
                let mut writer = Writer { index, instance, doubtful, restored };
                found.into_iter().try_for_each(|found| writer.inode(found))?;
                Ok(writer.restored)
            });
            let mut lookup = Lookup { index, found: sender, n_found: 0, damages: Vec::new() };
            let looked_up = self.look_up_all(&mut lookup, salvaged.n_loaded, progress);
            let damages = lookup.end();
            let restored = writing.join().map_err(|_| PersistError::Pipeline).flatten();
            (looked_up, restored.map(|restored| RestoredInodes { damages, ..restored }))
        });
        // If writing failed, looking up did so as a consequence.
        let restored = restored?;
        looked_up?;
        let RestoredInodes { n_inodes, lost, .. } = &restored;
        tracing::info!(n_inodes, lost_bytes = lost.n_bytes(), "filesystem restored");
        Ok(restored)
    }

    fn look_up_all(
        &self,
        lookup: &mut Lookup<'_>,
        n_loaded: usize,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), PersistError> {
        let (loaded, behind) = self.links().split_at(n_loaded);
        if let Some(checkpoint) = loaded.last() {
            self.read_checkpoint(checkpoint, &mut |inodes| {
                for inode in inodes {
                    lookup.checkpoint_inode(inode, self.tarballs())?;
                    progress(lookup.n_found);
                }
                Ok(())
            })?;
        }
        for link in behind {
            self.visit_step(link, &mut |tarball, entry| {
                let FramePosition { frame, offset } = entry.at;
                lookup.entry(entry, Location { tarball, frame, offset })?;
                progress(lookup.n_found);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Inodes that are on their way from the lookup to the writer.
const N_UNDER_WAY: usize = 256;

/// An inode's newest metadata, with what the index knows of its chunks.
struct Found<'a> {
    inode: InodeState,
    extents: Extents<'a>,
}

/// The first half of a restore: which metadata is the newest.
struct Lookup<'a> {
    index: &'a Index,
    found: Sender<Found<'a>>,
    n_found: u64,
    /// What metadata could be read nowhere.
    damages: Vec<Damage>,
}

impl Lookup<'_> {
    /// No more comes.
    fn end(self) -> Vec<Damage> {
        drop(self.found);
        self.damages
    }

    /// Hands the inode on if this is its newest metadata.
    fn entry(&mut self, entry: TocEntry, location: Location) -> Result<(), PersistError> {
        // Data alone restores nothing: it comes back by recall.
        let Some(inode) = entry.metadata else { return Ok(()) };
        let newest = InodeLocation::At { xid: inode.attr.xid, location };
        // By its position and not only its transaction: an inode that was written twice without a
        // change is restored once.
        if self.index.inode(entry.ino)? != Some(newest) {
            return Ok(());
        }
        self.hand_on(inode)
    }

    /// Hands an inode of a checkpoint on, if no later step has it.
    fn checkpoint_inode(
        &mut self,
        inode: CheckpointInode,
        source: TarballSource<'_>,
    ) -> Result<(), PersistError> {
        let CheckpointInode { record, metadata } = inode;
        let Some(InodeLocation::At { xid, location }) = record.newest else { return Ok(()) };
        if self.index.inode(record.ino)? != record.newest {
            return Ok(());
        }
        if let Some(metadata) = metadata {
            return self.hand_on(metadata);
        }
        // Not in the checkpoint: when that was made, the filesystem had another state of it.
        match read_metadata(source, self.index, record.ino, location) {
            Ok(inode) if inode.attr.xid == xid => self.hand_on(inode),
            Err(error) if !is_of_the_object(&error) => Err(error),
            other => {
                let object = format!("the metadata of inode {}", record.ino);
                let problem = match other {
                    Ok(_) => "it is of another transaction".to_string(),
                    Err(error) => error.to_string(),
                };
                self.damages.push(Damage { object, problem, missing: false });
                Ok(())
            }
        }
    }

    fn hand_on(&mut self, inode: InodeState) -> Result<(), PersistError> {
        let extents = Extents::begin(self.index, inode.attr.ino)?;
        self.n_found += 1;
        // Nothing takes it any more when writing has failed.
        self.found.send(Found { inode, extents }).map_err(|_| PersistError::Pipeline)
    }
}

/// The second half of a restore: what is found is put into the filesystem.
struct Writer<'a> {
    index: &'a Index,
    instance: &'a dyn MountedInstance,
    doubtful: &'a [Doubtful],
    restored: RestoredInodes,
}

impl Writer<'_> {
    fn inode(&mut self, found: Found<'_>) -> Result<(), PersistError> {
        let Found { inode, extents } = found;
        let (ino, size_bytes) = (inode.attr.ino, inode.attr.size_bytes);
        let chunk_bytes = self.index.chunk_bytes();
        // What a step may have held of it that cannot be read is lost, whatever was there before.
        let runs = DoubtedRuns::new(extents, self.doubtful, &inode, chunk_bytes);
        let lost = &mut self.restored.lost;
        // On their way to the filesystem, because the map of a large file is in no memory.
        let mut noted = runs.inspect(|run| {
            if let Ok(ChunkRun { chunks, state: ChunkState::Lost, .. }) = run {
                let offset = chunks.offset_bytes(chunk_bytes);
                let len = chunks.len_bytes(chunk_bytes, size_bytes);
                lost.add(LostRange { ino, bytes: ByteRange { offset, len } });
            }
        });
        self.instance.restore_inode(&inode, &mut noted).map_err(PersistError::Restore)?;
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
    /// Where the next page begins; none behind the last one.
    at: Option<ChunkNo>,
    /// Extents of the current page, last one first.
    page: Vec<Extent>,
}

impl<'a> Extents<'a> {
    /// With the first ones.
    fn begin(index: &'a Index, ino: Ino) -> Result<Self, PersistError> {
        let mut extents = Self { index, ino, at: Some(ChunkNo::new(0)), page: Vec::new() };
        extents.read_page(EXTENTS_AT_FIRST)?;
        Ok(extents)
    }

    fn read_page(&mut self, n_max: usize) -> Result<(), IndexError> {
        // After an error there is no next one: what came would pass for all there is.
        let Some(at) = self.at.take() else { return Ok(()) };
        self.page = self.index.extents(self.ino, at, n_max)?;
        let end = self.page.last().filter(|_| self.page.len() == n_max);
        self.at = end.map(|last| last.chunks.end()).filter(|end| *end < ChunkNo::END);
        self.page.reverse();
        Ok(())
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A large file has more extents than should be in memory at once.
        if self.page.is_empty()
            && let Err(error) = self.read_page(EXTENTS_PER_READ)
        {
            return Some(Err(error.into()));
        }
        self.page.pop().map(Ok)
    }
}
