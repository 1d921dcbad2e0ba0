//! The work of the recall threads.
//!
//! A request is looked up first, which says in which frame its data lies, and a frame is fetched
//! once for all that want something of it: the thread that comes first *leads*, and those that come
//! while it reads leave their requests with it and take the next. When the frame is there each gets
//! its own part. So readers of many small files that lie together cost one read, and hold no
//! thread.
//!
//! An error that is of the store and not of the request (it is away, say) is one for all that wait
//! for the frame: each would wait for it again. Otherwise each is tried by itself. A panic fails
//! its own request.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tier_persist::{Fetcher, FrameId, Located};
use tier_types::{ErrorKind, PortError, RecallHint, RecallRequest, RecalledExtent, with_causes};

use super::answer::{Answer, RecallKey, SharedError};
use super::queue::{Queue, Side, Taken};
use super::streaks::Streaks;
use crate::single_flight::InFlight;
use crate::sync::Mutex;
use crate::threads::panic_text;

/// Where the data comes from.
pub(super) trait Source: Send + Sync + 'static {
    /// Where the data of a request lies.
    type Place: Send;

    fn locate(&self, request: &RecallRequest) -> Result<Self::Place, PortError>;

    fn frame_of(place: &Self::Place) -> FrameId;

    fn fetch(
        &self,
        request: &RecallRequest,
        place: &Self::Place,
    ) -> Result<RecalledExtent, PortError>;

    /// Whether there is such a frame, which is at hand then.
    fn read_ahead(&self, frame: FrameId) -> Result<bool, PortError>;
}

impl Source for Fetcher {
    type Place = Located;

    fn locate(&self, request: &RecallRequest) -> Result<Located, PortError> {
        Ok(self.locate(request)?)
    }

    fn frame_of(place: &Located) -> FrameId {
        place.frame()
    }

    fn fetch(&self, request: &RecallRequest, place: &Located) -> Result<RecalledExtent, PortError> {
        Ok(self.fetch_located(request, place)?)
    }

    fn read_ahead(&self, frame: FrameId) -> Result<bool, PortError> {
        Ok(Fetcher::read_ahead(self, frame)?)
    }
}

/// What a thread takes.
pub(super) enum Job {
    Recall(RecallJob),
    Ahead(FrameId),
}

impl Job {
    /// The side on which it waits.
    pub(super) fn side(&self) -> Side {
        match self {
            Self::Recall(job) if job.in_flight.is_urgent() => Side::Reader,
            Self::Recall(_) => Side::Bulk,
            Self::Ahead(_) => Side::Ahead,
        }
    }

    /// Whether it is a request of this key.
    pub(super) fn is_of(&self, key: &RecallKey) -> bool {
        match self {
            Self::Recall(job) => RecallKey::of(&job.request) == *key,
            Self::Ahead(_) => false,
        }
    }
}

/// A request, with the duty to answer those that wait for it.
pub(super) struct RecallJob {
    pub(super) request: RecallRequest,
    pub(super) hint: RecallHint,
    pub(super) in_flight: InFlight<RecallKey, Answer>,
}

/// A request whose frame is known.
struct Placed<P> {
    request: RecallRequest,
    place: P,
    in_flight: InFlight<RecallKey, Answer>,
}

/// What the threads share.
pub(super) struct Worker<S: Source> {
    source: S,
    queue: Arc<Queue<Job>>,
    /// The frames that are being read, with the requests that were left with their leaders.
    frames: Mutex<HashMap<FrameId, Vec<Placed<S::Place>>>>,
    streaks: Mutex<Streaks>,
}

impl<S: Source> Worker<S> {
    pub(super) fn new(source: S, queue: Arc<Queue<Job>>) -> Self {
        Self { source, queue, frames: Mutex::new(HashMap::new()), streaks: Mutex::default() }
    }

    /// Does one job after the other, until the queue is closed.
    pub(super) fn run(&self) {
        while let Some(Taken { job, under_way }) = self.queue.take() {
            match job {
                Job::Recall(job) => self.recall(job),
                Job::Ahead(frame) => self.read_ahead(frame),
            }
            drop(under_way);
        }
    }

