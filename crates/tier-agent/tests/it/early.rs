//! What goes up beside persisting, when persisting fails.

use std::collections::BTreeSet;

use kvfs::ops::NewNode;
use tier_agent::Task;
use tier_persist::Archive;
use tier_testkit::noise;
use tier_types::{Call, FileKind, Ino, ObjectStore};

use crate::harness::{Harness, file_name, node, tree};

/// Events of a snapshot of some tarballs.
const N_EVENTS: i64 = 20;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Objects of data in the cloud, and those that a manifest there names.
fn data_in_cloud(harness: &Harness) -> (BTreeSet<String>, BTreeSet<String>) {
    let cloud: &dyn ObjectStore = harness.memory.as_ref();
    let names = cloud.names(&Call::bulk(), "").unwrap();
    let is_data = |name: &String| name.contains("/data/");
    let all = names.iter().map(ToString::to_string).filter(is_data).collect();
    let archive = Archive::open(cloud, &harness.keys, harness.filesystem).unwrap();
    let mut named = BTreeSet::new();
    for summary in archive.snapshots() {
        let objects = archive.objects(summary.snapshot).unwrap();
        named.extend(objects.data.iter().map(|object| object.name.to_string()));
    }
    (all, named)
}

fn file() -> NewNode {
    node(FileKind::Regular, 0o644)
}

#[test]
fn what_a_failed_attempt_put_goes_a_day_after_another_one_came_through() {
    let mut n_left = 0;
    for n_events in 1..N_EVENTS {
        let is_killed = n_events % 2 == 0;
        let mut harness = Harness::new();
        for (seed, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let made = harness.fs().create_node(Ino::ROOT, &file_name(name), &file());
            // It does not compress, so that there is more than one tarball.
            harness.fs().write(made.unwrap().ino, 0, &noise(9000, seed)).unwrap();
        }
        harness.break_sink_after(n_events);
        drop(harness.perform(Task::Persist));
        let (before, named) = data_in_cloud(&harness);
        n_left += before.difference(&named).count();
        if is_killed {
            harness.reopen();
        } else {
            harness.break_sink_after(i64::MAX);
        }
        harness.perform(Task::Snapshot).unwrap();
        let (all, named) = data_in_cloud(&harness);
        assert!(all.is_superset(&before) && all.is_superset(&named), "nothing goes at once");
        harness.reopen();
        harness.time.pass(DAY_SECONDS);
        harness.fs().create_node(Ino::ROOT, &file_name("d"), &file()).unwrap();
        harness.perform(Task::Snapshot).unwrap();
        let (all, named) = data_in_cloud(&harness);
        assert_eq!(all, named, "after {n_events} events, killed: {is_killed}");
        assert_eq!(harness.restored_tree(None), tree(harness.fs()));
    }
    assert!(n_left > 0, "no attempt left anything");
}
