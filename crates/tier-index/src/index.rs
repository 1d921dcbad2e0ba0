//! The index: what it answers, and how contents come in.

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

use crate::edit::ExtentMap;
use crate::store::{Cursor, Pair, Store, Table};
use crate::{Contents, Entry, Extent, IndexError, InodePlace, Place, TarballId, key, wire};

const META_APPLIED: &[u8] = b"applied";
const META_CHUNK_BYTES: &[u8] = b"chunk-bytes";

/// How much memory an index may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexOptions {
    /// Cache of blocks, filters and block indexes.
    pub cache_bytes: usize,
    /// Changes that are not yet in files.
    pub write_buffer_bytes: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, write_buffer_bytes: 16 << 20 }
    }
}

/// The last manifest that an index includes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The writer's reign.
    pub epoch: Epoch,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The manifest's digest.
    pub manifest_digest: [u8; 32],
}

/// Where everything is. One process opens it; threads share it.
#[derive(Debug)]
pub struct Index {
    store: Store,
    chunk_bytes: u32,
    /// Contents are merged with what is there, one at a time; the memory for changes is used again.
    writer: Mutex<Changes>,
}

impl Index {
    /// Opens the index in this folder, or makes an empty one for chunks of this size in bytes.
    pub fn open(path: &Path, chunk_bytes: u32, options: &IndexOptions) -> Result<Self, IndexError> {
        let store = Store::open(path, options)?;
        match store.get(Table::Meta, META_CHUNK_BYTES)? {
            Some(stored) if stored == chunk_bytes.to_le_bytes() => {}
            Some(_) => return Err(store.damaged("it was made for another chunk size")),
            None => {
                let mut batch = store.batch();
                batch.put(Table::Meta, META_CHUNK_BYTES, &chunk_bytes.to_le_bytes())?;
                batch.write()?;
                store.flush()?;
            }
        }
        Ok(Self { store, chunk_bytes, writer: Mutex::default() })
    }