    fn recall(&self, job: RecallJob) {
        let RecallJob { request, hint, in_flight } = job;
        // Readers that are gone, or whose deadline passed while the job was queued: fetching for
        // them would only hold up those that still wait.
        let Some(in_flight) = in_flight.unless_abandoned() else {
            tracing::debug!(ino = %request.ino, chunks = %request.chunks, "no reader waits any more");
            return;
        };
        let place = match caught(&request, || self.source.locate(&request)) {
            Ok(place) => place,
            Err(error) => return in_flight.settle(Err(error)),
        };
        let frame = S::frame_of(&place);
        self.ask_ahead(frame, hint);
        let placed = Placed { request, place, in_flight };
        let Some(leading) = self.lead(frame, placed) else { return };
        let fetched = self.answer(leading);
        self.finish(frame, &fetched);
    }

    /// Answers what was left with the leader of a frame.
    fn finish(&self, frame: FrameId, fetched: &Result<(), SharedError>) {
        for Placed { request, place, in_flight } in self.end(frame) {
            let Some(in_flight) = in_flight.unless_abandoned() else { continue };
            match fetched {
                // What the store said is said to all.
                Err(error) if is_of_store(error.kind) => in_flight.settle(Err(error.clone())),
                // Each hears what becomes of its own.
                Ok(()) | Err(_) => drop(self.answer(Placed { request, place, in_flight })),
            }
        }
    }

    /// Queues what a reader in order will ask for.
    fn ask_ahead(&self, frame: FrameId, hint: RecallHint) {
        let ahead = self.streaks.lock().note(frame, hint);
        for frame in ahead {
            self.queue.push(Side::Ahead, Job::Ahead(frame));
        }
    }

    /// Makes this thread the leader of a frame, or leaves the request with the one there is.
    fn lead(&self, frame: FrameId, placed: Placed<S::Place>) -> Option<Placed<S::Place>> {
        let mut frames = self.frames.lock();
        if let Some(left) = frames.get_mut(&frame) {
            left.push(placed);
            return None;
        }
        frames.insert(frame, Vec::new());
        Some(placed)
    }

    /// Ends the lead. Returns what was left with it.
    #[expect(clippy::expect_used, reason = "the leader put it there, and alone takes it out")]
    fn end(&self, frame: FrameId) -> Vec<Placed<S::Place>> {
        self.frames.lock().remove(&frame).expect("a lead is ended by its leader, and once")
    }

    fn answer(&self, placed: Placed<S::Place>) -> Result<(), SharedError> {
        let Placed { request, place, in_flight } = placed;
        let fetched = caught(&request, || self.source.fetch(&request, &place));
        let outcome = fetched.as_ref().map(|_| ()).map_err(SharedError::clone);
        in_flight.settle(fetched.map(Arc::new));
        outcome
    }

    fn read_ahead(&self, frame: FrameId) {
        {
            let mut frames = self.frames.lock();
            // A reader was faster.
            if frames.contains_key(&frame) {
                return;
            }
            frames.insert(frame, Vec::new());
        }
        let read = catch_unwind(AssertUnwindSafe(|| self.source.read_ahead(frame)));
        let fetched = match read {
            Ok(Ok(is_there)) => {
                tracing::debug!(?frame, is_there, "read ahead");
                Ok(())
            }
            Ok(Err(error)) => {
                let message = with_causes(&error);
                tracing::debug!(?frame, error = %message, "not read ahead");
                Err(SharedError { kind: error.kind(), message })
            }
            Err(panic) => {
                tracing::error!("reading ahead panicked: {}", panic_text(panic.as_ref()));
                Ok(())
            }
        };
        self.finish(frame, &fetched);
    }
}

/// Whether an error would be that of each request for the frame.
fn is_of_store(kind: ErrorKind) -> bool {
    kind.may_pass() || matches!(kind, ErrorKind::Frozen { .. })
}

/// What a step for a request came to; a panic is an error of it.
fn caught<T>(
    request: &RecallRequest,
    step: impl FnOnce() -> Result<T, PortError>,
) -> Result<T, SharedError> {
    // A panic gives the fetcher's locks back; at worst a frame is missing from its caches.
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(SharedError { kind: error.kind(), message: with_causes(&error) }),
        Err(panic) => Err(panic_error(request, panic.as_ref())),
    }
}

/// The error for the readers of a request whose fetch panicked.
fn panic_error(request: &RecallRequest, panic: &(dyn Any + Send)) -> SharedError {
    let text = panic_text(panic);
    tracing::error!(ino = %request.ino, "the fetch of a recall panicked: {text}");
    let message = format!("a bug: fetching the data of inode {} panicked: {text}", request.ino);
    SharedError { kind: ErrorKind::Failed, message }
}
