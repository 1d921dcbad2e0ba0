//! From a recall request to bytes: one lookup, one ranged read, one frame.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tier_index::{Index, Location, TarballId};
use tier_types::{
    ErrorKind, HasKind, ObjectName, ObjectStore, RecallRequest, RecalledExtent, to_usize,
};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::names::{self, FilesystemId};
use crate::format::object::Envelope;
use crate::format::tarball::row::{FrameRow, TarballRow, decompress_start};

/// How much a fetcher keeps in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetcherOptions {
    /// Decompressed frames.
    pub cache_bytes: usize,
    /// Tarballs whose frame table and key are kept.
    pub n_tarballs: usize,
}

impl Default for FetcherOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, n_tarballs: 64 }
    }
}

/// Reads archived data. Neighbours in a frame come along for free.
pub struct Fetcher {
    filesystem: FilesystemId,
    index: Arc<Index>,
    keys: Arc<Keys>,
    /// Tried in order: a damaged or missing copy in one is no end.
    stores: Vec<Arc<dyn ObjectStore>>,
    frames: Mutex<Cache<(TarballId, u32), CachedFrame>>,
    /// By the index that described them, too: another may have taken its place.
    tarballs: Mutex<Cache<(u64, TarballId), OpenTarball>>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}

/// A frame, or the start of one with what the rest can be made from.
struct CachedFrame {
    plain: Vec<u8>,
    /// None if `plain` is all of it.
    compressed: Option<Vec<u8>>,
}

struct OpenTarball {
    name: ObjectName,
    row: TarballRow,
    envelope: Envelope,
    plain_bytes: u64,
}

impl Fetcher {
    /// Reads from these stores, in this order of preference.
    pub fn new(
        filesystem: FilesystemId,
        index: Arc<Index>,
        keys: Arc<Keys>,
        stores: Vec<Arc<dyn ObjectStore>>,
        options: FetcherOptions,
    ) -> Self {
        let frames = Mutex::new(Cache::new(options.cache_bytes));
        let tarballs = Mutex::new(Cache::new(options.n_tarballs));
        Self { filesystem, index, keys, stores, frames, tarballs }
    }

    /// The data of exactly the version asked for, as far as it lies in one frame.
    pub fn fetch(&self, request: &RecallRequest) -> Result<RecalledExtent, PersistError> {
        let chunk = request.chunks.start();
        let found = self.index.find(request.ino, chunk)?;
        let found = found.filter(|extent| extent.data_xid == request.data_xid);
        let located = found.and_then(|extent| extent.location.map(|location| (extent, location)));
        let (extent, location) = located.ok_or_else(|| {
            let RecallRequest { ino, data_xid, .. } = request;
            PersistError::Missing(format!("inode {ino}, chunk {chunk}, of xid {data_xid}"))
        })?;
        let start = to_usize(u64::from(location.offset));
        let end = start.saturating_add(to_usize(extent.data_bytes(self.index.chunk_bytes())));
        let frame = self.frame(&location, end)?;
        let bytes = frame.plain.get(start..end).ok_or_else(|| {
            let object = format!("tarball {} in frame {}", location.tarball, location.frame);
            PersistError::damaged(object, "it is shorter than the index says")
        })?;
        let chunk_bytes = self.index.chunk_bytes();
        RecalledExtent::new(request, extent.chunks, bytes.to_vec(), chunk_bytes)
            .map_err(PersistError::Store)
    }

    /// The frame's plaintext up to `end` at least, if it has as much. The first time no more is
    /// decompressed than that; who comes back for what lies behind it gets all, and nothing is
    /// read again.
    fn frame(&self, location: &Location, end: usize) -> Result<Arc<CachedFrame>, PersistError> {
        let key = (location.tarball, location.frame);
        let known = self.frames.lock().get(&key);
        if let Some(frame) = &known
            && (frame.plain.len() >= end || frame.compressed.is_none())
        {
            return Ok(Arc::clone(frame));
        }
        let tarball = self.tarball(location.tarball)?;
        let frame = match known.as_ref().and_then(|frame| frame.compressed.as_ref()) {
            Some(compressed) => {
                let plain = tarball.decompress(location.frame, compressed, usize::MAX)?;
                CachedFrame { plain, compressed: None }
            }
            None => self.read_frame(&tarball, location.frame, end)?,
        };
        let cost = frame.plain.len() + frame.compressed.as_ref().map_or(0, Vec::len);
        let frame = Arc::new(frame);
        self.frames.lock().insert(key, &frame, cost);
        Ok(frame)
    }

