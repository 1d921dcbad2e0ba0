//! Appends sealed runs in order, and makes the tarball durable.

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ring::digest::{Context, SHA256};
use tier_types::{StagedObject, to_u64};

use crate::error::PersistError;

/// Runs on their way.
const RUNS_IN_FLIGHT: usize = 8;
/// Written bytes after which they are sent on to the disk, so that little is left for the end.
const WRITE_BACK_BYTES: u64 = 16 << 20;

/// A run with its number, from 0 without gaps.
type Numbered = (u32, Result<Vec<u8>, PersistError>);

/// What was written.
pub(super) struct Written {
    pub(super) object_bytes: u64,
    pub(super) sha256: [u8; 32],
}

/// Where runs go. Dropped before its end is said, it leaves no object.
pub(super) struct RunSink {
    runs: Sender<Numbered>,
    permits: Receiver<()>,
    n_runs: u32,
    total: Sender<u32>,
}

/// The place of one run in the order. Dropped empty, it ends the tarball with an error.
pub(super) struct RunPlace {
    number: u32,
    runs: Option<Sender<Numbered>>,
}

impl RunPlace {
    pub(super) fn put(mut self, bytes: Result<Vec<u8>, PersistError>) {
        self.send(bytes);
    }

    fn send(&mut self, bytes: Result<Vec<u8>, PersistError>) {
        if let Some(runs) = self.runs.take() {
            let _ = runs.send((self.number, bytes));
        }
    }
}

impl Drop for RunPlace {
    fn drop(&mut self) {
        self.send(Err(PersistError::Pipeline));
    }
}

impl RunSink {
    /// The place of the next run; waits while too many are under way.
    pub(super) fn next(&mut self) -> Result<RunPlace, PersistError> {
        self.permits.recv().map_err(|_| PersistError::Pipeline)?;
        let number = self.n_runs;
        self.n_runs += 1;
        Ok(RunPlace { number, runs: Some(self.runs.clone()) })
    }

    /// Says that there are no more runs.
    pub(super) fn end(&mut self) -> Result<(), PersistError> {
        self.total.send(self.n_runs).map_err(|_| PersistError::Pipeline)
    }
}

/// An object whose last bytes are on their way. Dropped, it is waited for: no thread of an attempt
/// that was given up meets the next attempt's.
pub(super) struct PendingWrite(Option<JoinHandle<Result<Written, PersistError>>>);

impl PendingWrite {
    pub(super) fn wait(mut self) -> Result<Written, PersistError> {
        self.join()
    }

    fn join(&mut self) -> Result<Written, PersistError> {
        let joined = self.0.take().map(JoinHandle::join);
        joined.and_then(Result::ok).unwrap_or(Err(PersistError::Pipeline))
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Starts the thread that writes `head` and then the runs.
pub(super) fn start(
    object: Box<dyn StagedObject>,
    head: Vec<u8>,
) -> Result<(RunSink, PendingWrite), PersistError> {
    let (runs, arrived) = unbounded();
    let (permit, permits) = bounded(RUNS_IN_FLIGHT);
    for _ in 0..RUNS_IN_FLIGHT {
        let _ = permit.send(());
    }
    let (total, expected) = bounded(1);
    let thread = spawn("tier-writer", move || {
        let mut writer = Writer::new(object)?;
        writer.write(&head)?;
        let mut waiting: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut next = 0_u32;
        for (number, run) in arrived {
            waiting.insert(number, run?);
            while let Some(run) = waiting.remove(&next) {
                next += 1;
                writer.write(&run)?;
                let _ = permit.send(());
            }
        }
        match expected.try_recv() {
            Ok(n_runs) if n_runs == next => writer.finish(),
            Ok(_) => Err(PersistError::Pipeline),
            Err(_) => Err(PersistError::Cancelled),
        }
    })?;
    let runs = RunSink { runs, permits, n_runs: 0, total };
    Ok((runs, PendingWrite(Some(thread))))
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PersistError> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(|source| PersistError::Io {
        operation: "start thread",
        object: name.into(),
        source,
    })
}

struct Writer {
    object: Box<dyn StagedObject>,
    digest: Context,
    object_bytes: u64,
    not_written_back: u64,
    /// Asks for what was written so far to be sent to the disk.
    write_back: Option<Sender<()>>,
    flusher: Option<JoinHandle<Result<(), PersistError>>>,
}

impl Writer {
    fn new(object: Box<dyn StagedObject>) -> Result<Self, PersistError> {
        let flush = object.flush_handle().map_err(PersistError::Store)?;
        // One request at a time: while the disk is busy with one, more bytes gather for the next.
        let (write_back, requests) = bounded::<()>(1);
        let flusher = spawn("tier-flusher", move || {
            for () in requests {
                flush().map_err(PersistError::Store)?;
            }
            Ok(())
        })?;
        Ok(Self {
            object,
            digest: Context::new(&SHA256),
            object_bytes: 0,
            not_written_back: 0,
            write_back: Some(write_back),
            flusher: Some(flusher),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PersistError> {
        self.digest.update(bytes);
        self.object.write(bytes).map_err(PersistError::Store)?;
        self.object_bytes += to_u64(bytes.len());
        self.not_written_back += to_u64(bytes.len());
        if self.not_written_back >= WRITE_BACK_BYTES {
            self.not_written_back = 0;
            if let Some(write_back) = &self.write_back {
                // Full: a request waits already. Closed: the last fsync will meet the same error.
                let _ = write_back.try_send(());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Written, PersistError> {
        self.write_back = None;
        if let Some(flusher) = self.flusher.take() {
            // An error of writing back is reported once: it may not come again with the fsync.
            flusher.join().unwrap_or(Err(PersistError::Pipeline))?;
        }
        self.object.commit().map_err(PersistError::Store)?;
        let digest = self.digest.finish();
        let sha256 = digest.as_ref().first_chunk().copied().unwrap_or_default();
        Ok(Written { object_bytes: self.object_bytes, sha256 })
    }
}
