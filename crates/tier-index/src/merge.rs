//! The merge: what contents of a tarball change of what an index knows.
//!
//! **Everything is settled by transaction id, never by the order of application.** An index must
//! come out the same whether contents are applied as they are written, again after a crash that
//! took an unknown part of them, in a rebuild that reads the newest tarball first, or in a full
//! scan that finds members in any order. So no step may depend on what was applied before; each
//! compares what a tarball says with what is known, and the higher *rank* stays:
//!
//! - for each chunk the highest (data xid, content); a hole has a data xid like data, so that an
//!   old tarball cannot bring back what was unmapped later, and so has a lost range, which hides
//!   what was there before it; of one data xid data wins over lost, whichever of them came first;
//! - for each inode the highest (metadata xid, location);
//! - an inode that is gone has a transaction that ended it, and nothing can come after it: its row
//!   stays as a tombstone, all its extents go, and older contents that are applied late find the
//!   tombstone and leave nothing.
//!
//! Taking the maximum is commutative, associative and idempotent. That is the whole argument, and
//! it is why applying twice does no harm, why what a crash took is applied again, and why dumps of
//! a live and of a regenerated index are compared byte for byte. Locations take part only among
//! copies of the same data, which a transaction cannot tell apart.
//!
//! What the argument needs besides is that the *counts* follow: the chunks that are live in each
//! tarball are changed by what was inserted and removed, so that an extent that is found unchanged
//! counts nothing.
//!
//! **Inline extents.** Most files are small, written once, and have their data in the frame of
//! their metadata. Such a new file takes one row, its extent *inline* in it. As soon as anything
//! about the inode changes the extent moves to a row of its own, or is replaced. Which of both
//! holds it makes no difference to any answer or dump, so that two indexes may differ in it and be
//! equal.
//!
//! **Cost.** A part of contents is merged in order of inode numbers with two cursors that only move
//! forward; in a table that is empty there, as for new files, a cursor costs nothing. All changes
//! go out in one batch, and nothing that was read is read again within it, because each inode is
//! merged once.

use std::collections::BTreeMap;

use tier_types::{ChunkNo, ChunkRange, Ino, Xid};

use crate::database::{Cursor, Database, Table};
use crate::delta::Delta;
use crate::edit::ExtentMap;
use crate::rows::InodeRow;
use crate::{
    Entry, Extent, ExtentContent, IndexError, InodeLocation, Location, StoredData, TarballId, key,
};

