//! Tarballs that are lost: what lay in them, and that it is not known any more where it lies.
//!
//! A tarball that no copy of an archive has whole is no place for data. What the filesystem has of
//! it is persisted again, at a later location, which wins over the lost one; the rest becomes lost
//! ranges, so that nothing is evicted against it, and a restore tells it.

use std::collections::BTreeSet;

use tier_types::Ino;

use crate::delta::Delta;
use crate::record::{InodeRange, InodeRecord, visit_records};
use crate::rows::InodeRow;
use crate::{Extent, ExtentContent, Index, IndexError, IndexWriter, InodeLocation, TarballId};

/// Changes that are written together.
const N_CHANGES: usize = 16 << 10;

impl Index {
    /// The inodes of which something lies in these tarballs, in order.
    pub fn inodes_in(&self, tarballs: &BTreeSet<TarballId>) -> Result<Vec<Ino>, IndexError> {
        let mut inodes = Vec::new();
        self.visit_inodes(InodeRange::ALL, &mut |record| -> Result<(), IndexError> {
            let newest = record.newest.and_then(InodeLocation::tarball);
            let data = record.extents.iter().filter_map(Extent::tarball);
            let mut places = newest.into_iter().chain(data);
            if places.any(|id| tarballs.contains(&id)) && inodes.last() != Some(&record.ino) {
                inodes.push(record.ino);
            }
            Ok(())
        })?;
        Ok(inodes)
    }
}

impl IndexWriter<'_> {
    /// Makes lost ranges of all data that lies in these tarballs, durably.
    pub fn lose(&mut self, tarballs: &BTreeSet<TarballId>) -> Result<(), IndexError> {
        let (database, delta) = self.parts();
        delta.clear();
        let mut n_changes = 0;
        visit_records(database, InodeRange::ALL, &mut |record: &InodeRecord| {
            for extent in &record.extents {
                if extent.tarball().is_some_and(|id| tarballs.contains(&id)) {
                    lose_extent(database.inode(record.ino)?, extent, delta);
                    n_changes += 1;
                }
            }
            if n_changes >= N_CHANGES {
                delta.write(database)?;
                delta.clear();
                n_changes = 0;
            }
            Ok::<(), IndexError>(())
        })?;
        delta.write(database)?;
        database.flush()
    }
}

fn lose_extent(row: Option<InodeRow>, extent: &Extent, delta: &mut Delta) {
    delta.remove(extent);
    delta.insert(&Extent { content: ExtentContent::Lost, ..*extent });
    // An inline extent is data: what is lost has a row of its own.
    if let Some(InodeRow { newest, .. }) = row.filter(|row| row.inline.as_ref() == Some(extent)) {
        delta.inode(extent.ino, InodeRow { newest, inline: None });
    }
}
