//! A lost filesystem from its tarballs.

use std::collections::HashSet;

use tier_index::{Extent, Index, InodeLocation, Location};
use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino, MountedInstance, PortError, Xid};

use crate::derive::rebuild::read_table;
use crate::error::PersistError;
use crate::format::tarball::toc::entry::TocEntry;
use crate::read::chain::Archive;

/// Extents that are asked of the index at a time.
const N_EXTENTS: usize = 1024;

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
        let failed = self.links().last().map(|link| link.summary.failed.as_slice());
        let failed: HashSet<Ino> = failed.unwrap_or_default().iter().copied().collect();
        let mut n_inodes = 0;
        for link in self.links() {
            for row in &self.manifest(link)?.tarballs {
                let tarball = (self.filesystem(), row);
                let mut restore = |entry: TocEntry| {
                    let location =
                        Location { tarball: row.id, frame: entry.frame, offset: entry.offset };
                    let restored = restore_entry(index, instance, (&entry, location), &failed)?;
                    n_inodes += u64::from(restored);
                    progress(n_inodes);
                    Ok(())
                };
                read_table((self.tarballs(), self.keys()), tarball, &mut restore)?;
            }
        }
        Ok(n_inodes)
    }
}

/// Restores the inode if this is its newest metadata.
fn restore_entry(
    index: &Index,
    instance: &dyn MountedInstance,
    (entry, location): (&TocEntry, Location),
    failed: &HashSet<Ino>,
) -> Result<bool, PersistError> {
    let Some(inode) = &entry.metadata else { return Ok(false) };
    let newest = InodeLocation::At { xid: inode.attr.xid, location };
    if index.inode(entry.ino)? != Some(newest) {
        return Ok(false);
    }
    let n_chunks = inode.attr.size_bytes.div_ceil(u64::from(index.chunk_bytes()));
    let file_end = if failed.contains(&entry.ino) { n_chunks } else { 0 };
    let mut runs = Runs {
        index,
        ino: entry.ino,
        at: Some(ChunkNo::new(0)),
        page: Vec::new(),
        unread: (ChunkNo::new(file_end), inode.attr.xid),
    };
    instance.restore_inode(inode, &mut runs).map_err(PersistError::Restore)?;
    Ok(true)
}

/// The chunk map of an inode as the index knows it.
struct Runs<'a> {
    index: &'a Index,
    ino: Ino,
    at: Option<ChunkNo>,
    /// Extents of the current page, last one first.
    page: Vec<Extent>,
    /// Up to here, what the index does not know could not be read; the transaction for which a
    /// detour then stands, so that no other data is taken for it.
    unread: (ChunkNo, Xid),
}

impl Runs<'_> {
    /// What could not be read between `at` and `end`.
    fn gap(&self, at: ChunkNo, end: ChunkNo) -> Option<ChunkRun> {
        let (unread_end, data_xid) = self.unread;
        let chunks = ChunkRange::new(at, end.min(unread_end))?;
        Some(ChunkRun { chunks, state: ChunkState::Cold, data_xid })
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<ChunkRun, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            match self.index.extents(self.ino, self.at?, N_EXTENTS) {
                Ok(page) => self.page = page,
                Err(error) => {
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
