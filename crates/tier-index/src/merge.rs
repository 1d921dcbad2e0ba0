//! What contents change of what is known.

use std::collections::BTreeMap;

use tier_types::{ChunkNo, ChunkRange, Ino, Xid};

use crate::changes::Changes;
use crate::edit::ExtentMap;
use crate::store::{Cursor, Store, Table};
use crate::tables::InodeEntry;
use crate::{Entry, Extent, IndexError, InodePlace, Place, TarballId, key};

/// Merges what a tarball says, inode by inode in order, with what an index knew before.
pub(crate) struct Merge<'a> {
    store: &'a Store,
    tarball: TarballId,
    chunk_bytes: u32,
    inodes: Cursor<'a>,
    extents: Cursor<'a>,
    changes: &'a mut Changes,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(
        store: &'a Store,
        (tarball, chunk_bytes): (TarballId, u32),
        changes: &'a mut Changes,
    ) -> Result<Self, IndexError> {
        changes.clear();
        let (inodes, extents) = (store.cursor(Table::Inodes)?, store.cursor(Table::Extents)?);
        Ok(Self { store, tarball, chunk_bytes, inodes, extents, changes })
    }

    /// Merges all entries of one inode.
    pub(crate) fn inode(&mut self, ino: Ino, entries: &[&Entry]) -> Result<(), IndexError> {
        let tarball = self.tarball;
        let entry = self.known_inode(ino)?;
        if entry.is_none()
            && let Some((inode, whole)) = whole_file(tarball, entries)
            && !self.knows_extents(ino)?
        {
            self.changes.inode(ino, inode, Some(whole));
            return Ok(());
        }
        let (before, whole) = entry.unzip();
        let whole = whole.flatten();
        let newest = entries.iter().filter_map(|entry| inode_place(tarball, entry));
        let newest = newest.chain(before).max_by_key(InodePlace::rank);
        let gone = matches!(newest, Some(InodePlace::Gone { .. }));
        let new: Vec<_> = entries.iter().filter_map(|entry| extent(tarball, entry)).collect();
        // Nothing can come after the end of an inode, and nothing of it stays.
        let touched = if gone { vec![ChunkRange::ALL] } else { chunks_of(&new) };
        let mut extents = BTreeMap::new();
        for chunks in touched {
            self.load_overlapping(ino, chunks, &mut extents)?;
            let whole = whole.filter(|whole| whole.chunks.intersection(chunks).is_some());
            extents.extend(whole.map(|whole| (whole.chunks.start(), whole)));
        }
        let after = if gone { ExtentMap::default() } else { self.merged(&extents, new) };
        let data_changed = self.change_extents(&extents, &after);
        // Once something changes, what the entry held gets an entry of its own, if it is still so.
        let splits = whole.is_some() && (data_changed || newest != before);
        if let Some(whole) = whole.filter(|_| splits) {
            let stays = match extents.get(&whole.chunks.start()) {
                Some(_) => after.starting_at(whole.chunks.start()) == Some(&whole),
                None => true,
            };
            if stays {
                self.changes.move_out(whole);
            }
        }
        if let Some(inode) = newest.filter(|_| newest != before || splits) {
            self.changes.inode(ino, inode, None);
        }
        Ok(())
    }

    /// Writes what came of it.
    pub(crate) fn write(self) -> Result<(), IndexError> {
        self.changes.write(self.store)
    }

    /// Whether anything is another.
    fn change_extents(&mut self, before: &BTreeMap<ChunkNo, Extent>, after: &ExtentMap) -> bool {
        let removed = before.iter().filter(|(first, old)| after.starting_at(**first) != Some(*old));
        let is_new = |new: &&Extent| before.get(&new.chunks.start()) != Some(*new);
        let mut changed = false;
        for (_, old) in removed {
            self.changes.remove(old);
            changed = true;
        }
        for new in after.extents().filter(is_new) {
            self.changes.insert(new);
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
            map.add(extent, self.chunk_bytes);
        }
        map
    }

    fn known_inode(&mut self, ino: Ino) -> Result<Option<InodeEntry>, IndexError> {
        let key = key::inode(ino);
        let found = self.inodes.at_or_after(&key)?.filter(|(at, _)| *at == key);
        found.map(|(_, value)| self.store.parse_inode(ino, value)).transpose()
    }

    fn knows_extents(&mut self, ino: Ino) -> Result<bool, IndexError> {
        let next = self.extents.at_or_after(&key::extent(ino, ChunkNo::new(0)))?;
        Ok(next.is_some_and(|(key, _)| key.starts_with(&key::inode(ino))))
    }

    fn load_overlapping(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        into: &mut BTreeMap<ChunkNo, Extent>,
    ) -> Result<(), IndexError> {
        let mut from = chunks.start();
        while let Some(pair) = self.extents.at_or_after(&key::extent(ino, from))? {
            let extent = self.store.parse_extent(pair)?;
            if extent.ino != ino || extent.chunks.start() >= chunks.end() {
                break;
            }
            into.insert(extent.chunks.start(), extent);
            from = extent.chunks.end();
        }
        Ok(())
    }
}

/// What entries say that are those of a new file whose data lies in the frame of its metadata.
fn whole_file(tarball: TarballId, entries: &[&Entry]) -> Option<(InodePlace, Extent)> {
    let [metadata, data] = entries else { return None };
    let (inode, whole) = (inode_place(tarball, metadata)?, extent(tarball, data)?);
    let InodePlace::At { place, .. } = inode else { return None };
    let together = whole.place.is_some_and(|at| at.frame == place.frame);
    (together && whole.chunks.start() == ChunkNo::new(0)).then_some((inode, whole))
}

fn chunks_of(extents: &[Extent]) -> Vec<ChunkRange> {
    extents.iter().map(|extent| extent.chunks).collect()
}

fn inode_place(tarball: TarballId, entry: &Entry) -> Option<InodePlace> {
    match *entry {
        Entry::Inode { xid, frame, offset, .. } => {
            Some(InodePlace::At { xid, place: Place { tarball, frame, offset } })
        }
        Entry::Gone { xid, .. } => Some(InodePlace::Gone { xid }),
        Entry::Data { .. } | Entry::Hole { .. } => None,
    }
}

fn extent(tarball: TarballId, entry: &Entry) -> Option<Extent> {
    let (chunks, data_xid, place, short_bytes) = match *entry {
        Entry::Data { chunks, data_xid, frame, offset, short_bytes, .. } => {
            (chunks, data_xid, Some(Place { tarball, frame, offset }), short_bytes)
        }
        Entry::Hole { chunks, data_xid, .. } => (chunks, data_xid, None, 0),
        Entry::Inode { .. } | Entry::Gone { .. } => return None,
    };
    // Nothing was ever written there: that is what no entry means.
    let written = data_xid > Xid::new(0);
    written.then_some(Extent { ino: entry.ino(), chunks, data_xid, place, short_bytes })
}
