//! A new store from a cloud alone: a follower, which reads the archive and does not write to it.
//!
//! The order makes an interrupted restore recognisable: identity, index, inodes, manifests, status
//! logs, and the settings last, without which the directory is no store. The filesystem is the
//! caller's ([`RestoreTarget`]); its inodes come back with detours for all their data, which is
//! read from the cloud when it is needed.
//!
//! Restoring changes nothing in the cloud, so that a drill can never take an archive over: that is
//! a step of its own ([`crate::takeover()`]). Which history is restored is decided by signatures:
//! the newest manifest that this identity signed, or a signer that the operator names. Anything
//! else that has the name of a manifest is gone past.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tier_agent::{StatusBook, read_archived_log};
use tier_cloud::DirStore;
use tier_persist::{
    Archive, Damage, FilesystemId, Head, Heads, Keys, LostRanges, RestoredInodes, Signer,
    SnapshotSummary, StoredObject, UnreadManifest, Watch, check_object,
};
use tier_status::{Event, Place, StatusHeader, StatusSink};
use tier_types::{
    Call, Clock, CloudId, Epoch, ErrorKind, HasKind, Ino, MountedInstance, ObjectStore, PortError,
    Recall, SnapshotId, StoredContent, SystemClock, Xid,
};

use crate::cloud::{CountedCloud, RestoreProgress, completed, id, open_cloud};
use crate::config::{Cloud, Config};
use crate::create::{NewStore, prepare_directory};
use crate::identity::read_identity;
use crate::store::Store;
use crate::wiring::{open_index, recaller};
use crate::{Layout, StoreError, index_dirs};

/// What to restore.
#[derive(Clone, Debug)]
pub struct RestoreSource {
    /// The cloud's URL.
    pub cloud: String,
    /// The identity file that opens the archive.
    pub identity: PathBuf,
    /// The state after this snapshot; the newest one without it.
    pub snapshot: Option<SnapshotId>,
    /// Which filesystem, where the cloud has several.
    pub filesystem: Option<FilesystemId>,
    /// Extra recipients of what will be written.
    pub recipients: Vec<String>,
    /// The fingerprint of another signer that is believed.
    pub signer: Option<String>,
    /// Of this epoch, and not the newest one.
    pub epoch: Option<Epoch>,
    /// All that the parts of a snapshot hold that is not complete yet: files of several moments.
    pub incomplete: bool,
}

impl RestoreSource {
    /// The newest state of the only filesystem in a cloud.
    pub fn new(cloud: impl Into<String>, identity: impl Into<PathBuf>) -> Self {
        Self {
            cloud: cloud.into(),
            identity: identity.into(),
            snapshot: None,
            filesystem: None,
            recipients: Vec::new(),
            signer: None,
            epoch: None,
            incomplete: false,
        }
    }
}

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RestoreReport {
    /// Inodes.
    pub n_inodes: u64,
    /// The snapshot whose state it is.
    pub snapshot: Option<SnapshotId>,
    /// Inodes that could not be read in full when that snapshot was taken, for another reason than
    /// damage of their data: they have lost ranges, or an older state, or are not there.
    pub failed: Vec<Ino>,
    /// What of the data could not be read when it was persisted.
    pub lost: LostRanges,
    /// Manifests that could not be read; some of them may have been newer.
    pub unread: Vec<Damage>,
    /// What of the tarballs could be read nowhere.
    pub damages: Vec<Damage>,
}

/// Makes the filesystem that is restored into.
pub trait RestoreTarget {
    /// Makes an empty filesystem below `path`, without even a root directory, that gives out no
    /// transaction id and no inode number up to `floor`.
    fn create(
        &mut self,
        path: &Path,
        config: &Config,
        floor: Xid,
    ) -> Result<Arc<dyn MountedInstance>, PortError>;

    /// The last transaction of the filesystem that is below `path`. Asked before a store goes on
    /// from it that was replaced.
    fn last_xid(&mut self, path: &Path, config: &Config) -> Result<Xid, PortError>;

