//! Stores that write to one archive, follow it and take it over, interleaved request by request.
//!
//! Every request to the cloud passes a gate, where a scheduler says which store makes the next one,
//! and which store's requests fail from there on, as if it had crashed. The order follows from a
//! seed. Whatever it is: what any store ever counted as safe is in the history that is left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};
use tier_agent::{SpaceGoal, Task};
use tier_persist::Archive;
use tier_status::NullSink;
use tier_store::{
    LocalState, OpenMode, Store, StoreDir, StoreError, Takeover, TakeoverOptions, status_book,
    takeover,
};
use tier_testkit::FakeKvs;
use tier_types::{
    Call, Created, ErrorKind, ListPage, ObjectContent, ObjectMetadata, ObjectName, ObjectStore,
    ObjectVersion, PortError, RangeRead, StoreLayer,
};

use crate::harness::{CHUNK, LateRecall, Restored, World, ports_of};

/// Where all requests wait for their turn.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// How many requests of each store wait: one, or several that are made at once.
    waiting: BTreeMap<usize, usize>,
    finished: BTreeSet<usize>,
    turn: Option<usize>,
    crashed: BTreeSet<usize>,
}

impl Gate {
    fn pass(&self, actor: usize) -> Result<(), PortError> {
        let mut state = self.state.lock();
        *state.waiting.entry(actor).or_default() += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.turn != Some(actor));
        state.turn = None;
        let n_waiting = state.waiting.get_mut(&actor).unwrap();
        *n_waiting -= 1;
        if *n_waiting == 0 {
            state.waiting.remove(&actor);
        }
        // Another one of these may be next.
        self.changed.notify_all();
        match state.crashed.contains(&actor) {
            true => Err(PortError::new(ErrorKind::Away, "the store has crashed")),
            false => Ok(()),
        }
    }

    /// What crashed is started again.
    fn restart(&self, actor: usize) {
        self.state.lock().crashed.remove(&actor);
    }

    fn finish(&self, actor: usize) {
        self.state.lock().finished.insert(actor);
        self.changed.notify_all();
    }

    /// Lets one store after another make requests, until all are finished: one, a few, or so many
    /// that all of a takeover comes between two requests of another store.
    fn schedule(&self, n_actors: usize, random: &mut Random) {
        let (mut actor, mut n_left) = (0, 0);
        loop {
            let mut state = self.state.lock();
            self.changed.wait_while(&mut state, |state| {
                state.turn.is_some() || state.waiting.len() + state.finished.len() < n_actors
            });
            let waiting: Vec<_> = state.waiting.keys().copied().collect();
            if waiting.is_empty() {
                return;
            }
            if n_left == 0 || !waiting.contains(&actor) {
                actor = waiting[random.below(waiting.len())];
                n_left = [1, 3, 10, 60][random.below(4)];
            }
            n_left -= 1;
            if random.below(150) == 0 {
                state.crashed.insert(actor);
            }
            state.turn = Some(actor);
            self.changed.notify_all();
        }
    }
}

/// A cloud behind the gate.
struct Gated {
    inner: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
    actor: usize,
}

impl StoreLayer for Gated {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        self.gate.pass(self.actor)?;
        self.inner.put(call, name, content)
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        self.gate.pass(self.actor)?;
        let created = self.inner.create(call, name, content)?;
        // The answer may be lost as well.
        self.gate.pass(self.actor)?;
        Ok(created)
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        self.gate.pass(self.actor)?;
        self.inner.metadata(call, name)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        self.gate.pass(self.actor)?;
        self.inner.read_ranges(call, name, ranges)
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        self.gate.pass(self.actor)?;
        self.inner.list(call, prefix, after)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        self.gate.pass(self.actor)?;
        self.inner.delete(call, name, only)
    }
}

/// A stream of numbers that a seed decides (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }
}

/// What the content of a file must be, whichever store it is read from.
fn content_of(name: &str) -> Vec<u8> {
    name.as_bytes().repeat(700)
}

/// One store, with what it does.
struct Actor<'a> {
    number: usize,
    path: &'a Path,
    gate: Arc<Gate>,
    kvs: FakeKvs,
    recall: Arc<LateRecall>,
    files: Vec<String>,
    /// Each snapshot is followed by a checkpoint.
    with_checkpoints: bool,
    /// What any store ever counted as safe. It is kept outside of them: a takeover gives the status
    /// logs of a store up.
    ever_safe: Arc<Mutex<BTreeSet<Number>>>,
}

/// Epoch and snapshot.
type Number = (u64, u64);