    /// Reads a frame from the first store that has it undamaged.
    fn read_frame(
        &self,
        tarball: &OpenTarball,
        number: u32,
        end: usize,
    ) -> Result<CachedFrame, PersistError> {
        let mut first_error = None;
        for store in &self.stores {
            let read = tarball.read(store.as_ref(), number).and_then(|compressed| {
                let plain = tarball.decompress(number, &compressed, end)?;
                Ok((plain, compressed))
            });
            match read {
                Ok((plain, compressed)) => {
                    let whole = tarball.frame_bytes(number) == Some(plain.len());
                    return Ok(CachedFrame { plain, compressed: (!whole).then_some(compressed) });
                }
                // Another copy may be better, whatever is wrong with this one. A damaged copy says
                // more than one that was never there.
                Err(error) => {
                    let missing = |e: &PersistError| e.kind() == ErrorKind::Missing;
                    if first_error.as_ref().is_none_or(missing) {
                        first_error = Some(error);
                    }
                }
            }
        }
        Err(first_error.unwrap_or_else(|| PersistError::Missing(tarball.name.to_string())))
    }

    fn tarball(&self, id: TarballId) -> Result<Arc<OpenTarball>, PersistError> {
        let key = (self.index.generation(), id);
        if let Some(tarball) = self.tarballs.lock().get(&key) {
            return Ok(tarball);
        }
        let damaged = |problem| PersistError::damaged(format!("the index's row of {id}"), problem);
        let row = self.index.tarball_row(id)?.ok_or_else(|| damaged("it is not there"))?;
        let row = TarballRow::from_bytes(&row).ok_or_else(|| damaged("it cannot be read"))?;
        let name = names::tarball_name(self.filesystem, id, row.encrypted);
        let envelope = Envelope::from_header(&row.header, &self.keys, name.as_str())?;
        let plain_bytes = envelope.plain_len(row.object_bytes);
        let plain_bytes = plain_bytes.ok_or_else(|| damaged("its length cannot be right"))?;
        let tarball = Arc::new(OpenTarball { name, row, envelope, plain_bytes });
        self.tarballs.lock().insert(key, &tarball, 1);
        Ok(tarball)
    }
}

impl OpenTarball {
    fn row_of(&self, number: u32) -> Result<&FrameRow, PersistError> {
        let frame = self.row.frames.get(to_usize(u64::from(number)));
        frame.ok_or_else(|| PersistError::damaged(self.frame_name(number), "no such frame"))
    }

    fn frame_name(&self, number: u32) -> String {
        format!("{} in frame {number}", self.name)
    }

    /// Length of the frame's plaintext.
    fn frame_bytes(&self, number: u32) -> Option<usize> {
        self.row_of(number).ok().map(|frame| to_usize(u64::from(frame.decompressed)))
    }

    /// The compressed frame.
    fn read(&self, store: &dyn ObjectStore, number: u32) -> Result<Vec<u8>, PersistError> {
        let frame = self.row_of(number)?;
        let len = to_usize(u64::from(frame.compressed));
        self.envelope.read((store, &self.name), (frame.offset, len), self.plain_bytes)
    }

    /// The first `n_bytes` of the frame, or all of it.
    fn decompress(
        &self,
        number: u32,
        compressed: &[u8],
        n_bytes: usize,
    ) -> Result<Vec<u8>, PersistError> {
        decompress_start(compressed, self.row_of(number)?, n_bytes, &|| self.frame_name(number))
    }
}

/// Keeps what was used last, up to a total cost. Few, large entries.
struct Cache<K, V> {
    entries: HashMap<K, Cached<V>>,
    cost: usize,
    cost_max: usize,
    tick: u64,
}

struct Cached<V> {
    value: Arc<V>,
    cost: usize,
    last_used: u64,
}

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    fn new(cost_max: usize) -> Self {
        Self { entries: HashMap::new(), cost: 0, cost_max, tick: 0 }
    }

    fn get(&mut self, key: &K) -> Option<Arc<V>> {
        self.tick += 1;
        let cached = self.entries.get_mut(key)?;
        cached.last_used = self.tick;
        Some(Arc::clone(&cached.value))
    }

    fn insert(&mut self, key: K, value: &Arc<V>, cost: usize) {
        self.tick += 1;
        let cached = Cached { value: Arc::clone(value), cost, last_used: self.tick };
        self.cost += cost;
        if let Some(old) = self.entries.insert(key, cached) {
            self.cost -= old.cost;
        }
        while self.cost > self.cost_max && self.entries.len() > 1 {
            let oldest = self.entries.iter().min_by_key(|(_, cached)| cached.last_used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { break };
            if let Some(old) = self.entries.remove(&oldest) {
                self.cost -= old.cost;
            }
        }
    }
}