    /// Makes what was restored durable.
    fn finish(&mut self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Makes a store at `path`, which must be empty if it is there.
pub fn restore(
    path: &Path,
    source: &RestoreSource,
    target: &mut dyn RestoreTarget,
    progress: &mut dyn FnMut(RestoreProgress),
) -> Result<RestoreReport, StoreError> {
    let source = &RestoreSource { cloud: completed(&source.cloud)?, ..source.clone() };
    let cloud = Arc::new(CountedCloud::new(open_cloud(&source.cloud)?));
    let progress = &mut |n_inodes| progress(cloud.progress(n_inodes));
    let mut keys = read_identity(&source.identity)?;
    for recipient in &source.recipients {
        keys.add_recipient(recipient)?;
    }
    let filesystem = find_filesystem(cloud.as_ref(), source)?;
    let signers = Signers::new(&keys, source.signer.as_deref());
    let heads = Archive::heads(cloud.as_ref(), &keys, filesystem, &|signer| signers.count(signer))?;
    let head = choose_head(&heads.heads, &signers, source.epoch)?;
    // Another epoch that is asked for is left on purpose.
    let mut unread = if source.epoch.is_none() { newer(&heads, head) } else { Vec::new() };
    let (archive, holes) = Archive::open_past_holes(cloud.as_ref(), &keys, filesystem, head)?;
    let archive = if source.incomplete { archive } else { until(archive, source.snapshot)? };
    let floors = Floors::behind(&heads, &signers);
    let mut config = settings(&archive, floors, filesystem, source)?;
    let id = identity_of(cloud.as_ref())?.map(|id| id.to_string());
    config.cloud = config.cloud.map(|cloud| Cloud { id, ..cloud });
    let layout = Layout::new(path);
    tracing::info!(%filesystem, epoch = config.epoch, path = %path.display(), "restoring");
    // Nothing was written until here: an unknown snapshot or another signer leaves no directory
    // behind that would have to be removed before the next attempt.
    prepare_directory(&layout, &keys)?;
    let restored = fill_store(&layout, &archive, cloud.as_ref(), &config, target, progress)?;
    config.write(&layout)?;
    // What comes after the snapshot that is wanted is not needed for it.
    let is_needed = |manifest: &UnreadManifest| {
        source.snapshot.is_none_or(|snapshot| manifest.snapshot <= snapshot)
    };
    unread.extend(holes);
    let unread = unread.into_iter().filter(is_needed);
    Ok(RestoreReport { unread: unread.map(|manifest| manifest.damage).collect(), ..restored })
}

/// Fills the directory of a store from an archive in a cloud: all but its settings.
pub(crate) fn fill_store(
    layout: &Layout,
    archive: &Archive<'_>,
    cloud: &dyn ObjectStore,
    config: &Config,
    target: &mut dyn RestoreTarget,
    progress: &mut dyn FnMut(u64),
) -> Result<RestoreReport, StoreError> {
    let floor = Xid::new(config.xid_floor);
    let behind = |last: Xid| last <= floor;
    assert!(archive.snapshots().all(|s| behind(s.last_xid)), "no number is given out twice");
    let local = DirStore::create(&layout.tarballs())?;
    let filled = fill(layout, archive, config, floor, target, progress)?;
    let Filled { restored, damages, checkpoint } = filled;
    let RestoredInodes { n_inodes, lost, .. } = restored;
    copy_manifests(archive, checkpoint, cloud, &local)?;
    record(layout, archive, checkpoint, config)?;
    let last = archive.snapshots().next_back();
    Ok(RestoreReport {
        n_inodes,
        snapshot: last.map(|last| last.snapshot),
        failed: last.map(|last| last.failed.clone()).unwrap_or_default(),
        lost,
        unread: Vec::new(),
        damages,
    })
}

impl Store {
    /// A look at an old snapshot: an index and a filesystem at `path`, which no settings make a
    /// store, and the way back for its data.
    pub fn restore_snapshot(
        &self,
        path: &Path,
        snapshot: SnapshotId,
        target: &mut dyn RestoreTarget,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Arc<dyn Recall>, StoreError> {
        let dir = self.dir();
        let archive = until(self.archive()?, Some(snapshot))?;
        let layout = Layout::new(path);
        let floor = archive.snapshots().next_back().map_or(Xid::new(0), |last| last.last_xid);
        let filled = fill(&layout, &archive, &dir.config, floor, target, progress)?;
        for damage in &filled.damages {
            tracing::warn!("not all of this snapshot can be read: {}", damage.problem);
        }
        let index = Arc::new(open_index(&index_dirs::current(&layout)?, &dir.config)?);
        Ok(Arc::new(recaller(dir, &index, dir.copies())?))
    }
}

/// An index and a filesystem that were filled.
struct Filled {
    restored: RestoredInodes,
    damages: Vec<Damage>,
    /// The checkpoint that they were filled from, with what came since.
    checkpoint: Option<SnapshotId>,
}

/// Fills an index and a filesystem below the layout's root from an archive.
fn fill(
    layout: &Layout,
    archive: &Archive<'_>,
    config: &Config,
    floor: Xid,
    target: &mut dyn RestoreTarget,
    progress: &mut dyn FnMut(u64),
) -> Result<Filled, StoreError> {
    let index = open_index(&index_dirs::current(layout)?, config)?;
    let spill_dir = layout.root();
    // Objects are read before an inode can be put back.
    let (stop, mut read) = (AtomicBool::new(false), |_| progress(0));
    let salvaged = archive.salvage_index(
        &index,
        &|segments, range, show| read_archived_log(spill_dir, segments, range, show),
        &mut Watch::new(&stop, &mut read),
    )?;
    let instance = target.create(layout.root(), config, floor)?;
    let restored = archive.restore_into(&index, instance.as_ref(), &salvaged, progress)?;
    target.finish()?;
    let checkpoint = salvaged.checkpoint(archive);
    let damages = salvaged.damages.into_iter().chain(restored.damages.iter().cloned()).collect();
    Ok(Filled { restored, damages, checkpoint })
}

/// The archive up to and including a snapshot, or the last one that is complete.
pub(crate) fn until(
    archive: Archive<'_>,
    snapshot: Option<SnapshotId>,
) -> Result<Archive<'_>, StoreError> {
    let Some(snapshot) = snapshot else { return Ok(archive.complete()) };
    let summary = archive.snapshot(snapshot).ok_or_else(|| {
        StoreError::Unusable(format!("there is no snapshot {snapshot}; tier snapshots lists them"))
    })?;
    if summary.covered.is_some() {
        return Err(StoreError::Unusable(format!(
            "snapshot {snapshot} is a part of a longer one: not all of its files are as of one moment"
        )));
    }
    Ok(archive.until(snapshot))
}

/// The signers whose manifests are believed.
pub(crate) struct Signers<'a> {
    own: Signer,
    /// The fingerprint that the operator names.
    named: Option<&'a str>,
}

impl<'a> Signers<'a> {
    pub(crate) fn new(keys: &Keys, named: Option<&'a str>) -> Self {
        Self { own: keys.signer(), named }
    }

