//! The payload of a tarball: compressed frames joined and cut into runs, each sealed by a worker.
//!
//! A run is laid out as it is sealed, with room for a tag after each chunk, so that a worker seals
//! it where it lies and the writer writes it from there: each compressed byte is copied once, from
//! its frame into its run. A chunk is closed only when more comes behind it: so the last chunk of
//! all, which is sealed differently, is never an empty one.

use std::sync::Arc;

use crossbeam_channel::Sender;
use tier_types::to_u64;

use super::sink::{RunSink, RunSlot};
use crate::error::PersistError;
use crate::format::age::{CHUNK_BYTES, PayloadKey, TAG_BYTES};

/// Age chunks that are sealed in one go.
const RUN_CHUNKS: usize = 16;
const RUN_BYTES: usize = RUN_CHUNKS * (CHUNK_BYTES + TAG_BYTES);

/// A run to be sealed in place.
pub(super) struct SealJob {
    run: Vec<u8>,
    key: Arc<PayloadKey>,
    first_chunk: u64,
    last: bool,
    slot: RunSlot,
}

impl SealJob {
    pub(super) fn run(self) {
        let Self { mut run, key, first_chunk, last, slot } = self;
        key.seal_in_place(&mut run, first_chunk, last);
        slot.fill(run);
    }
}

/// Takes the plaintext of one tarball.
pub(super) struct Payload {
    runs: RunSink,
    sealer: Sender<SealJob>,
    /// None for a tarball in clear.
    key: Option<Arc<PayloadKey>>,
    /// Laid out as it is sealed: with room for a tag after each chunk that is complete.
    run: Vec<u8>,
    /// Plaintext bytes of the last chunk in `run`.
    chunk_bytes: usize,
    first_chunk: u64,
}

impl Payload {
    pub(super) fn new(runs: RunSink, sealer: Sender<SealJob>, key: Option<PayloadKey>) -> Self {
        Self {
            runs,
            sealer,
            key: key.map(Arc::new),
            run: Vec::with_capacity(RUN_BYTES),
            chunk_bytes: 0,
            first_chunk: 0,
        }
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<(), PersistError> {
        while !bytes.is_empty() {
            if self.chunk_bytes == CHUNK_BYTES {
                self.close_chunk();
                if self.run.len() >= RUN_CHUNKS * CHUNK_BYTES {
                    self.submit(false)?;
                }
            }
            // A frame may end within a chunk and go over several of them: chunks know no frames.
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk_bytes));
            self.run.extend_from_slice(now);
            self.chunk_bytes += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Ends the tarball.
    pub(super) fn finish(&mut self) -> Result<(), PersistError> {
        assert!(self.chunk_bytes > 0, "a tarball is not empty, and so its last chunk is not");
        self.close_chunk();
        self.submit(true)?;
        // Only now the writer may take what it has for all there is.
        self.runs.end().map_err(|_| PersistError::Pipeline)
    }

    fn close_chunk(&mut self) {
        // The worker that seals the chunk puts its tag there.
        if self.key.is_some() {
            self.run.resize(self.run.len() + TAG_BYTES, 0);
        }
        self.chunk_bytes = 0;
    }

    fn submit(&mut self, last: bool) -> Result<(), PersistError> {
        let tag_bytes = if self.key.is_some() { TAG_BYTES } else { 0 };
        let whole_bytes = RUN_CHUNKS * (CHUNK_BYTES + tag_bytes);
        // The next run's first chunk is numbered by it.
        assert!(last || self.run.len() == whole_bytes, "every run but the last is whole");
        // Taken before the run is handed out: the slot keeps the run's position whichever worker is
        // faster, and the wait for it bounds the runs in memory.
        let slot = self.runs.take_slot().map_err(|_| PersistError::Pipeline)?;
        // The whole run moves on to the worker and the writer; a new one takes its place.
        let run = std::mem::replace(&mut self.run, Vec::with_capacity(RUN_BYTES));
        let first_chunk = self.first_chunk;
        self.first_chunk += to_u64(RUN_CHUNKS);
        // In clear there is nothing to seal, and no thread to wait for.
        match &self.key {
            None => slot.fill(run),
            Some(key) => {
                let key = Arc::clone(key);
                let job = SealJob { run, key, first_chunk, last, slot };
                self.sealer.send(job).map_err(|_| PersistError::Pipeline)?;
            }
        }
        Ok(())
    }
}
