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
        Self { cache_bytes: 16 << 20, write_buffer_bytes: 32 << 20 }
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
    /// Contents are merged with what is there, one at a time.
    writer: Mutex<()>,
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
        Ok(Self { store, chunk_bytes, writer: Mutex::new(()) })
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
        let _writer = self.writer.lock();
        // In order, so that what is known is read with two cursors that only move forward.
        let mut entries: Vec<_> = contents.entries.iter().collect();
        entries.sort_by_key(|entry| entry.ino());
        let mut known = Known {
            inodes: self.store.cursor(Table::Inodes)?,
            extents: self.store.cursor(Table::Extents)?,
        };
        let mut changes = Changes::default();
        for entries in entries.chunk_by(|a, b| a.ino() == b.ino()) {
            let Some(ino) = entries.first().map(|entry| entry.ino()) else { continue };
            self.apply_inode((contents.tarball, ino), entries, &mut known, &mut changes)?;
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
        let until = key::inode(ino.next());
        let pairs = self.store.scan(Table::Extents, &key::extent(ino, from), Some(&until))?;
        let extent = |(key, value): Pair| self.parse_extent((&key, &value));
        pairs.take(n_max).map(|pair| extent(pair?)).collect()
    }

    /// The newest state of the inode.
    pub fn inode(&self, ino: Ino) -> Result<Option<InodePlace>, IndexError> {
        let Some(bytes) = self.store.get(Table::Inodes, &key::inode(ino))? else {
            return Ok(None);
        };
        let inode = wire::inode_from_bytes(&bytes);
        inode.map(Some).ok_or_else(|| self.store.damaged("an inode's entry cannot be read"))
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
        let before = self.known_inode(ino, known)?;
        let newest = entries.iter().filter_map(|entry| inode_place(tarball, entry));
        let newest = newest.chain(before).max_by_key(InodePlace::rank);
        changes.inodes.extend(newest.filter(|_| newest != before).map(|inode| (ino, inode)));
        if let Some(InodePlace::Gone { .. }) = newest {
            // Nothing can come after the end of an inode.
            let mut before = BTreeMap::new();
            self.load_overlapping(ino, ChunkRange::ALL, known, &mut before)?;
            for extent in before.values() {
                changes.remove(extent);
            }
            return Ok(());
        }
        let new: Vec<_> = entries.iter().filter_map(|entry| extent(tarball, entry)).collect();
        let mut before = BTreeMap::new();
        for chunks in new.iter().map(|extent| extent.chunks) {
            self.load_overlapping(ino, chunks, known, &mut before)?;
        }
        if let (true, [only]) = (before.is_empty(), new.as_slice()) {
            changes.insert(only);
            return Ok(());
        }
        let mut map = ExtentMap::default();
        for extent in before.values() {
            map.load(*extent);
        }
        for extent in new {
            map.add(extent, self.chunk_bytes);
        }
        for (first, old) in &before {
            if map.starting_at(*first) != Some(old) {
                changes.remove(old);
            }
        }
        for new in map.extents().filter(|new| before.get(&new.chunks.start()) != Some(new)) {
            changes.insert(new);
        }
        Ok(())
    }

    fn known_inode(
        &self,
        ino: Ino,
        known: &mut Known<'_>,
    ) -> Result<Option<InodePlace>, IndexError> {
        let key = key::inode(ino);
        let found = known.inodes.at_or_after(&key)?.filter(|(at, _)| *at == key);
        let Some((_, value)) = found else { return Ok(None) };
        let inode = wire::inode_from_bytes(value);
        inode.map(Some).ok_or_else(|| self.store.damaged("an inode's entry cannot be read"))
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

    fn write_changes(&self, changes: Changes) -> Result<(), IndexError> {
        let Changes { inodes, live_chunks, inserted, removed } = changes;
        let mut batch = self.store.batch();
        // Removals first: a new extent may have the key of an old one.
        for extent in removed {
            batch.delete(Table::Extents, &key::extent(extent.ino, extent.chunks.last()))?;
        }
        for extent in inserted {
            let key = key::extent(extent.ino, extent.chunks.last());
            batch.put(Table::Extents, &key, &wire::extent_to_bytes(&extent))?;
        }
        for (ino, inode) in inodes {
            batch.put(Table::Inodes, &key::inode(ino), &wire::inode_to_bytes(&inode))?;
        }
        for (id, delta) in live_chunks {
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

/// Changes to be written together.
#[derive(Default)]
struct Changes {
    inodes: Vec<(Ino, InodePlace)>,
    removed: Vec<Extent>,
    inserted: Vec<Extent>,
    live_chunks: BTreeMap<TarballId, i64>,
}

impl Changes {
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
