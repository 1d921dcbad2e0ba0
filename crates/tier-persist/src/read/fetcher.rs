//! The fetcher: from a recall request to bytes, with one lookup, one ranged read, and one frame.
//!
//! The index says in which tarball and frame a chunk lies, and keeps the tarball's row: header and
//! frame table. So a recall reads nothing but the sealed bytes of one frame, from the first store
//! that has it undamaged. Every step checks what it got against what it was told, because all of it
//! is from outside: the index entry must be of exactly the transaction that was asked for, the
//! frame must be in the row's table and have its digest, the data must lie within the frame, and
//! the answer must cover its chunks. What does not fit is an error of kind `Damaged` that names it,
//! and never zeros.
//!
//! Frames that were read are kept for a while. A frame is decompressed up to the bytes that are
//! wanted, and its compressed form kept with them: a later recall of what lies behind decompresses
//! all of it, and reads nothing again.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tier_index::{Extent, ExtentContent, Index, Location, TarballId};
use tier_types::{
    Call, ErrorKind, HasKind, ObjectName, ObjectStore, PortError, RecallRequest, RecalledExtent,
    to_usize,
};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::names::FilesystemId;
use crate::format::object::Envelope;
use crate::format::tarball::row::{FrameRow, TarballObject, TarballRow};
use crate::read::ahead_frames::AheadFrames;
use crate::read::frame_cache::Cache;

/// How much a fetcher keeps in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetcherOptions {
    /// Bytes of frames, half of them for such as are read ahead.
    pub cache_bytes: usize,
    /// Tarballs whose frame table and key are kept.
    pub n_tarballs: usize,
}

impl Default for FetcherOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, n_tarballs: 64 }
    }
}

/// Reads archived data. Neighbours in a frame come along for free. See
/// [`Persister`](crate::Persister) for an example.
pub struct Fetcher {
    filesystem: FilesystemId,
    index: Arc<Index>,
    keys: Arc<Keys>,
    /// Tried in order: a damaged or missing copy in one is no end.
    stores: Vec<Arc<dyn ObjectStore>>,
    frames: Mutex<Cache<FrameId, CachedFrame>>,
    tarballs: Mutex<Cache<TarballKey, OpenTarball>>,
    ahead: Mutex<AheadFrames<FrameId, StoredFrame>>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}

/// A frame of a tarball: what is read at once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameId {
    tarball: TarballId,
    frame: u32,
}

impl FrameId {
    /// The frame of this number.
    pub fn new(tarball: TarballId, frame: u32) -> Self {
        Self { tarball, frame }
    }

    /// The one that lies `n` behind it in its tarball, which need not have as many.
    #[must_use]
    pub fn behind(self, n: u32) -> Self {
        Self { frame: self.frame.saturating_add(n), ..self }
    }

