//! What a store is for.

use std::fs;
use std::path::Path;

use tier_agent::{SpaceGoal, Task};
use tier_persist::{ScanMode, Watch};
use tier_store::{Layout, RebuildOptions, StoreDir, rebuild};
use tier_testkit::FakeKvs;
use tier_types::{Call, InstanceView};

use crate::harness::{CHUNK, World};

const FILES: [(&str, &[u8]); 2] = [("hello", b"world"), ("large", &[7; 10_000])];
const BY_TABLES: RebuildOptions = RebuildOptions { mode: ScanMode::Tables, from_cloud: false };

#[test]
fn what_was_evicted_comes_back_here_and_in_a_restored_store() {
    let world = World::new();
    let opened = world.with_files(&FILES);
    let report = opened.perform(Task::Snapshot);
    assert!(report.persisted.is_some());
    opened.perform(Task::Evict(SpaceGoal::Everything));
    assert_eq!(opened.kvs.usage().unwrap().resident_bytes, 0);
    for (name, content) in FILES {
        assert_eq!(opened.kvs.read(name).unwrap(), content);
    }
    let restored = world.restored("restored");
    for (name, content) in FILES {
        assert_eq!(restored.kvs.read(name).unwrap(), content);
    }
    // The restored store goes on behind everything that the archive has seen.
    let (old, new) = (&opened.store.dir().config, &restored.store.dir().config);
    assert_eq!((new.epoch, &new.writer), (old.epoch, &None), "it is a follower");
    let kvs = restored.kvs.file("later", b"x");
    assert!(kvs.ino("later").get() > new.xid_floor && new.xid_floor > 0);
}

#[test]
fn an_index_is_made_anew_beside_the_one_in_use_and_of_a_closed_store() {
    let world = World::new();
    let opened = world.with_files(&FILES);
    opened.perform(Task::Snapshot);
    let dump = |store: &tier_store::Store| {
        let mut dump = Vec::new();
        store.index().dump(&mut dump).unwrap();
        dump
    };
    let live = dump(&opened.store);
    let filled = opened.store.rebuild_in_use(BY_TABLES, &mut Watch::default()).unwrap();
    assert!(filled.n_tarballs > 0 && filled.damages.is_empty(), "{filled:?}");
    assert_eq!(dump(&opened.store), live, "the new index says the same");
    let kvs = opened.kvs.clone();
    drop(opened);

    let path = world.path("store");
    fs::remove_dir_all(Layout::new(&path).indexes()).unwrap();
    let dir = StoreDir::open(&path).unwrap();
    rebuild(dir, BY_TABLES, &mut Watch::default()).unwrap();
    let reopened = world.open("store", |_| kvs).unwrap();
    assert_eq!(dump(&reopened.store), live);
}

#[test]
fn an_audit_names_what_is_damaged_and_what_is_lost() {
    let world = World::new();
    let opened = world.with_files(&FILES);
    opened.perform(Task::Snapshot);
    let look = || opened.store.audit(true, &mut Watch::default()).unwrap().checked;
    let whole = look();
    assert!(whole.damages.is_empty() && whole.n_members > 0, "{whole:?}");
    // The cloud loses its newest manifest, and with it all trace of the snapshot.
    let objects = opened.store.dir().cloud.clone().unwrap().store;
    let names = objects.names(&Call::bulk(), "").unwrap();
    let manifest = names.iter().find(|name| name.as_str().contains("manifest")).unwrap();
    objects.delete(&Call::bulk(), manifest, None).unwrap();
    let damages = look().damages;
    assert!(damages.iter().any(|damage| damage.missing), "{damages:?}");
}

/// As if a commit were between the two.
#[test]
fn an_index_in_use_is_made_anew_while_a_manifest_is_ahead_of_it() {
    let world = World::new();
    copy(&world.path("store"), &world.path("twin"));
    let twin = world.open("twin", |recall| FakeKvs::with_recall(CHUNK, recall).file("f", b"1"));
    twin.unwrap().perform(Task::Snapshot);
    let opened = world.with_files(&FILES);
    let tarballs = |name: &str| Layout::new(&world.path(name)).tarballs();
    copy(&tarballs("twin"), &tarballs("store"));
    let filled = opened.store.rebuild_in_use(BY_TABLES, &mut Watch::default()).unwrap();
    assert_eq!((filled.n_tarballs, filled.damages), (0, vec![]));
    opened.store.with_fresh_index(BY_TABLES, &mut Watch::default(), |_| ()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
