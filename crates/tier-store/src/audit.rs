//! An audit of a store: every object that was ever committed, here and in the cloud.
//!
//! What must be there the index says, with the digest of each manifest; so a manifest that is lost
//! in one copy, or in both, is missed. Where the index says nothing, the manifests that are left
//! do. The cloud owes what was once verified in it; what is in the cloud need not be here, but for
//! manifests, which are few and small.
//!
//! What is damaged where it makes a snapshot safe takes its mark: from then on nothing more is
//! evicted against it, until it was uploaded again or [repaired](Store::repair): from the other
//! copy, or from the filesystem.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tier_agent::Task;
use tier_persist::{
    Archive, Damage, LostRanges, SnapshotSummary, StoredObject, VerifyReport, Watch, check_object,
};
use tier_status::{SnapshotStatus, StatusHeader};
use tier_types::{
    Call, ErrorKind, HasKind, ObjectStore, SnapshotId, StagingStore, StoredContent, with_causes,
};

use crate::StoreError;
use crate::store::Store;

/// What an audit found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditReport {
    /// Of both copies together.
    pub checked: VerifyReport,
    /// Snapshots that do not count as safe any more.
    pub unsafe_now: BTreeSet<SnapshotId>,
}

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Objects that were put right here, from the cloud.
    pub repaired_here: Vec<String>,
    /// Snapshots that were uploaded again.
    pub uploaded: Vec<SnapshotId>,
    /// Why what is damaged in the cloud could not be uploaded again.
    pub not_uploaded: Option<String>,
    /// Snapshots of which no copy had everything: what the filesystem has of that is persisted
    /// again.
    pub persisted_again: Vec<SnapshotId>,
    /// What the filesystem does not have either.
    pub lost: LostRanges,
    /// What is damaged in every copy.
    pub left: Vec<Damage>,
}

impl Store {
    /// Checks both copies of everything; with `read_data` every byte is decrypted and every member
    /// parsed. Damage is reported, not an error, and takes the marks of the snapshots that it makes
    /// unsafe.
    pub fn audit(&self, read_data: bool, watch: &mut Watch<'_>) -> Result<AuditReport, StoreError> {
        let (mut checked, in_cloud) = self.check_copies(read_data, watch)?;
        let unsafe_now = match &in_cloud {
            Some(in_cloud) => in_cloud.damaged.clone(),
            None => checked.damaged.clone(),
        };
        if let Some(there) = in_cloud {
            checked.n_objects += there.n_objects;
            checked.bytes += there.bytes;
            checked.n_members += there.n_members;
            checked.damaged.extend(there.damaged);
            // An object has the same name in both copies, and a report must say which of the two is
            // damaged.
            let in_cloud =
                |damage: Damage| Damage { object: format!("cloud: {}", damage.object), ..damage };
            checked.damages.extend(there.damages.into_iter().map(in_cloud));
        }
        tracing::info!(n_damages = checked.damages.len(), "audited");
        if !unsafe_now.is_empty() {
            // What is damaged is said in any case.
            if let Err(error) = self.take_back(&unsafe_now) {
                tracing::error!("cannot take marks back: {}", with_causes(&error));
            }
        }
        Ok(AuditReport { checked, unsafe_now })
    }

    /// Puts right what one copy has damaged or lost and the other has: here from the cloud, and
    /// there by uploading it again. What no copy has is persisted again from the filesystem.
    pub fn repair(&self, watch: &mut Watch<'_>) -> Result<RepairReport, StoreError> {
        let (here, there) = self.check_copies(false, watch)?;
        let mut report = RepairReport::default();
        let archive = self.archive_or_manifests()?;
        for snapshot in &here.damaged {
            // Without its manifest, which no copy has, nothing of it is known.
            let Ok(objects) = archive.objects(*snapshot) else { continue };
            for object in objects.own() {
                if here.damages.iter().any(|damage| damage.object == object.name.as_str()) {
                    watch.check_stop()?;
                    self.repair_here(object, &mut report)?;
                }
            }
        }
        let in_cloud = there.as_ref().map(|there| there.damaged.clone()).unwrap_or_default();
        if self.dir().writer.is_some() {
            for snapshot in here.damaged.union(&in_cloud) {
                watch.check_stop()?;
                self.persist_lost(*snapshot, &mut report)?;
            }
        }
        let unsafe_now =
            there.map_or(report.persisted_again.iter().copied().collect(), |_| in_cloud);
        if !unsafe_now.is_empty() && self.dir().writer.is_some() {
            self.take_back(&unsafe_now)?;
            let uploaded = self.agent()?.perform(Task::Upload, &Arc::default());
            match uploaded {
                Ok(done) => report.uploaded = done.uploaded,
                Err(error) => report.not_uploaded = Some(with_causes(&error)),
            }
        }
        // What is left is looked for again: it says whether all of this helped.
        let (here, there) = self.check_copies(false, watch)?;
        report.left = self.nowhere(std::iter::once(here).chain(there))?;
        Ok(report)
    }