    /// How many frames it lies behind another one of its tarball; `None` if it does not.
    pub fn distance_from(self, other: Self) -> Option<u32> {
        let n = self.frame.checked_sub(other.frame)?;
        (self.tarball == other.tarball).then_some(n)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct TarballKey {
    /// Which index described it: another may have taken its location, with a row that was repaired.
    generation: u64,
    tarball: TarballId,
}

/// A frame as it is stored.
struct StoredFrame {
    compressed: Vec<u8>,
    /// The number of the store from which it was read.
    store: usize,
}

/// A frame, or the start of one with what the rest can be made from.
struct CachedFrame {
    plain: Vec<u8>,
    /// None if `plain` is all of it.
    compressed: Option<Vec<u8>>,
    /// The number of the store from which it was read.
    store: usize,
}

impl CachedFrame {
    fn is_whole(&self) -> bool {
        self.compressed.is_none()
    }

    /// What it takes in memory, in bytes.
    fn cost(&self) -> usize {
        self.plain.len() + self.compressed.as_ref().map_or(0, Vec::len)
    }
}

/// Where the data of a request lies.
#[derive(Debug)]
pub struct Located {
    extent: Extent,
    location: Location,
}

impl Located {
    /// The frame that has to be read.
    pub fn frame(&self) -> FrameId {
        FrameId { tarball: self.location.tarball, frame: self.location.frame }
    }
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
        // One half for what was read, the other for what is about to be.
        let half = options.cache_bytes / 2;
        let (frames, ahead) = (Mutex::new(Cache::new(half)), Mutex::new(AheadFrames::new(half)));
        let tarballs = Mutex::new(Cache::new(options.n_tarballs));
        Self { filesystem, index, keys, stores, frames, tarballs, ahead }
    }

    /// The data of exactly the version asked for, as far as it lies in one frame. An error of kind
    /// `Missing` says that the archive has no such version, and `Damaged` that what it has is not
    /// what was written, or that it is lost.
    pub fn fetch(&self, request: &RecallRequest) -> Result<RecalledExtent, PersistError> {
        self.fetch_located(request, &self.locate(request)?)
    }

    /// The same where it is known where the data lies.
    pub fn fetch_located(
        &self,
        request: &RecallRequest,
        located: &Located,
    ) -> Result<RecalledExtent, PersistError> {
        let started = Instant::now();
        let Located { extent, location } = located;
        // Frames hold any file's bytes: those of another one must never be served as this one's.
        assert!(
            (extent.ino, extent.data_xid) == (request.ino, request.data_xid),
            "what was located is what is asked for"
        );
        let chunk_bytes = self.index.chunk_bytes();
        // All of the extent is fetched, not only what was asked for: it lies in one frame, and a
        // reader that wants its first chunk mostly wants the others.
        let start = to_usize(u64::from(location.offset));
        let end = start.saturating_add(to_usize(extent.data_bytes(chunk_bytes)));
        let frame = self.frame(located.frame(), end)?;
        let bytes = frame.plain.get(start..end).ok_or_else(|| {
            let object = format!("tarball {} in frame {}", location.tarball, location.frame);
            PersistError::damaged(object, "it is shorter than the index says")
        })?;
        tracing::debug!(
            ino = %request.ino,
            chunk = %request.chunks.start(),
            tarball = %location.tarball,
            frame = location.frame,
            store = frame.store,
            bytes = bytes.len(),
            elapsed = ?started.elapsed(),
            "fetched"
        );
        // Checks that the bytes cover the chunks, and that the chunk asked for is among them.
        RecalledExtent::new(request, extent.chunks, bytes.to_vec(), chunk_bytes)
            .map_err(PersistError::Recalled)
    }

    /// Reads a frame for those that will ask for it, as it is stored: nothing of it is
    /// decompressed. Whether it is there now; not if there is no such frame, or if it is so large
    /// that those of before would have to go for it.
    pub fn read_ahead(&self, id: FrameId) -> Result<bool, PersistError> {
        if self.frames.lock().get(&id).is_some() || self.ahead.lock().contains(&id) {
            return Ok(true);
        }
        let tarball = self.tarball(id.tarball)?;
        if to_usize(u64::from(id.frame)) >= tarball.row.frames.len() {
            return Ok(false);
        }
        let bytes = tarball.frame(id.frame)?.compressed_bytes();
        if !self.ahead.lock().begin(id, bytes, Instant::now()) {
            return Ok(false);
        }
        // Compared now, while there is another copy to go to.
        let check = |compressed: Vec<u8>| {
            tarball.check(id.frame, &compressed)?;
            Ok(compressed)
        };
        match self.first_copy(&tarball, id.frame, check) {
            Ok((compressed, store)) => {
                let frame = StoredFrame { compressed, store };
                self.ahead.lock().fill(&id, frame, Instant::now());
                Ok(true)
            }
            Err(error) => {
                self.ahead.lock().remove(&id);
                Err(error)
            }
        }
    }

    /// Where the data of a request lies, by the index. Another version of the chunk is as good as
    /// none.
    pub fn locate(&self, request: &RecallRequest) -> Result<Located, PersistError> {
        let RecallRequest { ino, chunks, data_xid } = *request;
        // The index knows the newest version. If that is not the one that the detour stands for,
        // the archive does not have what the detour stands for.
        let chunk = chunks.start();
        let found = self.index.find(ino, chunk)?.filter(|extent| extent.data_xid == data_xid);
        let asked = || format!("inode {ino}, chunk {chunk}, of xid {data_xid}");
        match found.map(|extent| (extent, extent.content)) {
            Some((extent, ExtentContent::Data(data))) => {
                Ok(Located { extent, location: data.location })
            }
            // It was evicted when it was archived; the tarball that had it is no longer there.
            Some((_, ExtentContent::Lost)) => Err(PersistError::Lost(asked())),
            Some((_, ExtentContent::Hole)) | None => Err(PersistError::Missing(asked())),
        }
    }

    /// The frame's plaintext up to `end` at least, if it has as much. The first time no more is
    /// decompressed than that; a request for what lies behind it gets all, and nothing is read
    /// again.
    fn frame(&self, id: FrameId, end: usize) -> Result<Arc<CachedFrame>, PersistError> {
        // The lock is not held while a frame is read: two threads may read the same one, which
        // costs time and does no harm. The recaller joins requests for the same frame before they
        // come here.
        let known = self.frames.lock().get(&id);
        if let Some(frame) = &known
            && (frame.plain.len() >= end || frame.is_whole())
        {
            return Ok(Arc::clone(frame));
        }
        let tarball = self.tarball(id.tarball)?;
        let start =
            known.as_deref().and_then(|known| Some((known.compressed.as_ref()?, known.store)));
        let frame = Arc::new(match start {
            // Where the start was not enough, what lies behind it will be wanted again.
            Some((compressed, store)) => {
                let plain = tarball.decompress(id.frame, compressed, usize::MAX)?;
                CachedFrame { plain, compressed: None, store }
            }
            None => self.new_frame(&tarball, id, end)?,
        });
        self.frames.lock().insert(id, &frame, frame.cost());
        Ok(frame)
    }

    /// The start of a frame that was read ahead, or is read now.
    fn new_frame(
        &self,
        tarball: &OpenTarball,
        id: FrameId,
        end: usize,
    ) -> Result<CachedFrame, PersistError> {
        let ahead = self.ahead.lock().remove(&id);
        let ((plain, compressed), store) = match ahead {
            Some(StoredFrame { compressed, store }) => {
                ((tarball.decompress(id.frame, &compressed, end)?, compressed), store)
            }
            None => self.first_copy(tarball, id.frame, |compressed| {
                Ok((tarball.decompress(id.frame, &compressed, end)?, compressed))
            })?,
        };
        // If all of it was decompressed its compressed form is of no more use.
        let is_whole = plain.len() == tarball.frame(id.frame)?.decompressed_bytes();
        Ok(CachedFrame { plain, compressed: (!is_whole).then_some(compressed), store })
    }

    /// Reads a stored frame from the first store that has it undamaged, of which `open` is the last
    /// judge, and says which store that was.
    fn first_copy<T>(
        &self,
        tarball: &OpenTarball,
        number: u32,
        open: impl Fn(Vec<u8>) -> Result<T, PersistError>,
    ) -> Result<(T, usize), PersistError> {
        let mut first_error = None;
        let (mut frozen_in, mut passes) = (None, None);
        for (store, objects) in self.stores.iter().enumerate() {
            match tarball.read(objects.as_ref(), number).and_then(&open) {
                Ok(opened) => return Ok((opened, store)),
                // Another copy may be better, whatever is wrong with this one. A damaged copy says
                // more than one that was never there.
                Err(error) => {
                    let name = &tarball.name;
                    tracing::debug!(%name, frame = number, store, %error, "cannot read a frame");
                    let kind = error.kind();
                    if kind == (ErrorKind::Frozen { within: None }) {
                        frozen_in = frozen_in.or(Some((store, objects)));
                    } else if kind.may_pass() || matches!(kind, ErrorKind::Frozen { .. }) {
                        // It comes from there.
                        passes = Some(error);
                        continue;
                    }
                    let missing = |e: &PersistError| e.kind() == ErrorKind::Missing;
                    if first_error.as_ref().is_none_or(missing) {
                        first_error = Some(error);
                    }
                }
            }
        }
        if let Some(error) = passes {
            return Err(error);
        }
        // Only now: another copy would have cost nothing.
        if let Some((store, objects)) = frozen_in {
            let thawed = objects.thaw(&Call::interactive(), &tarball.name);
            return match thawed.map_err(PersistError::Store)? {
                Some(within) => Err(PersistError::Store(PortError::frozen(&tarball.name, within))),
                // It was thawed between the two.
                None => {
                    let opened = tarball.read(objects.as_ref(), number).and_then(&open)?;
                    Ok((opened, store))
                }
            };
        }
        Err(first_error.unwrap_or_else(|| PersistError::Missing(tarball.name.to_string())))
    }

    fn tarball(&self, id: TarballId) -> Result<Arc<OpenTarball>, PersistError> {
        // Read before the row: a replacement between the two keeps a new row under the old
        // generation, which costs one more question. The other order would keep an old row as new.
        let key = TarballKey { generation: self.index.generation(), tarball: id };
        if let Some(tarball) = self.tarballs.lock().get(&key) {
            return Ok(tarball);
        }
        let damaged = |problem| PersistError::damaged(format!("the index's row of {id}"), problem);
        let bytes = self.index.tarball_row(id)?.ok_or_else(|| damaged("it is not there"))?;
        let row = TarballRow::from_bytes(&bytes).ok_or_else(|| damaged("it cannot be read"))?;
        // The name is made of it: the data would come from another object.
        if row.id != id {
            return Err(damaged("it is another tarball's"));
        }
        let tarball = Arc::new(OpenTarball::new(row, self.filesystem, &self.keys)?);
        self.tarballs.lock().insert(key, &tarball, 1);
        Ok(tarball)
    }
}

/// A tarball of which the index gave the row.
struct OpenTarball {
    name: ObjectName,
    row: TarballRow,
    envelope: Envelope,
}

impl OpenTarball {
    fn new(row: TarballRow, filesystem: FilesystemId, keys: &Keys) -> Result<Self, PersistError> {
        let name = row.object_name(filesystem);
        let TarballObject { header, content, .. } = &row.object;
        let envelope = Envelope::of_object(&name, header, content.len_bytes, keys)?;
        Ok(Self { name, row, envelope })
    }

    fn frame(&self, number: u32) -> Result<&FrameRow, PersistError> {
        let frame = self.row.frames.get(to_usize(u64::from(number)));
        frame.ok_or_else(|| PersistError::damaged(self.frame_name(number), "no such frame"))
    }

    fn frame_name(&self, number: u32) -> String {
        format!("{} in frame {number}", self.name)
    }

    /// The compressed frame.
    fn read(&self, store: &dyn ObjectStore, number: u32) -> Result<Vec<u8>, PersistError> {
        let range = self.frame(number)?.range(&|| self.frame_name(number))?;
        self.envelope.read(&Call::interactive(), store, &self.name, range)
    }

    /// An error if a stored frame is not what was written.
    fn check(&self, number: u32, compressed: &[u8]) -> Result<(), PersistError> {
        self.frame(number)?.check_digest(compressed, &|| self.frame_name(number))
    }

    /// The first `n_bytes` of the frame, or all of it.
    fn decompress(
        &self,
        number: u32,
        compressed: &[u8],
        n_bytes: usize,
    ) -> Result<Vec<u8>, PersistError> {
        self.frame(number)?.decompress_start(compressed, n_bytes, &|| self.frame_name(number))
    }
}