    /// The identity's own, unless another one is named.
    pub(crate) fn count(&self, signer: Signer) -> bool {
        match self.named {
            Some(fingerprint) => signer.fingerprint() == fingerprint,
            None => signer == self.own,
        }
    }
}

/// The newest manifest that counts.
pub(crate) fn choose_head<'h>(
    heads: &'h [Head],
    signers: &Signers<'_>,
    epoch: Option<Epoch>,
) -> Result<&'h Head, StoreError> {
    let is_wanted = |head: &&Head| epoch.is_none_or(|epoch| head.summary.epoch == epoch);
    let chosen = heads.iter().filter(is_wanted).find(|head| signers.count(head.signer));
    chosen.ok_or_else(|| StoreError::Unusable(no_head(heads, signers.own, signers.named, epoch)))
}

/// Manifests that may be newer than the one that was chosen: that cannot be read, or that a signer
/// made which does not count.
pub(crate) fn newer(heads: &Heads, chosen: &Head) -> Vec<UnreadManifest> {
    let number = |head: &Head| (head.summary.epoch, head.summary.snapshot);
    let foreign = heads.heads.iter().filter(|head| number(head) > number(chosen));
    let foreign = foreign.map(|head| {
        let SnapshotSummary { epoch, snapshot, .. } = head.summary;
        let object = format!("the manifest of snapshot {snapshot} (epoch {epoch})");
        let problem = format!("it is signed by {}", head.signer.fingerprint());
        let damage = Damage { object, problem, missing: false };
        UnreadManifest { epoch, snapshot, damage }
    });
    heads.unread.iter().cloned().chain(foreign).collect()
}

