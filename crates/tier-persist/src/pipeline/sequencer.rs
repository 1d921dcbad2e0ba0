//! Joins compressed frames in order and cuts them into runs to be sealed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tier_types::to_u64;

use super::pool::{Sealer, WorkerPool};
use super::sink::{self, RunSink, Written};
use crate::PersistError;
use crate::age_stream::{CHUNK_BYTES, PayloadKey};
use crate::local_store::NewObject;
use crate::seekable::{self, FrameSize};
use crate::tarball::{FrameRow, frame_digest};

/// Plaintext that is sealed in one job: whole age chunks.
const RUN_CHUNKS: usize = 16;
const RUN_BYTES: usize = RUN_CHUNKS * CHUNK_BYTES;

struct CompressedFrame {
    bytes: Vec<u8>,
    decompressed: u32,
    digest: [u8; 16],
}

/// A frame with its number, from 0 without gaps.
type Numbered = (u32, Result<CompressedFrame, PersistError>);

/// A tarball that is complete and durable.
#[derive(Debug)]
pub(crate) struct SealedTarball {
    pub(crate) object_bytes: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) frames: Vec<FrameRow>,
}

/// Takes the frames of one tarball. Dropped before it is finished, it leaves no object.
pub(crate) struct FrameSink {
    frames: Option<Sender<Numbered>>,
    /// One for each frame that may be under way; each says the compressed length of one that
    /// arrived, in order, so that their sum does not depend on the threads' timing.
    permits: Receiver<u64>,
    n_frames: u32,
    compressed_bytes: u64,
    total: Option<Sender<u32>>,
    thread: Option<PendingSeal>,
}

/// A tarball whose last bytes are on their way. Dropped, it is waited for: no thread of an attempt
/// that was given up meets the next attempt's.
pub(crate) struct PendingSeal(Option<JoinHandle<Result<SealedTarball, PersistError>>>);

impl PendingSeal {
    pub(crate) fn wait(mut self) -> Result<SealedTarball, PersistError> {
        self.join()
    }

    fn join(&mut self) -> Result<SealedTarball, PersistError> {
        let joined = self.0.take().map(JoinHandle::join);
        joined.and_then(Result::ok).unwrap_or(Err(PersistError::Pipeline))
    }
}

impl Drop for PendingSeal {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Starts a tarball with its age header (empty for one in clear) and key.
pub(crate) fn start(
    pool: &WorkerPool,
    object: NewObject,
    header: Vec<u8>,
    key: Option<PayloadKey>,
) -> Result<FrameSink, PersistError> {
    let (frames, arrived) = unbounded();
    let n_permits = 2 * pool.n_workers() + 2;
    let (permit, permits) = bounded(n_permits);
    for _ in 0..n_permits {
        let _ = permit.send(0);
    }
    let (total, expected) = bounded(1);
    let (runs, writer) = sink::start(object, header)?;
    let sealer = pool.sealer();
    let mut sequencer = Sequencer {
        runs,
        sealer,
        key: key.map(Arc::new),
        plain: Vec::with_capacity(2 * RUN_BYTES),
        next_chunk: 0,
        frames: Vec::new(),
        offset: 0,
    };
    let thread = spawn("tier-sequencer", move || {
        let finished =
            sequencer.run(&arrived, &permit, &expected).and_then(|()| sequencer.finish());
        let frames = std::mem::take(&mut sequencer.frames);
        drop(sequencer);
        let written = writer.join().unwrap_or(Err(PersistError::Pipeline));
        match (finished, written) {
            (Ok(()), Ok(Written { object_bytes, sha256 })) => {
                Ok(SealedTarball { object_bytes, sha256, frames })
            }
            // What stopped the writer stopped the sequencer, and not the other way round.
            (Err(PersistError::Pipeline) | Ok(()), Err(why))
                if !matches!(why, PersistError::Cancelled) =>
            {
                Err(why)
            }
            (Err(why), _) | (Ok(()), Err(why)) => Err(why),
        }
    })?;
    let thread = Some(PendingSeal(Some(thread)));
    let (frames, total) = (Some(frames), Some(total));
    Ok(FrameSink { frames, permits, n_frames: 0, compressed_bytes: 0, total, thread })
}

impl FrameSink {
    /// Hands over a frame; waits while too many are under way.
    pub(crate) fn push(&mut self, pool: &WorkerPool, plain: Vec<u8>) -> Result<(), PersistError> {
        let arrived = self.permits.recv().map_err(|_| PersistError::Pipeline)?;
        self.compressed_bytes += arrived;
        let number = self.n_frames;
        self.n_frames += 1;
        let frames = self.frames.clone().ok_or(PersistError::Pipeline)?;
        let reply = FrameReply { number, frames: Some(frames) };
        pool.compress(move |worker| {
            let bytes = worker.compressor.compress(&plain);
            let frame = bytes
                .map(|bytes| CompressedFrame {
                    digest: frame_digest(&bytes),
                    decompressed: u32::try_from(plain.len()).unwrap_or(u32::MAX),
                    bytes,
                })
                .map_err(|source| PersistError::Io {
                    operation: "compress",
                    object: format!("frame {number}"),
                    source,
                });
            reply.send(frame);
        });
        Ok(())
    }

