//! The stages one by one, with what stands behind them breaking at a chosen place.

use std::sync::atomic::{AtomicBool, Ordering};

use tier_agent::{AgentError, SpaceGoal, Stages};
use tier_evict::EvictReport;
use tier_persist::PersistError;
use tier_status::{Event, Place, StatusHeader};
use tier_testkit::Fault;
use tier_types::{
    Call, Epoch, ErrorKind, HasKind, InstanceView, LogReader, ObjectStore, SnapshotId, Xid,
};

use crate::fakes::{CHUNK, Fakes};

static GO_ON: AtomicBool = AtomicBool::new(false);

fn resident_bytes(fakes: &Fakes) -> u64 {
    fakes.kvs.usage().unwrap().resident_bytes
}

/// Persists everything so far.
fn persist(fakes: &Fakes) -> SnapshotId {
    fakes.stages.persist(&GO_ON).unwrap().unwrap().snapshot
}

fn evict_everything(fakes: &Fakes) -> EvictReport {
    fakes.stages.evict(SpaceGoal::Everything, &GO_ON).unwrap()
}

fn last_error(fakes: &Fakes, snapshot: SnapshotId) -> Option<String> {
    let header = StatusHeader { epoch: Epoch::new(1), snapshot };
    fakes.book.status(header).unwrap().unwrap().last_error
}

#[test]
fn a_failed_persist_releases_its_kvs_snapshot() {
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]));
    fakes.local.is_full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        fakes.stages.persist(&GO_ON).unwrap_err();
        assert_eq!(fakes.log.n_held(), 0, "an attempt that failed pins nothing");
        // Something must be logged, or the next attempt publishes nothing anew.
        drop(fakes.kvs.clone().write("a", 0, &[2; CHUNK as usize]));
    }
    let shown = last_error(&fakes, SnapshotId::new(1)).unwrap();
    assert!(shown.starts_with("persist: ") && shown.contains("no space left"), "{shown}");

    fakes.local.is_full.store(false, Ordering::Relaxed);
    let persisted = fakes.stages.persist(&GO_ON).unwrap().unwrap();
    assert_eq!(persisted.snapshot, SnapshotId::new(1));
    assert_eq!(persisted.report.n_inodes, 2, "the root and the file, from all publications");
    assert_eq!(fakes.log.n_held(), 0);
    let persisted_xid = fakes.stages.state().unwrap().persisted_xid;
    assert_eq!(persisted_xid, fakes.log.last_xid());
}

#[test]
fn a_persist_that_is_stopped_releases_its_kvs_snapshot() {
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]));
    let error = fakes.stages.persist(&AtomicBool::new(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(fakes.log.n_held(), 0);
    assert_eq!(last_error(&fakes, SnapshotId::new(1)), None, "a stop is no failure");
    // Published, but not persisted: the next attempt finds it without another write.
    assert_eq!(persist(&fakes), SnapshotId::new(1));
}

#[test]
fn the_error_of_a_failed_persist_is_not_hidden_by_that_of_the_release() {
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]));
    fakes.local.is_full.store(true, Ordering::Relaxed);
    fakes.log.release_fails.store(true, Ordering::Relaxed);
    let error = fakes.stages.persist(&GO_ON).unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    fakes.local.is_full.store(false, Ordering::Relaxed);
    let error = fakes.stages.persist(&GO_ON).unwrap_err();
    assert!(error.to_string().contains("cannot release"), "{error}");
}

#[test]
fn nothing_to_persist_is_no_snapshot() {
    let fakes = Fakes::with_cloud();
    persist(&fakes);
    assert_eq!(fakes.stages.persist(&GO_ON).unwrap(), None);
    assert_eq!(fakes.log.n_held(), 0);
}

#[test]
fn a_snapshot_that_is_not_verified_is_not_evicted_whatever_the_agent_calls_safe() {
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]));
    persist(&fakes);
    let state = fakes.stages.state().unwrap();
    assert_eq!((state.safe_xid, state.to_upload), (Xid::new(0), Some(SnapshotId::new(1))));
    assert_eq!(evict_everything(&fakes), EvictReport::default());
    let said = fakes.stages.evict_dry_run(SpaceGoal::Everything, &AtomicBool::new(false)).unwrap();
    assert_eq!(said, EvictReport::default());
    assert_eq!(resident_bytes(&fakes), u64::from(CHUNK));
}