/// What there is instead, for an operator to choose from.
fn no_head(heads: &[Head], own: Signer, signer: Option<&str>, epoch: Option<Epoch>) -> String {
    if heads.is_empty() {
        return "the cloud has no snapshot".into();
    }
    let wanted = signer.map_or_else(|| own.fingerprint(), str::to_owned);
    let of_epoch = epoch.map(|epoch| format!(" in epoch {epoch}")).unwrap_or_default();
    let mut text = format!("no manifest{of_epoch} is signed by {wanted}; there are:");
    for Head { summary, signer, .. } in heads {
        let SnapshotSummary { epoch, snapshot, created, .. } = summary;
        let signer = signer.fingerprint();
        text.push_str(&format!(
            "\n  epoch {epoch}, snapshot {snapshot} of {created}, signed by {signer}"
        ));
    }
    text.push_str("\nIf one of these signers is to be believed, name it: --signer FINGERPRINT");
    text
}

/// Numbers that a store begins behind, because they were used in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Floors {
    pub(crate) xid: Xid,
    pub(crate) snapshot: SnapshotId,
}

impl Floors {
    /// Behind all histories, also those that were left; but not behind what others signed, which
    /// may say anything.
    pub(crate) fn behind(heads: &Heads, signers: &Signers<'_>) -> Self {
        let counting = heads.heads.iter().filter(|head| signers.count(head.signer));
        let xid = counting.map(|head| head.summary.last_xid).max();
        Self {
            xid: xid.unwrap_or(Xid::new(0)),
            snapshot: heads.last_snapshot.unwrap_or(SnapshotId::new(0)),
        }
    }

    /// Behind these numbers as well.
    pub(crate) fn and_behind(self, xid: Xid, snapshot: SnapshotId) -> Self {
        Self { xid: self.xid.max(xid), snapshot: self.snapshot.max(snapshot) }
    }
}

/// Which cloud it is. An archive is restored also from a place that has lost its identity: then
/// the store does not push to it.
fn identity_of(cloud: &dyn ObjectStore) -> Result<Option<CloudId>, PortError> {
    let id = match id::read(&Call::bulk(), cloud) {
        Err(error) if error.kind() == ErrorKind::Damaged => None,
        id => id?,
    };
    if id.is_none() {
        let url = cloud.url();
        tracing::warn!(url, "the cloud has lost its identity; this store will not push to it");
    }
    Ok(id)
}

/// The settings of the new store, which writes in the way of the one that is restored if it ever
/// does.
fn settings(
    archive: &Archive<'_>,
    floors: Floors,
    filesystem: FilesystemId,
    source: &RestoreSource,
) -> Result<Config, StoreError> {
    let nothing = || StoreError::Unusable("there is nothing to restore".into());
    let newest = archive.snapshots().next_back().ok_or_else(nothing)?;
    let new = NewStore {
        cloud: Some(source.cloud.clone()),
        recipients: source.recipients.clone(),
        encryption: encrypts(archive)?,
        chunk_bytes: archive.chunk_bytes().ok_or_else(nothing)?,
        ..NewStore::default()
    };
    Ok(Config {
        epoch: newest.epoch.get(),
        xid_floor: floors.xid.get(),
        snapshot_floor: floors.snapshot.get(),
        // Without a token it is a follower.
        ..new.config(filesystem, None)
    })
}

