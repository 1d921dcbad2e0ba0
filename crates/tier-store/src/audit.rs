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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tier_agent::Task;
use tier_persist::{
    Archive, Claim, Claims, Damage, LostRanges, SnapshotSummary, StepKind, StoredObject,
    VerifyReport, Watch, check_object,
};
use tier_status::{SnapshotStatus, StatusHeader};
use tier_types::{
    Call, Epoch, ErrorKind, HasKind, ObjectStore, SnapshotId, StagingStore, StoredContent,
    with_causes,
};

use crate::store::Store;
use crate::{StoreError, ownership};

/// What an audit found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditReport {
    /// Of both copies together.
    pub checked: VerifyReport,
    /// Snapshots that do not count as safe any more.
    pub unsafe_now: BTreeSet<SnapshotId>,
    /// Why it could not be recorded of all of these, which then count as safe.
    pub not_recorded: Option<String>,
}

/// What a repair did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Objects that were put right here, from the cloud.
    pub repaired_here: Vec<String>,
    /// The claim on the archive that was lost and was made again.
    pub claimed_again: Option<String>,
    /// Snapshots that were uploaded again.
    pub uploaded: Vec<SnapshotId>,
    /// Why what is damaged in the cloud could not be uploaded again.
    pub not_uploaded: Option<String>,
    /// Snapshots of which no copy had everything: what the filesystem has of that is persisted
    /// again.
    pub persisted_again: Vec<SnapshotId>,
    /// Snapshots of which a copy has something again that was lost.
    pub found_again: Vec<SnapshotId>,
    /// What the archive has as lost, because the filesystem does not have it either.
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
            checked.frozen.extend(there.frozen);
            checked.damages.extend(there.damages.into_iter().map(in_cloud));
        }
        let taken = if unsafe_now.is_empty() { Ok(()) } else { self.take_back(&unsafe_now) };
        // What is damaged is said in any case.
        match self.lost_claim() {
            Ok(lost) => checked.damages.extend(lost.map(|(_, damage)| damage)),
            Err(error) => tracing::warn!("the claim was not looked for: {}", with_causes(&error)),
        }
        tracing::info!(n_damages = checked.damages.len(), "audited");
        let not_recorded = taken.err().map(|error| with_causes(&error));
        Ok(AuditReport { checked, unsafe_now, not_recorded })
    }

    /// Puts right what one copy has damaged or lost and the other has: here from the cloud, and
    /// there by uploading it again. What no copy has is persisted again from the filesystem.
    /// `progress` hears the length of each object that was checked.
    pub fn repair(
        &self,
        stop: &Arc<AtomicBool>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<RepairReport, StoreError> {
        let watch = &mut Watch::new(stop, progress);
        let (here, there) = self.check_copies(false, watch)?;
        let mut was_whole = here.damages.is_empty();
        was_whole &= there.as_ref().is_none_or(|there| there.damages.is_empty());
        let mut report = RepairReport::default();
        let archive = self.archive_or_manifests()?;
        for snapshot in &here.damaged {
            for object in archive.own_objects(self.index(), *snapshot)? {
                if here.damages.iter().any(|damage| damage.object == object.name.as_str()) {
                    watch.check_stop()?;
                    self.repair_here(&object, &mut report)?;
                }
            }
        }
        match self.claim_again() {
            Ok(claimed) => report.claimed_again = claimed,
            Err(error) => report.not_uploaded = Some(with_causes(&error)),
        }
        let has_cloud = there.is_some();
        let in_cloud = there.map(|there| there.damaged).unwrap_or_default();
        if self.dir().writer.is_some() {
            let mut suspects: BTreeSet<_> = here.damaged.union(&in_cloud).copied().collect();
            // A copy may have again what was lost.
            let has_lost = |status: &&SnapshotStatus| !status.lost_objects.is_empty();
            let statuses = self.book().all()?;
            suspects.extend(statuses.iter().filter(has_lost).map(|s| s.header.snapshot));
            suspects.retain(|snapshot| archive.snapshot(*snapshot).is_some());
            was_whole &= suspects.is_empty();
            if !suspects.is_empty() {
                let task = Task::PersistLost(suspects.into_iter().collect());
                let done = self.agent()?.perform(task, stop)?;
                (report.persisted_again, report.found_again) =
                    (done.persisted_again, done.found_again);
            }
            let done = report.persisted_again.iter().chain(&report.found_again);
            let mut unsafe_now: BTreeSet<_> = done.copied().collect();
            if has_cloud {
                unsafe_now.extend(in_cloud);
            }
            self.upload_again(&unsafe_now, stop, &mut report)?;
        }
        report.lost = LostRanges::of_index(self.index())?;
        if was_whole {
            return Ok(report);
        }
        // What is left is looked for again: it says whether all of this helped.
        let (here, there) = self.check_copies(false, watch)?;
        report.left = self.nowhere(std::iter::once(here).chain(there))?;
        Ok(report)
    }

    fn upload_again(
        &self,
        unsafe_now: &BTreeSet<SnapshotId>,
        stop: &Arc<AtomicBool>,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        if unsafe_now.is_empty() {
            return Ok(());
        }
        self.take_back(unsafe_now)?;
        match self.agent()?.perform(Task::Upload, stop) {
            Ok(done) => report.uploaded = done.uploaded,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error.into()),
            Err(error) => report.not_uploaded = Some(with_causes(&error)),
        }
        Ok(())
    }

    /// The claim of this store's epoch, if it was there once and is not there any more. Without it
    /// a store that had been replaced might take the archive back.
    fn lost_claim(&self) -> Result<Option<(Claim, Damage)>, StoreError> {
        let dir = self.dir();
        let (Some(cloud), Some(writer)) = (&dir.cloud, dir.writer) else { return Ok(None) };
        // Nothing can be told of a cloud that is not known.
        if cloud.id.is_none() {
            return Ok(None);
        }
        let (call, epoch) = (Call::bulk(), Epoch::new(dir.config.epoch));
        let claims = Claims::new(cloud.store.as_ref(), &dir.keys, dir.filesystem);
        if !claims.is_free(&call, epoch)? || claims.fenced(&call, epoch, Some(writer))?.is_some() {
            return Ok(None);
        }
        let claim = ownership::claim(&dir.keys, dir.filesystem, epoch, writer, dir.clock.as_ref());
        let problem = format!("the claim of epoch {epoch}, which is this store's, is not there");
        let damage = Damage { object: format!("cloud: {}", claim.name()), problem, missing: true };
        Ok(Some((claim, damage)))
    }

    /// Makes the claim again if it is lost, and returns its name.
    fn claim_again(&self) -> Result<Option<String>, StoreError> {
        let (Some((claim, damage)), Some(cloud)) = (self.lost_claim()?, &self.dir().cloud) else {
            return Ok(None);
        };
        let claims = Claims::new(cloud.store.as_ref(), &self.dir().keys, claim.filesystem);
        claims.create(&Call::bulk(), &claim)?;
        Ok(Some(damage.object))
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
        let archive = self.archive_or_manifests()?;
        let mut here = archive.verify(read_data, watch)?;
        self.check_without_manifests(&mut here, self.dir().local.as_ref(), watch)?;
        self.excuse_lost(&mut here)?;
        let Some(cloud) = &self.dir().cloud else { return Ok((self.recounted(here)?, None)) };
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
        self.check_without_manifests(&mut there, cloud.store.as_ref(), watch)?;
        self.excuse_lost(&mut there)?;
        Ok((self.recounted(here)?, Some(self.recounted(there)?)))
    }

    /// Checks the tarballs of snapshots whose manifests no copy has, as the index knows them.
    fn check_without_manifests(
        &self,
        report: &mut VerifyReport,
        store: &dyn ObjectStore,
        watch: &Watch<'_>,
    ) -> Result<(), StoreError> {
        let archive = self.archive_or_manifests()?;
        for snapshot in report.damaged.clone() {
            if archive.objects(snapshot).is_ok() {
                continue;
            }
            for object in archive.indexed_tarballs(self.index(), snapshot)? {
                watch.check_stop()?;
                report.n_objects += 1;
                report.bytes += object.content.len_bytes;
                match check_object(&Call::bulk(), store, &object) {
                    Err(error) if error.kind().is_of_object() => {
                        let missing = error.kind() == ErrorKind::Missing;
                        let (object, problem) = (object.name.to_string(), error.to_string());
                        report.damages.push(Damage { object, problem, missing });
                    }
                    checked => checked?,
                }
            }
        }
        Ok(())
    }

    /// What is known to be lost, and was persisted again, is no damage any more, unless the
    /// checkpoint that does without it is lost as well.
    fn excuse_lost(&self, found: &mut VerifyReport) -> Result<(), StoreError> {
        let archive = self.archive_or_manifests()?;
        for snapshot in &found.damaged {
            let Some(summary) = archive.snapshot(*snapshot) else { continue };
            let header = StatusHeader { epoch: summary.epoch, snapshot: *snapshot };
            let Some(status) = self.book().status(header)? else { continue };
            let Some(needed) = status.needs_checkpoint() else { continue };
            if summary.kind == StepKind::Checkpoint
                || self.book().has_whole_checkpoint(&archive, needed)?
            {
                found.damages.retain(|damage| !status.lost_objects.contains_key(&damage.object));
            }
        }
        Ok(())
    }

    /// What is missing here is no damage if the cloud owes it, which is asked for it then, or if
    /// another copy has it. Manifests are to be here, but for those from before a restore.
    fn excuse_missing(
        &self,
        here: &mut VerifyReport,
        owed: &dyn Fn(&SnapshotSummary) -> bool,
    ) -> Result<(), StoreError> {
        let archive = self.archive_or_manifests()?;
        let restored_by = self.restored_by(&self.book().all()?);
        let mut excused = BTreeSet::new();
        for snapshot in &here.damaged {
            let Some(summary) = archive.snapshot(*snapshot) else { continue };
            let manifest = archive.manifest_object(*snapshot)?.name;
            for object in archive.own_objects(self.index(), *snapshot)? {
                let is_to_be_here = object.name == manifest && restored_by <= Some(*snapshot);
                if !is_to_be_here && (owed(summary) || self.elsewhere(&object)?.is_some()) {
                    excused.insert(object.name.to_string());
                }
            }
        }
        here.damages.retain(|damage| !(damage.missing && excused.contains(&damage.object)));
        Ok(())
    }

    /// The report with the snapshots to which the damages belong that are left.
    fn recounted(&self, mut report: VerifyReport) -> Result<VerifyReport, StoreError> {
        let archive = self.archive_or_manifests()?;
        let names: BTreeSet<_> = report.damages.iter().map(|damage| &*damage.object).collect();
        let mut damaged = BTreeSet::new();
        for snapshot in &report.damaged {
            let objects = archive.own_objects(self.index(), *snapshot)?;
            if objects.iter().any(|object| names.contains(object.name.as_str())) {
                damaged.insert(*snapshot);
            }
        }
        report.damaged = damaged;
        Ok(report)
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
            let mut known = Vec::new();
            for snapshot in &report.damaged {
                known.extend(archive.own_objects(self.index(), *snapshot)?);
            }
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
        let restored_by = self.restored_by(&statuses);
        let was_verified = |status: &&SnapshotStatus| status.was_verified.contains(&place);
        let logs = statuses.iter().filter(was_verified).map(|status| status.header.snapshot);
        let logs: BTreeSet<_> = logs.collect();
        let archive = self.archive_or_manifests()?;
        let snapshots = archive.snapshots().map(|summary| summary.snapshot);
        let is_it =
            |snapshot: &SnapshotId| logs.contains(snapshot) || restored_by > Some(*snapshot);
        Ok(Some(snapshots.filter(is_it).collect()))
    }

    /// The checkpoint by which the store was restored from the cloud that counts: what came before
    /// it was there.
    fn restored_by(&self, statuses: &[SnapshotStatus]) -> Option<SnapshotId> {
        let place = self.dir().safe_place()?;
        let is_it = |status: &&SnapshotStatus| status.restored_from.as_ref() == Some(&place);
        statuses.iter().rev().find(is_it).map(|status| status.header.snapshot)
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
        let task = Task::TakeBack(snapshots.iter().copied().collect());
        self.agent()?.perform(task, &Arc::default())?;
        Ok(())
    }
}