impl Actor<'_> {
    fn dir(&self) -> StoreDir {
        let mut dir = StoreDir::open(self.path).unwrap();
        if self.with_checkpoints {
            dir.config.persist.checkpoint_bytes = 1;
        }
        let cloud = dir.cloud.as_mut().unwrap();
        let (gate, actor) = (Arc::clone(&self.gate), self.number);
        cloud.store = Arc::new(Gated { inner: Arc::clone(&cloud.store), gate, actor });
        dir
    }

    fn run(&mut self, random: &mut Random) {
        for n in 0..6 {
            match random.below(4) {
                0 => self.take_over(),
                _ => self.write_and_snapshot(n),
            }
            self.gate.restart(self.number);
        }
    }

    fn write_and_snapshot(&mut self, n: usize) {
        let dir = self.dir();
        // Nothing is written on a follower.
        if dir.writer.is_none() {
            return;
        }
        let name = format!("file-{}-{n}", self.number);
        if !self.files.contains(&name) {
            self.kvs = self.kvs.clone().file(&name, &content_of(&name));
            self.files.push(name);
        }
        let mode = OpenMode::Current;
        let store = Store::open(dir, ports_of(&self.kvs), Arc::new(NullSink), mode).unwrap();
        self.recall.set(store.recall());
        let agent = store.agent().unwrap();
        // Each may fail: the cloud goes, or the store is fenced.
        let snapshot = agent.perform(Task::Snapshot, &Arc::default());
        if snapshot.is_ok() {
            agent.perform(Task::Evict(SpaceGoal::Everything), &Arc::default()).unwrap();
        }
        self.recall.clear();
        drop((agent, store));
        self.ever_safe.lock().extend(safe_snapshots(self.path));
    }

    fn take_over(&mut self) {
        let dir = self.dir();
        let local = Some(LocalState::Discard);
        let options = TakeoverOptions { local, ..TakeoverOptions::default() };
        let mut target = Restored::default();
        let done = takeover(&dir, &options, &mut target, &mut |_| {});
        if let Ok(Takeover::Done { is_new: true, .. }) = done {
            let Restored { recall, kvs } = target;
            (self.kvs, self.recall) = (kvs.unwrap(), recall);
            self.files = self.kvs.names();
        }
    }
}

/// What a store counts as safe: what it has verified, as soon as a step of its own epoch is.
fn safe_snapshots(path: &Path) -> Vec<Number> {
    let dir = StoreDir::open(path).unwrap();
    let place = dir.safe_place().unwrap();
    let book = status_book(&dir).unwrap();
    let statuses = book.all().unwrap();
    let safe = statuses.iter().filter(|status| status.is_verified_in(&place));
    let is_anchored = safe.clone().any(|status| status.header.epoch.get() == dir.config.epoch);
    safe.filter(|_| is_anchored)
        .map(|status| (status.header.epoch.get(), status.header.snapshot.get()))
        .collect()
}

fn run(seed: u64) -> Result<(), StoreError> {
    let world = World::new();
    let mut random = Random(seed);
    let recall = Arc::new(LateRecall::default());
    let kvs = FakeKvs::with_recall(CHUNK, recall.clone()).file("first", &content_of("first"));
    let opened = world.open_with("store", kvs.clone(), &recall).unwrap();
    opened.perform(Task::Snapshot);
    recall.clear();
    drop(opened);
    let mut first = Some((kvs, recall));
    let gate = Arc::new(Gate::default());
    let ever_safe = Arc::new(Mutex::default());
    let names = ["store", "one", "two"];
    let mut actors = Vec::new();
    let paths: Vec<_> = names.iter().map(|name| world.path(name)).collect();
    for (number, path) in paths.iter().enumerate() {
        let (kvs, recall) = first.take().unwrap_or_else(|| world.restored_kvs(names[number]));
        let files = kvs.names();
        let (gate, ever_safe) = (Arc::clone(&gate), Arc::clone(&ever_safe));
        let with_checkpoints = seed % 2 == 1;
        actors.push(Actor { number, path, gate, kvs, recall, files, with_checkpoints, ever_safe });
    }
    let mut seeds: Vec<_> = actors.iter().map(|_| Random(random.next())).collect();
    thread::scope(|scope| {
        for (actor, random) in actors.iter_mut().zip(&mut seeds) {
            scope.spawn(|| {
                let finished = Finished(Arc::clone(&actor.gate), actor.number);
                actor.run(random);
                drop(finished);
            });
        }
        gate.schedule(names.len(), &mut random);
    });
    // What is left is one history, and it has everything that ever counted as safe.
    let dir = StoreDir::open(&paths[0])?;
    let cloud = dir.cloud.clone().unwrap().store;
    let archive = Archive::open(cloud.as_ref(), &dir.keys, dir.filesystem)?;
    let history: BTreeSet<_> =
        archive.snapshots().map(|s| (s.epoch.get(), s.snapshot.get())).collect();
    drop(archive);
    drop(dir);
    ever_safe.lock().extend(paths.iter().flat_map(|path| safe_snapshots(path)));
    for safe in ever_safe.lock().iter() {
        assert!(history.contains(safe), "seed {seed}: {safe:?} was safe once");
    }
    // And each store still reads all of its files.
    for actor in &mut actors {
        let dir = StoreDir::open(actor.path)?;
        let ports = ports_of(&actor.kvs);
        let store = Store::open(dir, ports, Arc::new(NullSink), OpenMode::Current)?;
        actor.recall.set(store.recall());
        for name in &actor.files {
            assert_eq!(actor.kvs.read(name).unwrap(), content_of(name), "seed {seed}: {name}");
        }
        actor.recall.clear();
    }
    Ok(())
}

/// Tells the scheduler that a store makes no request any more, also if its thread panics.
struct Finished(Arc<Gate>, usize);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.finish(self.1);
    }
}

#[test]
fn what_was_ever_safe_is_in_the_history_that_is_left() {
    let number = |name, usual| std::env::var(name).map_or(usual, |n| n.parse().unwrap());
    let first = number("TIER_OWNERSHIP_FIRST", 0);
    for seed in first..first + number("TIER_OWNERSHIP_SEEDS", 25) {
        run(seed).unwrap();
    }
}