fn find_filesystem(
    cloud: &dyn ObjectStore,
    source: &RestoreSource,
) -> Result<FilesystemId, StoreError> {
    if let Some(filesystem) = source.filesystem {
        return Ok(filesystem);
    }
    match Archive::filesystems(cloud)?.as_slice() {
        [] => Err(StoreError::Unusable(format!("there is no filesystem at {}", source.cloud))),
        [only] => Ok(*only),
        several => {
            let list: Vec<_> = several.iter().map(ToString::to_string).collect();
            Err(StoreError::Unusable(format!(
                "there are several filesystems; say --filesystem with one of {}",
                list.join(", ")
            )))
        }
    }
}

/// Whether the archive's tarballs are encrypted; a restored store goes on the same way.
fn encrypts(archive: &Archive<'_>) -> Result<bool, StoreError> {
    for summary in archive.snapshots().rev().filter(|summary| !summary.is_lost) {
        let objects = archive.objects(summary.snapshot)?;
        if let Some(object) = objects.data.first() {
            let ending = Path::new(object.name.as_str()).extension();
            return Ok(ending.is_some_and(|ending| ending == "age"));
        }
    }
    // Without any object to go by, what is written from now on is not readable for the cloud.
    Ok(true)
}

/// What a store keeps for itself of the history: from the checkpoint on by which it was restored,
/// or all of it. What came before, its index and the cloud have.
fn kept<'a>(
    archive: &'a Archive<'_>,
    checkpoint: Option<SnapshotId>,
) -> impl Iterator<Item = &'a SnapshotSummary> {
    let is_kept = move |summary: &&SnapshotSummary| Some(summary.snapshot) >= checkpoint;
    archive.snapshots().filter(is_kept).filter(|summary| !summary.is_lost)
}

fn copy_manifests(
    archive: &Archive<'_>,
    checkpoint: Option<SnapshotId>,
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
) -> Result<(), StoreError> {
    let copy = |object: &StoredObject| -> Result<(), StoreError> {
        let StoredObject { name, content } = object;
        let content = StoredContent { store: from, name, len_bytes: content.len_bytes };
        to.put(&Call::bulk(), name, &content)?;
        Ok(check_object(&Call::bulk(), to, object)?)
    };
    for summary in kept(archive, checkpoint) {
        if Some(summary.snapshot) == checkpoint {
            // With the steps before it, so that the history is known here.
            archive.history_objects(summary.snapshot)?.iter().try_for_each(copy)?;
            continue;
        }
        match copy(&archive.manifest_object(summary.snapshot)?) {
            // It was told when the index was filled, and is a hole here as well.
            Err(error) if error.kind().is_of_object() => {
                tracing::warn!(snapshot = %summary.snapshot, "a manifest is left out: {error}");
            }
            copied => copied?,
        }
    }
    Ok(())
}

/// Status logs that say where the snapshots are: where they were restored from.
fn record(
    layout: &Layout,
    archive: &Archive<'_>,
    checkpoint: Option<SnapshotId>,
    config: &Config,
) -> Result<(), StoreError> {
    let place = config.cloud_place().map(Place::Cloud);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let book = StatusBook::open(&layout.status(), clock)?;
    for summary in kept(archive, checkpoint) {
        let header = StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
        let status = book.writer(header)?;
        status.report(Event::Committed {
            manifest: format!("snapshot {}", summary.snapshot),
            n_tarballs: summary.n_tarballs,
            n_inodes: summary.n_inodes,
            data_bytes: summary.data_bytes,
            tarball_bytes: summary.tarball_bytes,
        })?;
        status.report(Event::Indexed)?;
        // Otherwise the agent would begin by uploading these snapshots, from a local store that has
        // none of their tarballs.
        if let Some(place) = place.clone() {
            status.report(Event::Verified { place: place.clone() })?;
            if Some(summary.snapshot) == checkpoint {
                status.report(Event::RestoredFrom { place })?;
            }
        }
    }
    Ok(())
}