    /// Number that the next frame will have.
    pub(crate) fn n_frames(&self) -> u32 {
        self.n_frames
    }

    /// Compressed length of the frames but the last few.
    pub(crate) fn compressed_bytes(&self) -> u64 {
        self.compressed_bytes
    }

    /// Says that there are no more frames.
    pub(crate) fn finish(mut self) -> PendingSeal {
        if let Some(total) = &self.total {
            let _ = total.send(self.n_frames);
        }
        self.frames = None;
        self.thread.take().unwrap_or(PendingSeal(None))
    }

    /// The error that ended the tarball early.
    pub(crate) fn into_error(mut self) -> PersistError {
        (self.frames, self.total) = (None, None);
        match self.thread.take().map(PendingSeal::wait) {
            Some(Err(error)) => error,
            Some(Ok(_)) | None => PersistError::Pipeline,
        }
    }
}

impl Drop for FrameSink {
    fn drop(&mut self) {
        // Without its senders the thread ends, and the field that is dropped next waits for it.
        (self.frames, self.total) = (None, None);
    }
}

/// The answer for one frame. Dropped unsent, it ends the tarball with an error.
struct FrameReply {
    number: u32,
    frames: Option<Sender<Numbered>>,
}

impl FrameReply {
    fn send(mut self, frame: Result<CompressedFrame, PersistError>) {
        if let Some(frames) = self.frames.take() {
            let _ = frames.send((self.number, frame));
        }
    }
}

impl Drop for FrameReply {
    fn drop(&mut self) {
        if let Some(frames) = self.frames.take() {
            let _ = frames.send((self.number, Err(PersistError::Pipeline)));
        }
    }
}

struct Sequencer {
    runs: RunSink,
    sealer: Sealer,
    key: Option<Arc<PayloadKey>>,
    plain: Vec<u8>,
    next_chunk: u64,
    frames: Vec<FrameRow>,
    offset: u64,
}

impl Sequencer {
    fn run(
        &mut self,
        arrived: &Receiver<Numbered>,
        permit: &Sender<u64>,
        expected: &Receiver<u32>,
    ) -> Result<(), PersistError> {
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        // Ends when the frame sink and every job under way is gone.
        for (number, frame) in arrived {
            waiting.insert(number, frame?);
            while let Some(frame) = waiting.remove(&next) {
                next += 1;
                self.add(&frame)?;
                let _ = permit.send(to_u64(frame.bytes.len()));
            }
        }
        match expected.try_recv() {
            Ok(n_frames) if n_frames == next => Ok(()),
            Ok(_) => Err(PersistError::Pipeline),
            Err(_) => Err(PersistError::Cancelled),
        }
    }

    fn add(&mut self, frame: &CompressedFrame) -> Result<(), PersistError> {
        self.frames.push(FrameRow {
            offset: self.offset,
            compressed: u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX),
            decompressed: frame.decompressed,
            digest: frame.digest,
        });
        self.offset += to_u64(frame.bytes.len());
        self.plain.extend_from_slice(&frame.bytes);
        // The last chunk of the payload is never empty: what is kept back is at least one byte.
        while self.plain.len() > RUN_BYTES {
            let rest = self.plain.split_off(RUN_BYTES);
            let run = std::mem::replace(&mut self.plain, rest);
            self.seal(run, false)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), PersistError> {
        let sizes: Vec<_> = self
            .frames
            .iter()
            .map(|frame| FrameSize {
                compressed: frame.compressed,
                decompressed: frame.decompressed,
            })
            .collect();
        let table = seekable::encode(&sizes).ok_or(PersistError::Pipeline)?;
        self.plain.extend_from_slice(&table);
        let run = std::mem::take(&mut self.plain);
        self.seal(run, true)?;
        self.runs.end()
    }

    fn seal(&mut self, run: Vec<u8>, last: bool) -> Result<(), PersistError> {
        let place = self.runs.next()?;
        let first_chunk = self.next_chunk;
        self.next_chunk += to_u64(RUN_CHUNKS);
        match &self.key {
            None => place.put(Ok(run)),
            Some(key) => {
                let key = Arc::clone(key);
                self.sealer.seal(move || place.put(key.seal(&run, first_chunk, last)));
            }
        }
        Ok(())
    }
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PersistError> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(|source| PersistError::Io {
        operation: "start thread",
        object: name.into(),
        source,
    })
}
