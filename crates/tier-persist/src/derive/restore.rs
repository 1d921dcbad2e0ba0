//! Restoring: a lost filesystem from its tarballs.
//!
//! Every inode's newest metadata is put back, and detours in place of its data: so restoring costs
//! reading the tables of contents, and data comes back when it is read. Which metadata is the
//! newest, and what the chunk map is, the index says; an entry of a table that the index does not
//! point at is an older version. Inodes come in any order, each once.

use std::collections::HashSet;

use tier_index::{Extent, Index, InodeLocation, Location};
use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino, MountedInstance, PortError, Xid};

use crate::error::PersistError;
use crate::format::tarball::layout::FramePosition;
use crate::format::tarball::toc::entry::TocEntry;
use crate::read::chain::Archive;
use crate::read::contents::read_table;

/// Extents that are asked of the index at a time.
const EXTENTS_PER_READ: usize = 1024;

impl Archive<'_> {
    /// Puts every inode of the newest snapshot into an empty filesystem, with detours in place of
    /// its data. The index must hold exactly these snapshots. Of an inode that could not be read
    /// as a whole, what is not here is an error to its readers, not a hole. Returns the number of
    /// inodes.
    pub fn restore_into(
        &self,
        index: &Index,
        instance: &dyn MountedInstance,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, PersistError> {
        let failed = match self.links().last() {
            Some(newest) => newest.summary.failed.iter().copied().collect(),
            None => HashSet::new(),
        };
        // Also those that failed in earlier snapshots: each snapshot tries them again.
        let restore = Restore { index, instance, failed };
        let mut n_inodes = 0;
        for link in self.links() {
            for row in &self.manifest(link)?.tarballs {
                read_table(self.tarballs(), row, &mut |entry| {
                    let FramePosition { frame, offset } = entry.at;
                    let location = Location { tarball: row.id, frame, offset };
                    n_inodes += u64::from(restore.entry(&entry, location)?);
                    progress(n_inodes);
                    Ok(())
                })?;
            }
        }
        tracing::info!(n_inodes, "filesystem restored");
        Ok(n_inodes)
    }
}

/// A restore of one filesystem.
struct Restore<'a> {
    index: &'a Index,
    instance: &'a dyn MountedInstance,
    /// Inodes of which the newest snapshot could not read something.
    failed: HashSet<Ino>,
}

impl Restore<'_> {
    /// Restores the inode if this is its newest metadata, and says whether it is.
    fn entry(&self, entry: &TocEntry, location: Location) -> Result<bool, PersistError> {
        // Data alone restores nothing: it comes back by recall.
        let Some(inode) = &entry.metadata else { return Ok(false) };
        let newest = InodeLocation::At { xid: inode.attr.xid, location };
        // By its position and not only its transaction: an inode that was written twice without a
        // change is restored once.
        if self.index.inode(entry.ino)? != Some(newest) {
            return Ok(false);
        }
        let chunk_bytes = u64::from(self.index.chunk_bytes());
        // What could not be read of a file has no entry in the index, as a hole that was never
        // written has none. The difference must not be lost, or the file would read as zeros there.
        let n_chunks = inode.attr.size_bytes.div_ceil(chunk_bytes);
        let unread_end = if self.failed.contains(&entry.ino) { n_chunks } else { 0 };
        let mut runs = Runs {
            index: self.index,
            ino: entry.ino,
            at: Some(ChunkNo::new(0)),
            page: Vec::new(),
            unread_end: ChunkNo::new(unread_end),
            unread_xid: inode.attr.xid,
        };
        self.instance.restore_inode(inode, &mut runs).map_err(PersistError::Restore)?;
        Ok(true)
    }
}

/// The chunk map of an inode as the index knows it.
struct Runs<'a> {
    index: &'a Index,
    ino: Ino,
    /// The chunk that comes next; none at the end.
    at: Option<ChunkNo>,
    /// Extents of the current page, last one first.
    page: Vec<Extent>,
    /// Up to here, what the index does not know could not be read.
    unread_end: ChunkNo,
    /// The transaction for which a detour then stands, so that no other data is taken for it.
    unread_xid: Xid,
}

impl Runs<'_> {
    /// What could not be read between `at` and `end`.
    fn gap(&self, at: ChunkNo, end: ChunkNo) -> Option<ChunkRun> {
        let chunks = ChunkRange::new(at, end.min(self.unread_end))?;
        Some(ChunkRun { chunks, state: ChunkState::Cold, data_xid: self.unread_xid })
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<ChunkRun, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A large file has more extents than should be in memory at once.
        if self.page.is_empty() {
            match self.index.extents(self.ino, self.at?, EXTENTS_PER_READ) {
                Ok(page) => self.page = page,
                Err(error) => {
                    // After an error there is no next run: what came would pass for all there is.
                    self.at = None;
                    return Some(Err(error.into()));
                }
            }
            self.page.reverse();
        }
        let at = self.at?;
        let Some(extent) = self.page.pop() else {
            self.at = None;
            return self.gap(at, ChunkNo::END).map(Ok);
        };
        // Between extents: a hole that was never written needs no run, what could not be read does.
        if let Some(gap) = self.gap(at, extent.chunks.start()) {
            self.at = Some(gap.chunks.end());
            self.page.push(extent);
            return Some(Ok(gap));
        }
        self.at = Some(extent.chunks.end()).filter(|end| *end < ChunkNo::END);
        let state = if extent.location.is_some() { ChunkState::Cold } else { ChunkState::Hole };
        Some(Ok(ChunkRun { chunks: extent.chunks, state, data_xid: extent.data_xid }))
    }
}