    /// Persists again what a snapshot has in objects that no copy has whole, if there are any.
    fn persist_lost(
        &self,
        snapshot: SnapshotId,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let n_steps = |store: &Self| -> Result<usize, StoreError> {
            Ok(store.archive_or_manifests()?.snapshots().count())
        };
        let before = n_steps(self)?;
        let done = self.agent()?.perform(Task::PersistLost(snapshot), &Arc::default())?;
        for range in done.lost.listed() {
            report.lost.add(*range);
        }
        if n_steps(self)? > before {
            report.persisted_again.push(snapshot);
        }
        Ok(())
    }

    /// Replaces a local object by the cloud's, if that is whole.
    fn repair_here(
        &self,
        object: &StoredObject,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let (call, StoredObject { name, content }) = (Call::bulk(), object);
        let local: &dyn StagingStore = self.dir().local.as_ref();
        let Some(store) = self.elsewhere(object)? else { return Ok(()) };
        // What has the name here is not what it must be.
        match local.delete(&call, name, None) {
            Err(error) if error.kind() != ErrorKind::Missing => return Err(error.into()),
            _ => {}
        }
        local.put(&call, name, &StoredContent { store, name, len_bytes: content.len_bytes })?;
        check_object(&call, self.dir().local.as_ref(), object)?;
        tracing::info!(%name, "put right from the cloud");
        report.repaired_here.push(name.to_string());
        Ok(())
    }

    /// The copy here without what need not be here, and the one in the cloud, if there is one.
    fn check_copies(
        &self,
        read_data: bool,
        watch: &mut Watch<'_>,
    ) -> Result<(VerifyReport, Option<VerifyReport>), StoreError> {
        tracing::info!(read_data, "auditing the local copy");
        let mut here = self.archive_or_manifests()?.verify(read_data, watch)?;
        self.excuse_lost(&mut here)?;
        let Some(cloud) = &self.dir().cloud else { return Ok((here, None)) };
        tracing::info!(read_data, "auditing the copy in the cloud");
        let uploaded = self.was_uploaded()?;
        let owed = |summary: &SnapshotSummary| match &uploaded {
            Some(uploaded) => uploaded.contains(&summary.snapshot),
            // Which cloud it is cannot be told: all of it is looked for.
            None => true,
        };
        self.excuse_missing(&mut here, &owed)?;
        let mut stores = self.dir().stores();
        stores.rotate_left(1);
        assert_eq!(stores.first().map(|store| store.url()), Some(cloud.store.url()));
        let archive = self.archive_or_manifests()?.in_stores(stores).only(&owed);
        let mut there = archive.verify(read_data, watch)?;
        self.excuse_lost(&mut there)?;
        Ok((here, Some(there)))
    }

    /// What is known to be lost, and was persisted again, is no damage any more.
    fn excuse_lost(&self, found: &mut VerifyReport) -> Result<(), StoreError> {
        let archive = self.archive_or_manifests()?;
        for snapshot in found.damaged.clone() {
            let Some(summary) = archive.snapshot(snapshot) else { continue };
            let header = StatusHeader { epoch: summary.epoch, snapshot };
            let status = self.book().status(header)?;
            let lost = status.map(|status| status.lost_objects).unwrap_or_default();
            if lost.is_empty() {
                continue;
            }
            found.damages.retain(|damage| !lost.contains(&damage.object));
            let left = archive.objects(snapshot).map(|objects| objects.data).unwrap_or_default();
            let is_damaged = |object: &StoredObject| {
                found.damages.iter().any(|damage| damage.object == object.name.as_str())
            };
            if !left.iter().any(is_damaged) {
                found.damaged.remove(&snapshot);
            }
        }
        Ok(())
    }

