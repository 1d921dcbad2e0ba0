//! The payload of a tarball: compressed frames joined and cut into runs, each sealed by a worker.

use std::sync::Arc;

use crossbeam_channel::Sender;
use tier_types::to_u64;

use crate::error::PersistError;
use crate::format::age::{CHUNK_BYTES, PayloadKey, TAG_BYTES};
use crate::write::pipeline::sink::{RunPlace, RunSink};

/// Age chunks that are sealed in one go.
const RUN_CHUNKS: usize = 16;
const RUN_BYTES: usize = RUN_CHUNKS * (CHUNK_BYTES + TAG_BYTES);

/// A run to be sealed in place.
pub(super) struct SealJob {
    run: Vec<u8>,
    key: Arc<PayloadKey>,
    first_chunk: u64,
    last: bool,
    place: RunPlace,
}

impl SealJob {
    pub(super) fn run(mut self) {
        let sealed = self.key.seal_in_place(&mut self.run, self.first_chunk, self.last);
        self.place.put(sealed.map(|()| self.run));
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
            // A chunk is closed only when more comes: the last one of all is never empty.
            if self.chunk_bytes == CHUNK_BYTES {
                self.close_chunk();
                if self.run.len() >= RUN_CHUNKS * CHUNK_BYTES {
                    self.submit(false)?;
                }
            }
            let n = bytes.len().min(CHUNK_BYTES - self.chunk_bytes);
            let (now, later) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
            self.run.extend_from_slice(now);
            self.chunk_bytes += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Ends the tarball.
    pub(super) fn finish(&mut self) -> Result<(), PersistError> {
        self.close_chunk();
        self.submit(true)?;
        self.runs.end()
    }

    fn close_chunk(&mut self) {
        if self.key.is_some() {
            self.run.resize(self.run.len() + TAG_BYTES, 0);
        }
        self.chunk_bytes = 0;
    }

    fn submit(&mut self, last: bool) -> Result<(), PersistError> {
        let place = self.runs.next()?;
        let run = std::mem::replace(&mut self.run, Vec::with_capacity(RUN_BYTES));
        let first_chunk = self.first_chunk;
        self.first_chunk += to_u64(RUN_CHUNKS);
        match &self.key {
            None => place.put(Ok(run)),
            Some(key) => {
                let key = Arc::clone(key);
                let job = SealJob { run, key, first_chunk, last, place };
                self.sealer.send(job).map_err(|_| PersistError::Pipeline)?;
            }
        }
        Ok(())
    }
}
