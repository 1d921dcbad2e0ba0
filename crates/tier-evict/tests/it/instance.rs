//! The filesystem in memory, with pins, warm inodes and a hook before each eviction.

use std::collections::BTreeSet;
use std::ops::Bound;

use parking_lot::Mutex;
use tier_testkit::{FakeKvs, OneByOne};
use tier_types::{
    ChunkPlace, ErrorKind, EvictOutcome, EvictionFacts, Ino, InstanceLayer, MountedInstance,
    PortError, ResidentExtent,
};

/// What a pass asks of an inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Question {
    Facts,
    Extents,
    Eviction,
}

type Hook = Box<dyn Fn(&ResidentExtent) + Send + Sync>;

/// Passes everything on to a fake, besides what a test sets.
pub(crate) struct TestInstance {
    kvs: FakeKvs,
    pub(crate) pinned: Mutex<BTreeSet<Ino>>,
    pub(crate) warm: Mutex<BTreeSet<Ino>>,
    /// Questions that find damage.
    pub(crate) damaged: Mutex<BTreeSet<(Ino, Question)>>,
    /// Answers to questions for warm inodes that break the contract.
    pub(crate) warm_answer: Option<Vec<Ino>>,
    /// Extents of which the eviction was asked for, in order.
    asked: Mutex<Vec<ResidentExtent>>,
    before_eviction: Option<Hook>,
}

impl TestInstance {
    pub(crate) fn new(kvs: FakeKvs) -> Self {
        Self {
            kvs,
            pinned: Mutex::default(),
            warm: Mutex::default(),
            damaged: Mutex::default(),
            warm_answer: None,
            asked: Mutex::default(),
            before_eviction: None,
        }
    }

    pub(crate) fn before_eviction(
        &mut self,
        hook: impl Fn(&ResidentExtent) + Send + Sync + 'static,
    ) {
        self.before_eviction = Some(Box::new(hook));
    }

    fn check(&self, ino: Ino, question: Question) -> Result<(), PortError> {
        if self.damaged.lock().contains(&(ino, question)) {
            return Err(PortError::new(ErrorKind::Damaged, format!("inode {ino} is damaged")));
        }
        Ok(())
    }

    pub(crate) fn asked_to_evict(&self) -> Vec<ResidentExtent> {
        self.asked.lock().clone()
    }
}

impl InstanceLayer for TestInstance {
    fn inner(&self) -> &dyn MountedInstance {
        &self.kvs
    }

    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, PortError>> {
        let evict = |extent: &ResidentExtent| {
            if let Some(hook) = &self.before_eviction {
                hook(extent);
            }
            self.check(extent.ino, Question::Eviction)?;
            self.asked.lock().push(*extent);
            self.kvs.evict_extent(extent)
        };
        extents.iter().map(evict).collect()
    }

    fn resident_extents(
        &self,
        from: &[ChunkPlace],
        n_max: usize,
    ) -> Vec<Result<Vec<ResidentExtent>, PortError>> {
        let of_place = |place: &ChunkPlace| {
            self.check(place.ino, Question::Extents)?;
            self.kvs.resident_of(place.ino, place.chunk, n_max)
        };
        from.iter().map(of_place).collect()
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        if let Some(answer) = &self.warm_answer {
            return Ok(answer.clone());
        }
        let warm = self.warm.lock();
        let above = warm.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(above.take(n_max).copied().collect())
    }

    fn eviction_facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, PortError>> {
        let facts_of = |ino: &Ino| {
            self.check(*ino, Question::Facts)?;
            let pinned = self.pinned.lock().contains(ino);
            let facts = self.kvs.facts_of(*ino)?;
            Ok(facts.map(|facts| EvictionFacts { pinned, ..facts }))
        };
        inodes.iter().map(facts_of).collect()
    }
}