#[test]
fn a_version_in_a_snapshot_that_is_not_verified_stays_when_an_earlier_one_is_safe() {
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]).file("b", &[1; CHUNK as usize]));
    let first = persist(&fakes);
    fakes.stages.upload(first, &GO_ON).unwrap();
    let safe = fakes.stages.state().unwrap().safe_xid;
    assert_eq!(safe, fakes.log.last_xid());
    drop(fakes.kvs.clone().write("b", 0, &[2; CHUNK as usize]));
    let second = persist(&fakes);
    // Both snapshots are committed and indexed; only the first one is verified in the cloud.
    let report = evict_everything(&fakes);
    assert_eq!((report.n_evicted, report.n_not_safe), (1, 1), "a goes, the newer b stays");
    assert_eq!(resident_bytes(&fakes), u64::from(CHUNK));

    fakes.stages.upload(second, &GO_ON).unwrap();
    let report = evict_everything(&fakes);
    assert_eq!((report.n_candidates, report.n_evicted, report.n_not_safe), (1, 1, 0));
    assert_eq!(resident_bytes(&fakes), 0);
}

#[test]
fn a_store_that_loses_what_was_put_makes_nothing_safe() {
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]));
    let snapshot = persist(&fakes);
    fakes.cloud.break_at(0, Fault::LostPut);
    let error = fakes.stages.upload(snapshot, &GO_ON).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    assert!(last_error(&fakes, snapshot).unwrap().starts_with("push: "));
    assert_eq!(fakes.stages.state().unwrap().to_upload, Some(snapshot));
    fakes.stages.upload(snapshot, &GO_ON).unwrap();
    let state = fakes.stages.state().unwrap();
    assert_eq!((state.to_upload, state.safe_xid), (None, fakes.log.last_xid()));
    let events = fakes.progress.events();
    assert_eq!(events.last(), Some(&Event::Verified { place: fakes.cloud_place() }));
}

#[test]
fn without_a_cloud_a_snapshot_is_verified_where_it_is() {
    let fakes = Fakes::without_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]));
    let snapshot = persist(&fakes);
    let stopped = fakes.stages.upload(snapshot, &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(stopped, AgentError::Stopped), "{stopped:?}");
    assert_eq!(fakes.stages.state().unwrap().to_upload, Some(snapshot));
    fakes.stages.upload(snapshot, &GO_ON).unwrap();
    assert_eq!(fakes.stages.state().unwrap().safe_xid, fakes.log.last_xid());
    assert_eq!(fakes.cloud.count(), 0);
    let events = fakes.progress.events();
    assert_eq!(events.last(), Some(&Event::Verified { place: Place::Local }));
    assert_eq!(evict_everything(&fakes).n_evicted, 1);
}

#[test]
fn a_snapshot_that_the_archive_does_not_have_cannot_be_uploaded() {
    let fakes = Fakes::with_cloud();
    let error = fakes.stages.upload(SnapshotId::new(9), &GO_ON).unwrap_err();
    assert!(matches!(error, AgentError::Persist(PersistError::Missing(_))), "{error:?}");
    assert!(error.to_string().contains("snapshot 9"), "{error}");
}

#[test]
fn a_manifest_that_is_lost_here_and_in_the_index_costs_nothing() {
    let fakes = Fakes::with_cloud();
    drop(fakes.kvs.clone().file("a", &[1; CHUNK as usize]));
    persist(&fakes);
    fakes.stages.recover().unwrap();
    let names = ObjectStore::names(fakes.local.as_ref(), &Call::bulk(), "").unwrap();
    let manifest = names.iter().find(|name| !name.as_str().contains(".tar.zst")).unwrap();
    ObjectStore::delete(fakes.local.as_ref(), &Call::bulk(), manifest, None).unwrap();
    fakes.stages.recover().unwrap();
    let left = ObjectStore::names(fakes.local.as_ref(), &Call::bulk(), "").unwrap();
    assert_eq!(left.len(), names.len() - 1, "its tarballs are not taken for leftovers");
}
