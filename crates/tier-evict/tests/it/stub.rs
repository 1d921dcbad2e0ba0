//! Stubs of what stands around an evicter: the archive, the policy, the clock, the status log.

use std::sync::Arc;

use parking_lot::Mutex;
use tier_evict::{EvictPlan, EvictPolicy, PassGoal, RetainReason, Retained};
use tier_status::{Event, StatusError, StatusSink};
use tier_types::{
    ChunkNo, ChunkRange, Clock, ErrorKind, EvictionFacts, Ino, Persisted, PortError,
    ResidentExtent, SnapshotId, Timestamp, Xid,
};

/// An archive that answers of each chunk what a test says, and remembers the questions.
pub(crate) struct StubArchive {
    answer: Box<dyn Fn(&ResidentExtent) -> bool + Send + Sync>,
    asked: Mutex<Vec<ResidentExtent>>,
}

impl StubArchive {
    /// The answer is asked for extents of one chunk.
    pub(crate) fn answering(
        answer: impl Fn(&ResidentExtent) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { answer: Box::new(answer), asked: Mutex::default() }
    }

    /// Everything is persisted.
    pub(crate) fn complete() -> Self {
        Self::answering(|_| true)
    }

    pub(crate) fn asked(&self) -> Vec<ResidentExtent> {
        self.asked.lock().clone()
    }
}

impl Persisted for StubArchive {
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        self.asked.lock().push(ResidentExtent { ino, chunks, data_xid });
        let is_persisted = |number: &u64| {
            let chunks = ChunkRange::one(ChunkNo::new(*number)).unwrap();
            (self.answer)(&ResidentExtent { ino, chunks, data_xid })
        };
        let numbers = chunks.start().get()..chunks.end().get();
        let mut run = numbers.skip_while(|number| !is_persisted(number)).take_while(&is_persisted);
        let Some(first) = run.next() else { return Ok(None) };
        let last = run.last().unwrap_or(first);
        Ok(ChunkRange::new(ChunkNo::new(first), ChunkNo::new(last + 1)))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        panic!("an eviction needs no metadata")
    }
}

/// An archive that cannot be asked.
pub(crate) struct BrokenArchive;

impl Persisted for BrokenArchive {
    fn first_persisted(
        &self,
        _: Ino,
        _: ChunkRange,
        _: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        Err(PortError::new(ErrorKind::Damaged, "the index is damaged"))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Err(PortError::new(ErrorKind::Damaged, "the index is damaged"))
    }
}

/// An archive that answers every question with more chunks than those asked for.
pub(crate) struct BoundlessArchive;

impl Persisted for BoundlessArchive {
    fn first_persisted(
        &self,
        _: Ino,
        _: ChunkRange,
        _: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        Ok(Some(ChunkRange::ALL))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        panic!("an eviction needs no metadata")
    }
}

/// Lets everything go but what a test retains, and remembers the pages that it saw.
#[derive(Clone, Default)]
pub(crate) struct RecordingPolicy {
    retain: Arc<Mutex<Vec<Ino>>>,
    pages: Arc<Mutex<Vec<Vec<Ino>>>>,
}

impl RecordingPolicy {
    pub(crate) fn retain(&self, inos: Vec<Ino>) {
        *self.retain.lock() = inos;
    }

    /// The pages since the last look.
    pub(crate) fn pages(&self) -> Vec<Vec<Ino>> {
        std::mem::take(&mut self.pages.lock())
    }

    /// The candidates since the last look, in order.
    pub(crate) fn candidates(&self) -> Vec<Ino> {
        self.pages().concat()
    }
}

impl EvictPolicy for RecordingPolicy {
    fn plan(&self, page: &[EvictionFacts], _: Timestamp, _: PassGoal, _: u64) -> EvictPlan {
        self.pages.lock().push(page.iter().map(|facts| facts.ino).collect());
        let retained = self.retain.lock().clone();
        let (retain, evict): (Vec<Ino>, Vec<Ino>) =
            page.iter().map(|facts| facts.ino).partition(|ino| retained.contains(ino));
        let reason = RetainReason::Young;
        let retain = retain.into_iter().map(|ino| Retained { ino, reason }).collect();
        EvictPlan { evict, retain }
    }
}

/// A policy that always gives the same plan, whatever it is asked.
pub(crate) struct FixedPlan(pub(crate) EvictPlan);

impl EvictPolicy for FixedPlan {
    fn plan(&self, _: &[EvictionFacts], _: Timestamp, _: PassGoal, _: u64) -> EvictPlan {
        self.0.clone()
    }
}

/// A clock on which no time passes.
pub(crate) struct StoppedClock(i64);

impl StoppedClock {
    pub(crate) fn at(seconds: i64) -> Arc<Self> {
        Arc::new(Self(seconds))
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0, nanos: 0 }
    }
}

/// A status log that cannot be written.
pub(crate) struct BrokenSink;

impl StatusSink for BrokenSink {
    fn report(&self, _: Event) -> Result<(), StatusError> {
        Err(StatusError::Poisoned { path: "status".into() })
    }
}
