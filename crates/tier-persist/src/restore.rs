//! A lost filesystem from its tarballs.

use tier_index::{Extent, Index, InodePlace, Place};
use tier_types::{ChunkNo, ChunkRun, ChunkState, Ino, MountedInstance, PortError};

use crate::PersistError;
use crate::archive::Archive;
use crate::rebuild::read_table;
use crate::tarball::TocEntry;

/// Extents that are asked of the index at a time.
const N_EXTENTS: usize = 1024;

impl Archive<'_> {
    /// Puts every inode of the newest snapshot into an empty filesystem, with detours in place of
    /// its data. The index must hold exactly these snapshots. Returns the number of inodes.
    pub fn restore_into(
        &self,
        index: &Index,
        instance: &dyn MountedInstance,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, PersistError> {
        let mut n_inodes = 0;
        for link in self.links() {
            for row in &self.manifest(link)?.tarballs {
                let tarball = (self.filesystem(), row);
                let mut restore = |entry: TocEntry| {
                    let place = Place { tarball: row.id, frame: entry.frame, offset: entry.offset };
                    let restored = restore_entry(index, instance, &entry, place)?;
                    n_inodes += u64::from(restored);
                    progress(n_inodes);
                    Ok(())
                };
                read_table((self.store(), self.keys()), tarball, &mut restore)?;
            }
        }
        Ok(n_inodes)
    }
}

/// Restores the inode if this is its newest metadata.
fn restore_entry(
    index: &Index,
    instance: &dyn MountedInstance,
    entry: &TocEntry,
    place: Place,
) -> Result<bool, PersistError> {
    let Some(inode) = &entry.metadata else { return Ok(false) };
    let newest = InodePlace::At { xid: inode.attr.xid, place };
    if index.inode(entry.ino)? != Some(newest) {
        return Ok(false);
    }
    let mut runs = Runs { index, ino: entry.ino, at: Some(ChunkNo::new(0)), page: Vec::new() };
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
        let Some(extent) = self.page.pop() else {
            self.at = None;
            return None;
        };
        self.at = Some(extent.chunks.end()).filter(|end| *end < ChunkNo::END);
        let state = if extent.place.is_some() { ChunkState::Cold } else { ChunkState::Hole };
        Some(Ok(ChunkRun { chunks: extent.chunks, state, data_xid: extent.data_xid }))
    }
}