    /// What is missing here is no damage if the cloud owes it, which is asked for it then, or if
    /// another copy has it. Manifests are to be here.
    fn excuse_missing(
        &self,
        here: &mut VerifyReport,
        owed: &dyn Fn(&SnapshotSummary) -> bool,
    ) -> Result<(), StoreError> {
        let archive = self.archive_or_manifests()?;
        let mut excused = BTreeSet::new();
        for snapshot in &here.damaged {
            let Some(summary) = archive.snapshot(*snapshot) else { continue };
            let Ok(objects) = archive.objects(*snapshot) else { continue };
            // A store that was restored by a checkpoint has no manifests of what came before it.
            let header = StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
            let was_here = self.book().status(header)?.is_some();
            let manifest = Some(&objects.manifest).filter(|_| !was_here);
            for object in objects.data.iter().chain(manifest) {
                if owed(summary) || self.elsewhere(object)?.is_some() {
                    excused.insert(object.name.to_string());
                }
            }
        }
        here.damages.retain(|damage| !(damage.missing && excused.contains(&damage.object)));
        Ok(())
    }

    /// Another store than the local one that has an object whole.
    fn elsewhere(&self, object: &StoredObject) -> Result<Option<&dyn ObjectStore>, StoreError> {
        for store in self.dir().stores().into_iter().skip(1) {
            match check_object(&Call::bulk(), store, object) {
                Ok(()) => return Ok(Some(store)),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(name = %object.name, %error, "this copy does not help");
                }
            }
        }
        Ok(None)
    }

    /// What of these objects no copy has whole.
    fn nowhere(
        &self,
        reports: impl IntoIterator<Item = VerifyReport>,
    ) -> Result<Vec<Damage>, StoreError> {
        let archive = self.archive_or_manifests()?;
        let mut left = Vec::new();
        let mut seen = BTreeSet::new();
        for report in reports {
            let snapshots = report.damaged.iter().filter_map(|s| archive.objects(*s).ok());
            let known: Vec<_> =
                snapshots.flat_map(|o| o.own().cloned().collect::<Vec<_>>()).collect();
            for damage in report.damages {
                let object = known.iter().find(|object| object.name.as_str() == damage.object);
                let is_somewhere = match object {
                    Some(object) => {
                        check_object(&Call::bulk(), self.dir().local.as_ref(), object).is_ok()
                            || self.elsewhere(object)?.is_some()
                    }
                    None => false,
                };
                if !is_somewhere && seen.insert(damage.object.clone()) {
                    left.push(damage);
                }
            }
        }
        Ok(left)
    }

    /// Snapshots that were once verified in the cloud; `None` if it cannot be told which cloud it
    /// is.
    fn was_uploaded(&self) -> Result<Option<BTreeSet<SnapshotId>>, StoreError> {
        let Some(place) = self.dir().safe_place() else { return Ok(None) };
        let statuses = self.book().all()?;
        // What has no log came with the restore by a checkpoint.
        let is_it = |status: &&SnapshotStatus| status.restored_from.as_ref() == Some(&place);
        let restored_by = statuses.iter().rev().find(is_it).map(|status| status.header.snapshot);
        let logs: BTreeMap<_, _> = statuses
            .iter()
            .map(|status| (status.header.snapshot, status.was_verified.contains(&place)))
            .collect();
        let archive = self.archive_or_manifests()?;
        let uploaded = archive.snapshots().filter(|summary| {
            let snapshot = summary.snapshot;
            logs.get(&snapshot).copied().unwrap_or(restored_by > Some(snapshot))
        });
        Ok(Some(uploaded.map(|summary| summary.snapshot).collect()))
    }

    /// The history as the index has it, or as the manifests here say where that has none.
    fn archive_or_manifests(&self) -> Result<Archive<'_>, StoreError> {
        if self.index().applied()?.is_some() {
            return self.archive();
        }
        let dir = self.dir();
        Ok(Archive::open(dir.local.as_ref(), &dir.keys, dir.filesystem)?)
    }

    fn take_back(&self, snapshots: &BTreeSet<SnapshotId>) -> Result<(), StoreError> {
        let agent = self.agent()?;
        for snapshot in snapshots {
            agent.perform(Task::TakeBack(*snapshot), &Arc::default())?;
        }
        Ok(())
    }
}