/// Merges what a tarball says, inode by inode in order, with what an index knew before.
pub(crate) struct Merge<'a> {
    database: &'a Database,
    inodes: Cursor<'a>,
    extents: Cursor<'a>,
    delta: &'a mut Delta,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(database: &'a Database, delta: &'a mut Delta) -> Result<Self, IndexError> {
        // Now and not when the last merge ended: one that failed left half of its changes.
        delta.clear();
        let (inodes, extents) = (database.cursor(Table::Inodes)?, database.cursor(Table::Extents)?);
        Ok(Self { database, inodes, extents, delta })
    }

    /// Merges all that is said of one inode: states of it, and extents.
    pub(crate) fn inode(
        &mut self,
        ino: Ino,
        said: &[InodeLocation],
        new: Vec<Extent>,
    ) -> Result<(), IndexError> {
        self.check_possible(ino, &new)?;
        let known = self.known_inode(ino)?;
        // Most files are new and small, and need no merge. Extents may be known before their inode,
        // because contents come in any order.
        if known.is_none()
            && let Some(row) = inline_row(said, &new)
            && !self.knows_extents(ino)?
        {
            self.delta.inode(ino, row);
            return Ok(());
        }
        let before = known.map(|row| row.newest);
        let newest = said.iter().copied().chain(before).max_by_key(InodeLocation::rank);
        let gone = matches!(newest, Some(InodeLocation::Gone { .. }));
        // Nothing can come after the end of an inode, and nothing of it stays.
        let touched = if gone {
            vec![ChunkRange::ALL]
        } else {
            new.iter().map(|extent| extent.chunks).collect()
        };
        let inline = known.and_then(|row| row.inline);
        let extents = self.known_extents(ino, inline, &touched)?;
        let after = if gone { ExtentMap::default() } else { self.merged(&extents, new) };
        let data_changed = self.change_extents(&extents, &after);
        let changed = data_changed || newest != before;
        // Once something changes, an inline extent gets a row of its own, if it is still so.
        if let Some(inline) = inline.filter(|_| changed) {
            let first = inline.chunks.start();
            // It was not touched, or came out the same; otherwise the change of extents has counted
            // it.
            if !extents.contains_key(&first) || after.starting_at(first) == Some(&inline) {
                self.delta.move_out(inline);
            }
        }
        // Written also where only the inline extent is to leave the row.
        if let Some(newest) = newest.filter(|_| newest != before || (inline.is_some() && changed)) {
            self.delta.inode(ino, InodeRow { newest, inline: None });
        }
        Ok(())
    }

    /// Writes what came of it.
    pub(crate) fn write(self) -> Result<(), IndexError> {
        self.delta.write(self.database)
    }

    /// Takes note of the extents that differ. Whether there are any.
    fn change_extents(&mut self, before: &BTreeMap<ChunkNo, Extent>, after: &ExtentMap) -> bool {
        let removed = before.iter().filter(|(first, old)| after.starting_at(**first) != Some(*old));
        let is_new = |new: &&Extent| before.get(&new.chunks.start()) != Some(*new);
        let mut changed = false;
        for (_, old) in removed {
            // For an inline extent this deletes a row that is not there, and takes back its chunks.
            self.delta.remove(old);
            changed = true;
        }
        for new in after.extents().filter(is_new) {
            self.delta.insert(new);
            changed = true;
        }
        changed
    }

    fn merged(&self, before: &BTreeMap<ChunkNo, Extent>, new: Vec<Extent>) -> ExtentMap {
        let mut map = ExtentMap::default();
        for extent in before.values() {
            map.load(*extent);
        }
        for extent in new {
            map.add(extent, self.database.chunk_bytes());
        }
        map
    }

    fn known_inode(&mut self, ino: Ino) -> Result<Option<InodeRow>, IndexError> {
        let key = key::inode(ino);
        let found = self.inodes.at_or_after(&key)?.filter(|pair| pair.key == key);
        found.map(|pair| self.database.parse_inode(ino, pair.value)).transpose()
    }

    fn knows_extents(&mut self, ino: Ino) -> Result<bool, IndexError> {
        let next = self.extents.at_or_after(&key::extent(ino, ChunkNo::new(0)))?;
        Ok(next.is_some_and(|pair| pair.key.starts_with(&key::inode(ino))))
    }

    /// What is known of the touched chunks, by first chunk.
    fn known_extents(
        &mut self,
        ino: Ino,
        inline: Option<Extent>,
        touched: &[ChunkRange],
    ) -> Result<BTreeMap<ChunkNo, Extent>, IndexError> {
        // By first chunk: two touched ranges may meet the same extent.
        let mut extents = BTreeMap::new();
        for chunks in touched {
            self.load_overlapping(ino, *chunks, &mut extents)?;
        }
        // Each of the two would claim chunks, and which one was live could not be told.
        if inline.is_some() && !extents.is_empty() {
            return Err(self.database.damaged("an inode has extents besides its inline one"));
        }
        // An error here: what comes from a disk must not reach the assertions of the map.
        if !extents.values().is_sorted_by(|a, b| a.chunks.end() <= b.chunks.start()) {
            return Err(self.database.damaged("extents of an inode overlap"));
        }
        let meets = |inline: &Extent| {
            touched.iter().any(|chunks| chunks.intersection(inline.chunks).is_some())
        };
        extents.extend(inline.filter(meets).map(|inline| (inline.chunks.start(), inline)));
        Ok(extents)
    }

    fn load_overlapping(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        into: &mut BTreeMap<ChunkNo, Extent>,
    ) -> Result<(), IndexError> {
        let mut from = chunks.start();
        while let Some(pair) = self.extents.at_or_after(&key::extent(ino, from))? {
            let extent = self.database.parse_extent(pair.key, pair.value)?;
            // Keys hold the last chunk, so that the first pair found is the first extent that can
            // reach into the range; it may lie behind it, or be the next inode's.
            if extent.ino != ino || extent.chunks.start() >= chunks.end() {
                break;
            }
            into.insert(extent.chunks.start(), extent);
            // Its key lies at or behind `from`, so that its end is further on: damage cannot hold
            // the loop here.
            from = extent.chunks.end();
        }
        Ok(())
    }

    /// Checked once, because parts and offsets are computed from them without a check.
    fn check_possible(&self, ino: Ino, extents: &[Extent]) -> Result<(), IndexError> {
        let chunk_bytes = self.database.chunk_bytes();
        let mut impossible = extents.iter().filter(|extent| {
            assert_eq!(extent.ino, ino, "extents of one inode");
            !extent.is_possible(chunk_bytes)
        });
        // What has no location is always possible.
        match impossible.find_map(Extent::data) {
            Some(data) => Err(IndexError::Contents { tarball: data.location.tarball, ino }),
            None => Ok(()),
        }
    }
}

/// The row of a new file whose data lies in the frame of its metadata, if that is what is said.
fn inline_row(said: &[InodeLocation], new: &[Extent]) -> Option<InodeRow> {
    let ([newest], [inline]) = (said, new) else { return None };
    let InodeLocation::At { location, .. } = *newest else { return None };
    let StoredData { location: data, .. } = inline.data()?;
    let together = (data.tarball, data.frame) == (location.tarball, location.frame);
    let whole = together && inline.chunks.start() == ChunkNo::new(0);
    whole.then_some(InodeRow { newest: *newest, inline: Some(*inline) })
}

pub(crate) fn inode_location(tarball: TarballId, entry: &Entry) -> Option<InodeLocation> {
    match *entry {
        Entry::Inode { xid, frame, offset, .. } => {
            Some(InodeLocation::At { xid, location: Location { tarball, frame, offset } })
        }
        Entry::Gone { xid, .. } => Some(InodeLocation::Gone { xid }),
        Entry::Data { .. } | Entry::Hole { .. } | Entry::Lost { .. } => None,
    }
}

pub(crate) fn extent(tarball: TarballId, entry: &Entry) -> Option<Extent> {
    let (chunks, data_xid, content) = match *entry {
        Entry::Data { chunks, data_xid, frame, offset, short_bytes, .. } => {
            let location = Location { tarball, frame, offset };
            (chunks, data_xid, ExtentContent::Data(StoredData { location, short_bytes }))
        }
        Entry::Hole { chunks, data_xid, .. } => (chunks, data_xid, ExtentContent::Hole),
        Entry::Lost { chunks, data_xid, .. } => (chunks, data_xid, ExtentContent::Lost),
        Entry::Inode { .. } | Entry::Gone { .. } => return None,
    };
    // Nothing was ever written there: that is what no row means. What is lost was there, and keeps
    // its row whatever its transaction is said to be.
    let has_row = data_xid > Xid::new(0) || content == ExtentContent::Lost;
    has_row.then_some(Extent { ino: entry.ino(), chunks, data_xid, content })
}
