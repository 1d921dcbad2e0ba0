//! A store that puts its manifest at the moment when another one takes its archive over.

use std::sync::Arc;

use parking_lot::Mutex;
use tier_agent::{AgentError, SpaceGoal, Task};
use tier_status::NullSink;
use tier_store::{
    Layout, OpenMode, RestoreSource, Store, StoreDir, Takeover, TakeoverOptions, restore,
    status_book, takeover,
};
use tier_testkit::FakeKvs;
use tier_types::{
    Call, Created, Epoch, ObjectContent, ObjectName, ObjectStore, PortError, StoreLayer,
};

use crate::harness::{CHUNK, LateRecall, Opened, Restored, World, ports_of};

/// When the other store takes over.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    BeforeTheManifest,
    BehindTheManifest,
}

/// A cloud of which something happens once, when a manifest is created.
struct Interrupted<F> {
    inner: Arc<dyn ObjectStore>,
    moment: Moment,
    event: Mutex<Option<F>>,
}

impl<F: FnOnce() + Send> StoreLayer for Interrupted<F> {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        let event = self.event.lock().take_if(|_| name.as_str().ends_with(".manifest"));
        match (event, self.moment) {
            (Some(event), Moment::BeforeTheManifest) => {
                event();
                self.inner.create(call, name, content)
            }
            (Some(event), Moment::BehindTheManifest) => {
                let created = self.inner.create(call, name, content);
                event();
                created
            }
            (None, _) => self.inner.create(call, name, content),
        }
    }
}

/// The store writes a snapshot while the other one takes over, which then goes on.
fn race(world: &World, moment: Moment) {
    let recall = Arc::new(LateRecall::default());
    let kvs = FakeKvs::with_recall(CHUNK, recall.clone()).file("first", b"1");
    let opened = world.open_with("store", kvs, &recall).unwrap();
    opened.perform(Task::Snapshot);
    recall.clear();
    let Opened { kvs, store } = opened;
    drop(store);
    let other = Arc::new(Mutex::new(world.restored_kvs("other")));

    let (path, taken) = (world.path("other"), Arc::clone(&other));
    let take_over = move || {
        let dir = StoreDir::open(&path).unwrap();
        let mut target = Restored::default();
        let done = takeover(&dir, &TakeoverOptions::default(), &mut target, &mut |_| {}).unwrap();
        assert!(matches!(done, Takeover::Done { epoch, .. } if epoch == Epoch::new(2)), "{done:?}");
        if let Some(kvs) = target.kvs {
            *taken.lock() = (kvs, target.recall);
        }
    };
    let mut dir = StoreDir::open(&world.path("store")).unwrap();
    let cloud = dir.cloud.as_mut().unwrap();
    let inner = Arc::clone(&cloud.store);
    let event = Mutex::new(Some(take_over));
    cloud.store = Arc::new(Interrupted { inner, moment, event });
    let kvs = kvs.file("second", b"2");
    let ports = ports_of(&kvs);
    let store = Store::open(dir, ports, Arc::new(NullSink), OpenMode::Current).unwrap();
    let error = store.agent().unwrap().perform(Task::Snapshot, &Arc::default()).unwrap_err();
    let AgentError::NotUploaded(not_uploaded) = error else { panic!("{error}") };
    assert!(matches!(not_uploaded.why, AgentError::Fenced(_)), "{not_uploaded}");
    drop(store);

    let dir = StoreDir::open(&world.path("store")).unwrap();
    let place = dir.safe_place().unwrap();
    let statuses = status_book(&dir).unwrap().all().unwrap();
    let are_safe: Vec<_> = statuses.iter().map(|status| status.is_verified_in(&place)).collect();
    assert_eq!(are_safe, [true, false], "the second is not safe, whoever has it");

    let (kvs, recall) = other.lock().clone();
    let opened = world.open_with("other", kvs.file("third", b"3"), &recall).unwrap();
    opened.perform(Task::Snapshot);
    recall.clear();
}

/// The names in the newest history of an epoch.
fn names_of_epoch(world: &World, name: &str, epoch: u64) -> Vec<String> {
    let identity = Layout::new(&world.path("store")).identity();
    let mut source = RestoreSource::new(world.cloud(), identity);
    source.epoch = Some(Epoch::new(epoch));
    let mut target = Restored::default();
    restore(&world.path(name), &source, &mut target, &mut |_| {}).unwrap();
    target.kvs.unwrap().names()
}

#[test]
fn a_manifest_just_before_a_claim_is_in_the_history_that_follows() {
    let world = World::new();
    race(&world, Moment::BehindTheManifest);
    assert_eq!(names_of_epoch(&world, "newest", 2), ["first", "second", "third"]);
}

#[test]
fn a_manifest_just_behind_a_claim_is_in_its_own_history_alone() {
    let world = World::new();
    race(&world, Moment::BeforeTheManifest);
    assert_eq!(names_of_epoch(&world, "newest", 2), ["first", "third"]);
    assert_eq!(names_of_epoch(&world, "former", 1), ["first", "second"]);
}

/// Until then a third store may continue what the second one does not.
#[test]
fn what_was_taken_over_is_safe_with_the_first_step_of_the_new_epoch() {
    let world = World::new();
    let opened = world.with_files(&[("first", &[7; 5000])]);
    opened.perform(Task::Snapshot);
    let (kvs, recall) = world.restored_kvs("other");
    let dir = StoreDir::open(&world.path("other")).unwrap();
    let options = TakeoverOptions::default();
    takeover(&dir, &options, &mut Restored::default(), &mut |_| {}).unwrap();
    drop(dir);
    let other = world.open_with("other", kvs, &recall).unwrap();
    assert_eq!(other.kvs.read("first").unwrap(), [7; 5000]);
    let would_evict = || {
        let report = other.perform(Task::EvictDryRun(SpaceGoal::Everything));
        report.evicted.map_or(0, |evicted| evicted.n_evicted)
    };
    assert_eq!(would_evict(), 0);
    other.perform(Task::Snapshot);
    assert_eq!(would_evict(), 1);
    recall.clear();
}
