//! The delta of one merge: rows that are written together.
//!
//! The merge says what changes, extent by extent and inode by inode; the delta keeps it until all
//! of a part of contents was merged, counts what becomes of the chunks that are live in each
//! tarball, and writes everything in one batch. Its memory is used again from one merge to the
//! next.

use std::collections::BTreeMap;

use tier_types::Ino;

use crate::database::{Database, Table};
use crate::location::{Extent, TarballId};
use crate::rows::InodeRow;
use crate::{IndexError, key, wire};

#[derive(Default, Debug)]
pub(crate) struct Delta {
    inodes: Vec<(Ino, InodeRow)>,
    removed: Vec<Extent>,
    inserted: Vec<Extent>,
    /// Known before, in the row of an inode.
    moved: Vec<Extent>,
    live_chunks: BTreeMap<TarballId, i64>,
}

impl Delta {
    pub(crate) fn clear(&mut self) {
        self.inodes.clear();
        self.removed.clear();
        self.inserted.clear();
        self.moved.clear();
        self.live_chunks.clear();
    }

    /// An inode's row, in which an extent is new. Inodes come in order, each once.
    pub(crate) fn inode(&mut self, ino: Ino, row: InodeRow) {
        assert!(self.inodes.last().is_none_or(|(last, _)| *last < ino), "inodes come in order");
        if let Some(inline) = &row.inline {
            self.count(inline, 1);
        }
        self.inodes.push((ino, row));
    }

    pub(crate) fn insert(&mut self, extent: &Extent) {
        self.inserted.push(*extent);
        self.count(extent, 1);
    }

    pub(crate) fn remove(&mut self, extent: &Extent) {
        self.removed.push(*extent);
        self.count(extent, -1);
    }

    /// An extent that was in the row of its inode gets a row of its own.
    pub(crate) fn move_out(&mut self, extent: Extent) {
        assert!(extent.data().is_some(), "what lies with the metadata is data");
        // Not counted: its chunks were live in the same tarball while it was inline.
        self.moved.push(extent);
    }

    pub(crate) fn write(&self, database: &Database) -> Result<(), IndexError> {
        let Self { inodes, live_chunks, inserted, moved, removed } = self;
        let mut batch = database.batch_of(inodes.len() + inserted.len() + removed.len());
        // Removals first: a new extent may have the key of an old one.
        for extent in removed {
            batch.delete(Table::Extents, &key::extent(extent.ino, extent.chunks.last()))?;
        }
        for extent in inserted.iter().chain(moved) {
            let key = key::extent(extent.ino, extent.chunks.last());
            batch.put(Table::Extents, &key, &wire::extent_to_bytes(extent))?;
        }
        for (ino, row) in inodes {
            batch.put(Table::Inodes, &key::inode(*ino), &wire::inode_to_bytes(row))?;
        }
        for (&id, &change) in live_chunks {
            // Once for each tarball, however many of its extents changed; the writer's lock keeps
            // the row as it was read.
            let known = database.tarball(id)?;
            // A row goes in before anything that points to it, so that one is missing only by
            // damage.
            let mut row = known.ok_or_else(|| database.damaged("a tarball is not known"))?;
            row.live_chunks = row
                .live_chunks
                // From a disk: a count that falls below zero was wrong before.
                .checked_add_signed(change)
                .ok_or_else(|| database.damaged("live chunks do not add up"))?;
            batch.put(Table::Tarballs, &key::tarball(id), &wire::tarball_to_bytes(&row))?;
        }
        batch.write()
    }

    #[expect(clippy::expect_used, reason = "an extent with data lies in one frame")]
    fn count(&mut self, extent: &Extent, sign: i64) {
        if let Some(data) = extent.data() {
            let n_chunks = i64::try_from(extent.live_chunks()).expect("the chunks of a frame");
            *self.live_chunks.entry(data.location.tarball).or_default() += sign * n_chunks;
        }
    }
}