    /// The filesystem's chunk size in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// The last manifest that the index includes; `None` for an empty index.
    pub fn applied(&self) -> Result<Option<Applied>, IndexError> {
        let Some(bytes) = self.store.get(Table::Meta, META_APPLIED)? else { return Ok(None) };
        wire::applied_from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| self.store.damaged("the last applied manifest cannot be read"))
    }

    /// Says that all contents of a manifest were applied. It reaches the disk with them, or not at
    /// all: at the latest with the next [`flush`](Self::flush).
    pub fn set_applied(&self, applied: &Applied) -> Result<(), IndexError> {
        let mut batch = self.store.batch();
        batch.put(Table::Meta, META_APPLIED, &wire::applied_to_bytes(applied))?;
        batch.write()
    }

    /// Makes everything that was applied durable.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.store.flush()
    }

    /// Makes a tarball known, with the bytes that its reader will need. To be called before its
    /// contents are applied; again with the same bytes it changes nothing.
    pub fn add_tarball(&self, id: TarballId, row: &[u8]) -> Result<(), IndexError> {
        let _writer = self.writer.lock();
        let live_chunks = self.tarball(id)?.map_or(0, |(live_chunks, _)| live_chunks);
        let mut batch = self.store.batch();
        batch.put(Table::Tarballs, &key::tarball(id), &wire::tarball_to_bytes(live_chunks, row))?;
        batch.write()
    }

    /// The row given to [`add_tarball`](Self::add_tarball).
    pub fn tarball_row(&self, id: TarballId) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.tarball(id)?.map(|(_, row)| row))
    }

    /// The tarballs, in the order of writing, with the chunks that are still live in each.
    pub fn tarballs(&self) -> Result<Vec<(TarballId, u64)>, IndexError> {
        let mut tarballs = Vec::new();
        for pair in self.store.scan(Table::Tarballs, &[], None)? {
            let (key, value) = pair?;
            let id = key::parse_tarball(&key);
            let row = wire::tarball_from_bytes(&value);
            let (Some(id), Some((live_chunks, _))) = (id, row) else {
                return Err(self.store.damaged("a tarball's row cannot be read"));
            };
            tarballs.push((id, live_chunks));
        }
        Ok(tarballs)
    }

    /// Takes in contents. What they say wins where their transactions are later than what is
    /// known, so that applying them twice, or late, does no harm.
    pub fn apply(&self, contents: &Contents) -> Result<(), IndexError> {
        if contents.chunk_bytes != self.chunk_bytes {
            return Err(IndexError::ChunkSize {
                index: self.chunk_bytes,
                contents: contents.chunk_bytes,
            });
        }
        let mut writer = self.writer.lock();
        // In order, so that what is known is read with two cursors that only move forward.
        let mut entries: Vec<_> = contents.entries.iter().collect();
        entries.sort_by_key(|entry| entry.ino());
        let mut known = Known {
            inodes: self.store.cursor(Table::Inodes)?,
            extents: self.store.cursor(Table::Extents)?,
        };
        let changes = &mut *writer;
        changes.clear();
        for entries in entries.chunk_by(|a, b| a.ino() == b.ino()) {
            let Some(ino) = entries.first().map(|entry| entry.ino()) else { continue };
            self.apply_inode((contents.tarball, ino), entries, &mut known, changes)?;
        }
        self.write_changes(changes)
    }

    /// The newest state of the chunk, as the extent that holds it.
    pub fn find(&self, ino: Ino, chunk: ChunkNo) -> Result<Option<Extent>, IndexError> {
        let found = self.extents(ino, chunk, 1)?.pop();
        Ok(found.filter(|extent| extent.chunks.contains(chunk)))
    }

    /// The first `n_max` extents of the inode that end after `from`.
    pub fn extents(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<Extent>, IndexError> {
        let whole = self.entry(ino)?.and_then(|(_, whole)| whole);
        let whole = whole.filter(|whole| whole.chunks.end() > from && n_max > 0);
        let until = key::inode(ino.next());
        let pairs = self.store.scan(Table::Extents, &key::extent(ino, from), Some(&until))?;
        let extent = |(key, value): Pair| self.parse_extent((&key, &value));
        let rest = n_max - usize::from(whole.is_some());
        whole.map(Ok).into_iter().chain(pairs.take(rest).map(|pair| extent(pair?))).collect()
    }

    /// The newest state of the inode.
    pub fn inode(&self, ino: Ino) -> Result<Option<InodePlace>, IndexError> {
        Ok(self.entry(ino)?.map(|(inode, _)| inode))
    }

    /// The database's own statistics, for people.
    pub fn statistics(&self) -> String {
        self.store.statistics()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn parse_extent(&self, (key, value): (&[u8], &[u8])) -> Result<Extent, IndexError> {
        key::parse_extent(key)
            .and_then(|(ino, last)| wire::extent_from_bytes(ino, last, value))
            .ok_or_else(|| self.store.damaged("an extent's entry cannot be read"))
    }

    fn entry(&self, ino: Ino) -> Result<Option<InodeEntry>, IndexError> {
        let Some(bytes) = self.store.get(Table::Inodes, &key::inode(ino))? else {
            return Ok(None);
        };
        self.parse_entry(ino, &bytes).map(Some)
    }

    fn parse_entry(&self, ino: Ino, bytes: &[u8]) -> Result<InodeEntry, IndexError> {
        let entry = wire::inode_from_bytes(ino, bytes);
        entry.ok_or_else(|| self.store.damaged("an inode's entry cannot be read"))
    }

    fn tarball(&self, id: TarballId) -> Result<Option<(u64, Vec<u8>)>, IndexError> {
        let Some(bytes) = self.store.get(Table::Tarballs, &key::tarball(id))? else {
            return Ok(None);
        };
        let row = wire::tarball_from_bytes(&bytes).map(|(live, row)| (live, row.to_vec()));
        row.map(Some).ok_or_else(|| self.store.damaged("a tarball's row cannot be read"))
    }

    fn apply_inode(
        &self,
        (tarball, ino): (TarballId, Ino),
        entries: &[&Entry],
        known: &mut Known<'_>,
        changes: &mut Changes,
    ) -> Result<(), IndexError> {
        let entry = self.known_inode(ino, known)?;
        if entry.is_none()
            && let Some((inode, whole)) = whole_file(tarball, entries)
            && !known.has_extents(ino)?
        {
            changes.count(&whole, 1);
            changes.inodes.push((ino, inode, Some(whole)));
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
            self.load_overlapping(ino, chunks, known, &mut extents)?;
            let whole = whole.filter(|whole| whole.chunks.intersection(chunks).is_some());
            extents.extend(whole.map(|whole| (whole.chunks.start(), whole)));
        }
        let after = if gone { ExtentMap::default() } else { self.merged(&extents, new) };
        let mut data_changed = false;
        for (first, old) in &extents {
            if after.starting_at(*first) != Some(old) {
                changes.remove(old);
                data_changed = true;
            }
        }
        for new in after.extents().filter(|new| extents.get(&new.chunks.start()) != Some(new)) {
            changes.insert(new);
            data_changed = true;
        }
        // Once something changes, what the entry held gets an entry of its own, if it is still so.
        let splits = whole.is_some() && (data_changed || newest != before);
        if let Some(whole) = whole.filter(|_| splits) {
            let stays = match extents.get(&whole.chunks.start()) {
                Some(_) => after.starting_at(whole.chunks.start()) == Some(&whole),
                None => true,
            };
            changes.moved.extend(stays.then_some(whole));
        }
        let inode = newest.filter(|_| newest != before || splits);
        changes.inodes.extend(inode.map(|inode| (ino, inode, None)));
        Ok(())
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

    fn known_inode(
        &self,
        ino: Ino,
        known: &mut Known<'_>,
    ) -> Result<Option<InodeEntry>, IndexError> {
        let key = key::inode(ino);
        let found = known.inodes.at_or_after(&key)?.filter(|(at, _)| *at == key);
        found.map(|(_, value)| self.parse_entry(ino, value)).transpose()
    }

    fn load_overlapping(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        known: &mut Known<'_>,
        into: &mut BTreeMap<ChunkNo, Extent>,
    ) -> Result<(), IndexError> {
        let mut from = chunks.start();
        while let Some(pair) = known.extents.at_or_after(&key::extent(ino, from))? {
            let extent = self.parse_extent(pair)?;
            if extent.ino != ino || extent.chunks.start() >= chunks.end() {
                break;
            }
            into.insert(extent.chunks.start(), extent);
            from = extent.chunks.end();
        }
        Ok(())
    }

    fn write_changes(&self, changes: &Changes) -> Result<(), IndexError> {
        let Changes { inodes, live_chunks, inserted, moved, removed } = changes;
        let mut batch = self.store.batch_of(inodes.len() + inserted.len() + removed.len());
        // Removals first: a new extent may have the key of an old one.
        for extent in removed {
            batch.delete(Table::Extents, &key::extent(extent.ino, extent.chunks.last()))?;
        }
        for extent in inserted.iter().chain(moved) {
            let key = key::extent(extent.ino, extent.chunks.last());
            batch.put(Table::Extents, &key, &wire::extent_to_bytes(extent))?;
        }
        for (ino, inode, whole) in inodes {
            let value = wire::inode_to_bytes(inode, whole.as_ref());
            batch.put(Table::Inodes, &key::inode(*ino), &value)?;
        }
        for (&id, &delta) in live_chunks {
            let row = self.tarball(id)?;
            let (live, row) = row.ok_or_else(|| self.store.damaged("a tarball is not known"))?;
            let live = live.checked_add_signed(delta);
            let live = live.ok_or_else(|| self.store.damaged("live chunks do not add up"))?;
            batch.put(Table::Tarballs, &key::tarball(id), &wire::tarball_to_bytes(live, &row))?;
        }
        batch.write()
    }
}

/// What an index knew before a batch, read in order.
struct Known<'a> {
    inodes: Cursor<'a>,
    extents: Cursor<'a>,
}

impl Known<'_> {
    fn has_extents(&mut self, ino: Ino) -> Result<bool, IndexError> {
        let next = self.extents.at_or_after(&key::extent(ino, ChunkNo::new(0)))?;
        Ok(next.is_some_and(|(key, _)| key.starts_with(&key::inode(ino))))
    }
}

