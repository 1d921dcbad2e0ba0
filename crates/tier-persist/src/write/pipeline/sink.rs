//! The sink of one tarball: a thread that writes sealed runs in order, and makes the object
//! durable.
//!
//! Runs are sealed by any worker and come through a [reorder buffer](super::reorder), which bounds
//! how many are under way. A second thread sends written bytes on to the disk while more are
//! written, so that little is left for the last sync. The object becomes visible only when every
//! run was written: an attempt that is given up leaves nothing.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use tier_types::{StagedObject, to_u64};

use super::reorder::{Broken, InOrder, Slot, SlotSource, reorder_buffer};
use crate::error::PersistError;
use crate::format::digest::{ContentDigest, ContentStream};
use crate::write::limits::{RUNS_UNDER_WAY_MAX, WRITE_BACK_BYTES};

/// The position of one run in the order. Dropped empty, it ends the tarball with an error.
pub(super) type RunSlot = Slot<Vec<u8>>;

/// Where runs go. Dropped before it [ends](SlotSource::end), it leaves no object.
pub(super) type RunSink = SlotSource<Vec<u8>>;

/// An object whose last bytes are on their way. Dropped, it is waited for: no thread of an attempt
/// that was given up meets the next attempt's.
pub(super) struct PendingWrite(Option<JoinHandle<Result<ContentDigest, PersistError>>>);

impl PendingWrite {
    pub(super) fn wait(mut self) -> Result<ContentDigest, PersistError> {
        self.join()
    }

    fn join(&mut self) -> Result<ContentDigest, PersistError> {
        match self.0.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            // It panicked, or was waited for before.
            Some(Err(_)) | None => Err(PersistError::Pipeline),
        }
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        // Never waited for: the work ended elsewhere, with an error of its own.
        if self.0.is_some()
            && let Err(error) = self.join()
        {
            tracing::debug!(%error, "the writer of an object was given up");
        }
    }
}

/// Starts the thread that writes `head` and then the runs.
pub(super) fn start(
    object: Box<dyn StagedObject>,
    head: Vec<u8>,
) -> Result<(RunSink, PendingWrite), PersistError> {
    // A buffer for each tarball, so that one that waits for the disk does not hold up the next.
    let (sink, runs) = reorder_buffer(RUNS_UNDER_WAY_MAX);
    let thread = spawn("tier-writer", move || write(object, &head, runs))?;
    Ok((sink, PendingWrite(Some(thread))))
}

fn write(
    object: Box<dyn StagedObject>,
    head: &[u8],
    mut runs: InOrder<Vec<u8>>,
) -> Result<ContentDigest, PersistError> {
    // The header is not sealed, and comes before the first run.
    let mut writer = Writer::new(object)?;
    writer.write(head)?;
    loop {
        match runs.recv() {
            Ok(Some(run)) => writer.write(&run)?,
            Ok(None) => return writer.finish(),
            Err(Broken::SlotLost) => return Err(PersistError::Pipeline),
            Err(Broken::SourceLost) => return Err(PersistError::Cancelled),
        }
    }
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
    written: ContentStream,
    not_written_back: u64,
    flusher: Flusher,
}

impl Writer {
    fn new(object: Box<dyn StagedObject>) -> Result<Self, PersistError> {
        let flusher = Flusher::start(object.as_ref())?;
        let written = ContentStream::default();
        Ok(Self { object, written, not_written_back: 0, flusher })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PersistError> {
        // Of what is handed to the store: what the store makes of it is for verifying to find.
        self.written.update(bytes);
        self.object.write(bytes).map_err(PersistError::Store)?;
        self.not_written_back += to_u64(bytes.len());
        if self.not_written_back >= WRITE_BACK_BYTES {
            self.not_written_back = 0;
            self.flusher.request();
        }
        Ok(())
    }

    fn finish(self) -> Result<ContentDigest, PersistError> {
        // The flusher's handle is gone before the object gets its name.
        self.flusher.finish()?;
        self.object.commit().map_err(PersistError::Store)?;
        Ok(self.written.finish())
    }
}

/// The thread that sends written bytes on to the disk. Dropped, it ends by itself.
struct Flusher {
    requests: Sender<()>,
    thread: JoinHandle<Result<(), PersistError>>,
}

impl Flusher {
    fn start(object: &dyn StagedObject) -> Result<Self, PersistError> {
        let flush = object.flush_handle().map_err(PersistError::Store)?;
        // One request at a time: while the disk is busy with one, more bytes gather for the next.
        let (requests, queue) = bounded::<()>(1);
        let thread = spawn("tier-flusher", move || {
            // After an error no more requests are taken: the object is lost.
            for () in queue {
                flush().map_err(PersistError::Store)?;
            }
            Ok(())
        })?;
        Ok(Self { requests, thread })
    }

    fn request(&self) {
        // Full: a request waits already. Closed: it failed, and `finish` will say why.
        let _ = self.requests.try_send(());
    }

    fn finish(self) -> Result<(), PersistError> {
        drop(self.requests);
        // An error of writing back is reported once: it may not come again with the last sync.
        self.thread.join().map_err(|_| PersistError::Pipeline)?
    }
}
