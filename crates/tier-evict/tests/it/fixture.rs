//! A filesystem in memory with everything that an eviction pass needs, and looks at what a pass
//! left.

use std::fs;
use std::path::PathBuf;

use tier_evict::{
    DryRunRequest, EvictError, EvictPolicy, EvictReport, EvictRequest, EvictScope, Evicter,
    PassGoal,
};
use tier_status::{Event, StatusSink};
use tier_testkit::{FakeKvs, OneByOne, RecordingSink};
use tier_types::{Ino, LogReader, LogService, Persisted, Xid};

use crate::instance::TestInstance;
use crate::stub::StoppedClock;

pub(crate) const CHUNK: u32 = 10;

/// The content of a chunk.
pub(crate) fn chunk(byte: u8) -> [u8; 10] {
    [byte; 10]
}

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    pub(crate) kvs: FakeKvs,
    pub(crate) instance: TestInstance,
    pub(crate) status: RecordingSink,
    pub(crate) first: Xid,
}

impl Fixture {
    /// Files of one chunk each, all in one log segment.
    pub(crate) fn with_files(names: &[&str]) -> Self {
        let fixture = Self::of(FakeKvs::new(CHUNK));
        for name in names {
            drop(fixture.kvs.clone().file(name, &chunk(1)));
        }
        fixture.publish();
        fixture
    }

    /// A filesystem of which nothing is published yet.
    pub(crate) fn of(kvs: FakeKvs) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            instance: TestInstance::new(kvs.clone()),
            kvs,
            status: RecordingSink::default(),
            first: Xid::new(1),
        }
    }

    pub(crate) fn publish(&self) -> Xid {
        self.kvs.log().publish().unwrap();
        self.kvs.log().last_xid()
    }

    pub(crate) fn evicter(&self, policy: impl EvictPolicy + 'static) -> Evicter {
        Evicter::new(self.dir.path(), Box::new(policy), StoppedClock::at(1000))
    }

    /// A pass over all published transactions.
    pub(crate) fn evict(
        &self,
        evicter: &Evicter,
        goal: PassGoal,
        persisted: &dyn Persisted,
    ) -> Result<EvictReport, EvictError> {
        evicter.evict(&self.request(goal, persisted, &self.status))
    }

    pub(crate) fn dry_run(
        &self,
        evicter: &Evicter,
        goal: PassGoal,
    ) -> Result<EvictReport, EvictError> {
        evicter.dry_run(&DryRunRequest {
            scope: self.scope(goal),
            log: self.kvs.log(),
            instance: &self.instance,
            is_stopped: &|| false,
        })
    }

    fn scope(&self, goal: PassGoal) -> EvictScope {
        EvictScope { first: self.first, safe: self.kvs.log().last_xid(), covered: None, goal }
    }

    pub(crate) fn request<'a>(
        &'a self,
        goal: PassGoal,
        persisted: &'a dyn Persisted,
        status: &'a dyn StatusSink,
    ) -> EvictRequest<'a> {
        EvictRequest {
            scope: self.scope(goal),
            log: self.kvs.log(),
            instance: &self.instance,
            persisted,
            status,
            is_stopped: &|| false,
        }
    }

    pub(crate) fn ino(&self, name: &str) -> Ino {
        self.kvs.ino(name)
    }

    pub(crate) fn inos(&self, names: &[&str]) -> Vec<Ino> {
        names.iter().map(|name| self.ino(name)).collect()
    }

    pub(crate) fn resident_bytes(&self, name: &str) -> u64 {
        self.kvs.facts_of(self.ino(name)).unwrap().unwrap().resident_bytes
    }

    /// Those of the files that have no resident data.
    pub(crate) fn evicted<'n>(&self, names: &[&'n str]) -> Vec<&'n str> {
        names.iter().copied().filter(|name| self.resident_bytes(name) == 0).collect()
    }

    pub(crate) fn list_path(&self) -> PathBuf {
        self.dir.path().join("survivors")
    }

    /// The list of carried-over candidates, as a pass left it.
    pub(crate) fn carried_over(&self) -> Vec<Ino> {
        let text = fs::read_to_string(self.list_path()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let inos = &lines[1..lines.len() - 1];
        inos.iter().map(|ino| Ino::new(ino.parse().unwrap())).collect()
    }

    /// Makes the list that the next pass finds.
    pub(crate) fn carry_over(&self, cursor: u64, inos: &[Ino]) {
        let lines: String = inos.iter().map(|ino| format!("{ino}\n")).collect();
        let text = format!("tier-evict 1 cursor={cursor}\n{lines}end {}\n", inos.len());
        fs::write(self.list_path(), text).unwrap();
    }

    /// The numbers of inodes and bytes of the passes that were recorded.
    pub(crate) fn recorded_passes(&self) -> Vec<(u64, u64)> {
        let passes = self.status.events().into_iter().map(|event| {
            let Event::Evicted { n_inodes, bytes } = event else {
                panic!("a pass reports {event:?}");
            };
            (n_inodes, bytes)
        });
        passes.collect()
    }
}
