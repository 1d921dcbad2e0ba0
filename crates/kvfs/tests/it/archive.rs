//! An archive in memory, which may answer a recall in every wrong way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvfs::{Core, Kvfs};
use parking_lot::Mutex;
use tempfile::TempDir;
use tier_testkit::{OneByOne, VirtualClock};
use tier_types::{
    Call, ChunkNo, ChunkRange, ErrorKind, EvictOutcome, Ino, Persisted, PortError, Recall,
    RecallHint, RecallRequest, RecalledExtent, ResidentExtent, SnapshotId, Xid, to_usize,
};

use crate::common::{CHUNK, options};

/// How a recall is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// As much as was asked for.
    Whole,
    /// The first chunk alone.
    OneChunk,
    /// All chunks, and half of their bytes.
    Short,
    /// All chunks, and more bytes than they have.
    Long,
    /// The chunks behind those that were asked for.
    OtherChunks,
    /// An error of this kind.
    Error(ErrorKind),
}

type Key = (Ino, ChunkNo, Xid);

/// Called before an answer.
type Meanwhile = Box<dyn FnOnce() + Send>;

/// The chunks that were kept, each in its version.
pub(crate) struct MemoryArchive {
    chunks: Mutex<HashMap<Key, Vec<u8>>>,
    answer: Mutex<Answer>,
    meanwhile: Mutex<Option<Meanwhile>>,
    n_recalls: AtomicUsize,
}

impl MemoryArchive {
    fn new() -> Self {
        Self {
            chunks: Mutex::default(),
            answer: Mutex::new(Answer::Whole),
            meanwhile: Mutex::default(),
            n_recalls: AtomicUsize::new(0),
        }
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// What happens while the next recall is under way.
    pub(crate) fn meanwhile(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock() = Some(Box::new(meanwhile));
    }

    pub(crate) fn n_recalls(&self) -> usize {
        self.n_recalls.load(Ordering::Relaxed)
    }

    /// Forgets everything.
    pub(crate) fn chunks_are_gone(&self) {
        self.chunks.lock().clear();
    }

    /// Keeps what of a file is in the store, and says which that is.
    pub(crate) fn keep(&self, fs: &Kvfs, ino: Ino) -> Vec<ResidentExtent> {
        let size = fs.getattr(ino).unwrap().size_bytes;
        let mut extents = fs.resident_of(ino, ChunkNo::new(0), usize::MAX).unwrap();
        extents.retain(|extent| self.keep_extent(fs, extent, size));
        extents
    }

    /// Whether it was still this version when its data had been read.
    fn keep_extent(&self, fs: &Kvfs, extent: &ResidentExtent, size: u64) -> bool {
        let ResidentExtent { ino, chunks, data_xid } = *extent;
        let len = to_usize(chunks.len_bytes(CHUNK, size));
        let data = fs.read(ino, chunks.offset_bytes(CHUNK), len).unwrap();
        if fs.resident_of(ino, chunks.start(), 1).unwrap() != [*extent] {
            return false;
        }
        let numbers = chunks.start().get()..;
        for (number, piece) in numbers.zip(data.chunks(to_usize(u64::from(CHUNK)))) {
            self.chunks.lock().insert((ino, ChunkNo::new(number), data_xid), piece.to_vec());
        }
        true
    }

    /// Keeps and evicts all of a file, and returns the bytes that were evicted.
    pub(crate) fn keep_and_evict(&self, fs: &Kvfs, ino: Ino) -> u64 {
        evict_extents(fs, &self.keep(fs, ino))
    }
}

/// Evicts all of a file, kept or not, and returns the bytes that were evicted.
pub(crate) fn evict(fs: &Kvfs, ino: Ino) -> u64 {
    evict_extents(fs, &fs.resident_of(ino, ChunkNo::new(0), usize::MAX).unwrap())
}

fn evict_extents(fs: &Kvfs, extents: &[ResidentExtent]) -> u64 {
    let mut evicted = 0;
    for extent in extents {
        if let EvictOutcome::Evicted { bytes } = fs.evict_extent(extent).unwrap() {
            evicted += bytes;
        }
    }
    evicted
}

impl Recall for MemoryArchive {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        self.n_recalls.fetch_add(1, Ordering::Relaxed);
        let meanwhile = self.meanwhile.lock().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let mut data = Vec::new();
        let mut end = request.chunks.start();
        while end < request.chunks.end() {
            let key = (request.ino, end, request.data_xid);
            let Some(chunk) = self.chunks.lock().get(&key).cloned() else { break };
            data.extend(chunk);
            end = end.next();
            if data.len() % to_usize(u64::from(CHUNK)) != 0 {
                break;
            }
        }
        let Some(chunks) = ChunkRange::new(request.chunks.start(), end) else {
            return Err(PortError::new(ErrorKind::Missing, "no such version"));
        };
        let answer = *self.answer.lock();
        match answer {
            Answer::Whole => RecalledExtent::new(request, chunks, data, CHUNK),
            Answer::OneChunk => {
                data.truncate(to_usize(u64::from(CHUNK)));
                let one = ChunkRange::one(chunks.start()).unwrap();
                RecalledExtent::new(request, one, data, CHUNK)
            }
            Answer::Short => {
                data.truncate(data.len() / 2);
                RecalledExtent::new(request, chunks, data, CHUNK / 2)
            }
            Answer::Long => {
                data.resize(to_usize(chunks.len() * u64::from(CHUNK)) * 2, 7);
                RecalledExtent::new(request, chunks, data, CHUNK * 2)
            }
            Answer::OtherChunks => {
                let behind =
                    ChunkRange::new(chunks.end(), ChunkNo::new(chunks.end().get() + chunks.len()));
                let other = RecallRequest { chunks: behind.unwrap(), ..*request };
                RecalledExtent::new(&other, other.chunks, data, CHUNK)
            }
            Answer::Error(kind) => Err(PortError::new(kind, "on purpose")),
        }
    }
}

impl Persisted for MemoryArchive {
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        let kept = self.chunks.lock();
        let numbers = chunks.start().get()..chunks.end().get();
        let is_kept = |number: &u64| kept.contains_key(&(ino, ChunkNo::new(*number), xid));
        let mut run = numbers.skip_while(|number| !is_kept(number)).take_while(&is_kept);
        let Some(first) = run.next() else { return Ok(None) };
        let last = run.last().unwrap_or(first);
        Ok(ChunkRange::new(ChunkNo::new(first), ChunkNo::new(last + 1)))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(None)
    }
}

/// A filesystem with an archive.
pub(crate) fn tiered() -> (TempDir, Arc<Kvfs>, Arc<MemoryArchive>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let core = Core::create(dir.path(), &options(), clock).unwrap();
    let archive = Arc::new(MemoryArchive::new());
    (dir, Arc::new(Kvfs::new(Arc::new(core), archive.clone())), archive)
}