/// Changes to be written together.
#[derive(Default, Debug)]
struct Changes {
    inodes: Vec<(Ino, InodePlace, Option<Extent>)>,
    removed: Vec<Extent>,
    inserted: Vec<Extent>,
    /// Known before, in the entry of an inode.
    moved: Vec<Extent>,
    live_chunks: BTreeMap<TarballId, i64>,
}

impl Changes {
    fn clear(&mut self) {
        self.inodes.clear();
        self.removed.clear();
        self.inserted.clear();
        self.moved.clear();
        self.live_chunks.clear();
    }

    fn insert(&mut self, extent: &Extent) {
        self.inserted.push(*extent);
        self.count(extent, 1);
    }

    fn remove(&mut self, extent: &Extent) {
        self.removed.push(*extent);
        self.count(extent, -1);
    }

    fn count(&mut self, extent: &Extent, sign: i64) {
        if let Some(place) = extent.place {
            let chunks = i64::try_from(extent.live_chunks()).unwrap_or(i64::MAX);
            *self.live_chunks.entry(place.tarball).or_default() += sign * chunks;
        }
    }
}

/// The entry of an inode, and the extent of a new inode whose data lies with its metadata: most files
/// are small and written once, and so take one entry.
type InodeEntry = (InodePlace, Option<Extent>);

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
