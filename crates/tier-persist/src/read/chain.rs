//! The chain of manifests: all committed snapshots of one filesystem in one store.
//!
//! The live history is the chain of parents from the newest manifest of the newest epoch back to
//! the first. Manifests that are not on it are left over from a writer that was replaced. Opening
//! an archive reads and checks every manifest of the chain, back to a checkpoint, which has all
//! before it, and keeps a summary of each: what it lists can be large, and is read again when it is
//! needed.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use tier_types::{Call, Epoch, ErrorKind, HasKind, ObjectName, ObjectStore, SnapshotId};

use crate::damage::Damage;
use crate::error::PersistError;
use crate::format::digest::sha256;
use crate::format::keys::Keys;
use crate::format::manifest::Manifest;
use crate::format::names::{self, FilesystemId, ObjectKind};
use crate::format::signed::SIGNED_BYTES_MAX;
use crate::format::signer::Signer;
use crate::read::copies::first_whole;
use crate::read::link::{Chain, ChainLink, ReadStep, SnapshotSummary, StepKind, StoredObject};
use crate::read::small::{is_of_the_object, read_small};
use crate::read::tarball_source::TarballSource;

/// Nothing takes so many snapshots: a name with a higher number is no manifest's.
const SNAPSHOT_MAX: SnapshotId = SnapshotId::new(1 << 48);
/// Manifests of an epoch by signers that do not count which are read before the epoch is taken to
/// be another's.
const N_FOREIGN_MAX: usize = 64;

/// Manifests that are tried with a key that does not fit one of them.
const N_TRIED_MAX: usize = 4;

/// The newest manifest of an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// What it commits.
    pub summary: SnapshotSummary,
    /// What signed it.
    pub signer: Signer,
    /// The SHA-256 of the object.
    pub digest: [u8; 32],
}

/// A manifest that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnreadManifest {
    /// Its epoch.
    pub epoch: Epoch,
    /// The number of its snapshot.
    pub snapshot: SnapshotId,
    /// What is wrong.
    pub damage: Damage,
}

/// Where histories end in a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heads {
    /// One for each epoch, the newest first.
    pub heads: Vec<Head>,
    /// Manifests that cannot be read and may have been newer.
    pub unread: Vec<UnreadManifest>,
    /// The highest number of a snapshot that any manifest has.
    pub last_snapshot: Option<SnapshotId>,
}

/// The committed snapshots of one filesystem in one store, oldest first. The live history is the
/// chain of parents from the newest manifest of the newest epoch; what is not on it is left over
/// from a writer that was replaced.
///
/// It lists what was committed, [verifies](Self::verify) it, [regenerates](Self::rebuild_index) the
/// index from it, and [restores](Self::restore_into) a filesystem.
///
/// ```
/// use tier_persist::{Archive, FilesystemId, Keys};
/// use tier_testkit::MemoryStore;
///
/// # fn main() -> Result<(), tier_persist::PersistError> {
/// let (store, keys) = (MemoryStore::default(), Keys::generate()?);
/// let archive = Archive::open(&store, &keys, FilesystemId::random()?)?;
/// assert_eq!(archive.snapshots().count(), 0, "nothing was committed yet");
/// assert!(Archive::filesystems(&store)?.is_empty());
/// # Ok(())
/// # }
/// ```
pub struct Archive<'a> {
    store: &'a dyn ObjectStore,
    /// Where tarballs are looked for, in this order.
    tarballs: Vec<&'a dyn ObjectStore>,
    keys: &'a Keys,
    filesystem: FilesystemId,
    chain: Arc<Chain>,
    signer: Option<Signer>,
}

impl<'a> Archive<'a> {
    /// Reads and checks the manifests from the newest one on. Within an epoch all are signed by one
    /// key. [`signer`](Self::signer) tells which one signed the newest, and so vouches for the
    /// others; whether it counts is for the caller to say.
    pub fn open(
        store: &'a dyn ObjectStore,
        keys: &'a Keys,
        filesystem: FilesystemId,
    ) -> Result<Self, PersistError> {
        let links = manifest_names(store, filesystem)?;
        // By epoch first: a writer that was replaced may have gone on to higher snapshot numbers.
        let newest = links.keys().max().copied();
        Self::open_chain(store, keys, filesystem, links, newest)
    }

    /// The same from a manifest on that need not be the newest one.
    pub fn open_from(
        store: &'a dyn ObjectStore,
        keys: &'a Keys,
        filesystem: FilesystemId,
        head: &Head,
    ) -> Result<Self, PersistError> {
        let links = manifest_names(store, filesystem)?;
        let head = (head.summary.epoch, head.summary.snapshot);
        Self::open_chain(store, keys, filesystem, links, Some(head))
    }

    /// Reads only what is on the chain: a store may hold the manifests of writers that were
    /// replaced, with any content.
    fn open_chain(
        store: &'a dyn ObjectStore,
        keys: &'a Keys,
        filesystem: FilesystemId,
        mut links: HashMap<(Epoch, SnapshotId), ObjectName>,
        mut next: Option<(Epoch, SnapshotId)>,
    ) -> Result<Self, PersistError> {
        let mut chain = Vec::new();
        // Ends: every manifest is taken out once, and a parent that is not there is an error.
        while let Some((epoch, snapshot)) = next {
            let name = links.remove(&(epoch, snapshot)).ok_or_else(|| {
                let name = names::manifest_name(filesystem, epoch, snapshot);
                PersistError::Missing(name.to_string())
            })?;
            let step = ChainLink::read_step(store, &name, keys).map_err(|error| {
                let fits = || !chain.is_empty() || opens_older(store, &links, epoch, keys);
                told_apart(error, fits)
            })?;
            let ReadStep { link, manifest } = step;
            next = link.parent.map(|parent| (parent.epoch, parent.snapshot));
            let is_checkpoint = link.summary.kind == StepKind::Checkpoint;
            chain.push(link);
            let source = TarballSource { stores: &[store], keys, filesystem };
            if is_checkpoint && let Some(before) = source.links_before(&manifest)? {
                chain.extend(before.into_iter().rev());
                break;
            }
        }
        if !links.is_empty() {
            let n_left_over = links.len();
            tracing::debug!(%filesystem, n_left_over, "leaving out manifests of replaced writers");
        }
        // It was read from the newest to the first.
        chain.reverse();
        for (before, after) in chain.iter().zip(chain.iter().skip(1)) {
            after.check_continues(before, filesystem)?;
        }
        let chain = Arc::new(chain.into_iter().map(Arc::new).collect());
        Self::over(chain, vec![store], keys, filesystem)
    }

    /// An archive whose history is known.
    pub(crate) fn over(
        chain: Arc<Chain>,
        stores: Vec<&'a dyn ObjectStore>,
        keys: &'a Keys,
        filesystem: FilesystemId,
    ) -> Result<Self, PersistError> {
        let nowhere = || PersistError::Missing("a store for the archive".into());
        let store = *stores.first().ok_or_else(nowhere)?;
        // Of the newest, because each step compares itself with the one before.
        let signer = chain.last().map(|link| link.signer);
        Ok(Self { store, tarballs: stores, keys, filesystem, chain, signer })
    }

    /// The newest manifest of each epoch and signer that can be read, the newest epoch first; of an
    /// epoch no further than to one by a signer that counts. What has the name of a manifest and
    /// cannot be read is gone past, and named.
    pub fn heads(
        store: &dyn ObjectStore,
        keys: &Keys,
        filesystem: FilesystemId,
        counts: &dyn Fn(Signer) -> bool,
    ) -> Result<Heads, PersistError> {
        let mut names: Vec<_> = manifest_names(store, filesystem)?.into_iter().collect();
        names.sort_unstable_by_key(|(number, _)| Reverse(*number));
        // Numbers of what cannot be read are used up as well, but for those that nothing counts up
        // to.
        let numbers = names.iter().map(|((_, snapshot), _)| *snapshot);
        let last_snapshot = numbers.filter(|snapshot| *snapshot <= SNAPSHOT_MAX).max();
        let mut found = Heads { last_snapshot, ..Heads::default() };
        let (mut done, mut wrong_key) = (None, None);
        let (mut last, mut n_of_epoch) = (None, 0);
        for ((epoch, snapshot), name) in names {
            if done == Some(epoch) {
                continue;
            }
            match ChainLink::read(store, &name, keys) {
                Ok(link) => {
                    let (signer, digest) = (link.signer, link.reference.digest);
                    let is_new = |head: &Head| head.summary.epoch != epoch || head.signer != signer;
                    let n_foreign = found.heads.iter().filter(|head| !is_new(head)).count();
                    if n_foreign == 0 {
                        found.heads.push(Head { summary: link.summary, signer, digest });
                    }
                    n_of_epoch = if last == Some(epoch) { n_of_epoch + 1 } else { 1 };
                    last = Some(epoch);
                    if counts(signer) || n_of_epoch >= N_FOREIGN_MAX {
                        done = Some(epoch);
                    }
                }
                Err(error) if is_of_the_object(&error) => {
                    tracing::warn!(%name, "a manifest cannot be read: {error}");
                    let (object, problem) = (name.to_string(), error.to_string());
                    let missing = error.kind() == ErrorKind::Missing;
                    let damage = Damage { object, problem, missing };
                    found.unread.push(UnreadManifest { epoch, snapshot, damage });
                    wrong_key =
                        wrong_key.or((error.kind() == ErrorKind::WrongKey).then_some(error));
                }
                Err(error) => return Err(error),
            }
        }
        // With the wrong identity there is nothing at all to be read.
        match wrong_key.filter(|_| found.heads.is_empty()) {
            Some(error) => Err(error),
            None => Ok(found),
        }
    }

    /// The newest snapshot by itself whose manifest can be read; the chain is not checked.
    pub fn newest(
        store: &dyn ObjectStore,
        keys: &Keys,
        filesystem: FilesystemId,
    ) -> Result<Option<SnapshotSummary>, PersistError> {
        let mut names: Vec<_> = manifest_names(store, filesystem)?.into_iter().collect();
        names.sort_unstable();
        let mut wrong_key = None;
        while let Some((_, name)) = names.pop() {
            match ChainLink::read(store, &name, keys) {
                Ok(link) => return Ok(Some(link.summary)),
                Err(error) if is_of_the_object(&error) => {
                    tracing::warn!(%name, "a manifest cannot be read: {error}");
                    wrong_key =
                        wrong_key.or((error.kind() == ErrorKind::WrongKey).then_some(error));
                }
                Err(error) => return Err(error),
            }
        }
        // With the wrong identity there is nothing at all to be read.
        wrong_key.map_or(Ok(None), Err)
    }

    /// The filesystems that have a manifest in this store.
    pub fn filesystems(store: &dyn ObjectStore) -> Result<Vec<FilesystemId>, PersistError> {
        // A listing is sorted, so that the objects of one filesystem are neighbours.
        let names = store.names(&Call::bulk(), "").map_err(PersistError::Store)?;
        let mut found: Vec<_> = names
            .iter()
            .filter_map(names::parse)
            .filter(|(_, kind)| matches!(kind, ObjectKind::Manifest { .. }))
            .map(|(filesystem, _)| filesystem)
            .collect();
        found.dedup();
        Ok(found)
    }

    /// Forgets, in this value only, the parts at the end of the history whose snapshot is not
    /// complete yet.
    #[must_use]
    pub fn complete(mut self) -> Self {
        let is_complete = |link: &Arc<ChainLink>| link.summary.covered.is_none();
        let n_complete = self.chain.iter().rposition(is_complete).map_or(0, |last| last + 1);
        if n_complete < self.chain.len() {
            Arc::make_mut(&mut self.chain).truncate(n_complete);
        }
        self
    }

    /// Forgets, in this value only, the snapshots that are not wanted.
    #[must_use]
    pub fn only(mut self, is_wanted: &dyn Fn(&SnapshotSummary) -> bool) -> Self {
        Arc::make_mut(&mut self.chain).retain(|link| is_wanted(&link.summary));
        self
    }

    /// The same history in these stores, of which the first is the archive's own.
    #[must_use]
    pub fn in_stores(mut self, stores: Vec<&'a dyn ObjectStore>) -> Self {
        if let Some(store) = stores.first() {
            self.store = *store;
        }
        self.tarballs = stores;
        self
    }

    /// Takes tarballs, which these manifests commit, from the first of these stores that has them.
    #[must_use]
    pub fn with_tarballs_in(mut self, stores: Vec<&'a dyn ObjectStore>) -> Self {
        self.tarballs = stores;
        self
    }

    /// What signed the newest manifest.
    pub fn signer(&self) -> Option<Signer> {
        self.signer
    }

    /// The SHA-256 of the manifest of the newest snapshot.
    pub fn newest_digest(&self) -> Option<[u8; 32]> {
        self.chain.last().map(|link| link.reference.digest)
    }

    /// Which filesystem.
    pub fn filesystem(&self) -> FilesystemId {
        self.filesystem
    }

    /// The filesystem's chunk size in bytes, if there is any snapshot.
    pub fn chunk_bytes(&self) -> Option<u32> {
        self.chain.last().map(|link| link.chunk_bytes)
    }

    /// The snapshots, oldest first.
    pub fn snapshots(&self) -> impl DoubleEndedIterator<Item = &SnapshotSummary> {
        self.chain.iter().map(|link| &link.summary)
    }

    /// Forgets, in this value only, what came after a snapshot.
    #[must_use]
    pub fn until(mut self, snapshot: SnapshotId) -> Self {
        // What `signer` says stays: it is of the newest manifest, which may be dropped here.
        Arc::make_mut(&mut self.chain).retain(|link| link.summary.snapshot <= snapshot);
        self
    }

    /// The manifest of a snapshot as an object.
    pub fn manifest_object(&self, snapshot: SnapshotId) -> Result<StoredObject, PersistError> {
        Ok(self.link(snapshot)?.object(self.filesystem))
    }

    pub(crate) fn link(&self, snapshot: SnapshotId) -> Result<&ChainLink, PersistError> {
        // Numbers ascend along the chain.
        let position = self.chain.binary_search_by_key(&snapshot, |link| link.summary.snapshot);
        let link = position.ok().and_then(|position| self.chain.get(position));
        link.map(AsRef::as_ref)
            .ok_or_else(|| PersistError::Missing(format!("the manifest of snapshot {snapshot}")))
    }

    /// The manifests as objects, oldest first, without those that are lost.
    pub fn manifests(&self) -> Vec<StoredObject> {
        self.chain
            .iter()
            .filter(|link| !link.is_lost())
            .map(|link| link.object(self.filesystem))
            .collect()
    }

    /// The snapshot of this number.
    pub fn snapshot(&self, snapshot: SnapshotId) -> Option<&SnapshotSummary> {
        self.link(snapshot).ok().map(|link| &link.summary)
    }

    /// The snapshots after this one, or all of them, oldest first.
    pub fn after(
        &self,
        snapshot: Option<SnapshotId>,
    ) -> impl DoubleEndedIterator<Item = &SnapshotSummary> {
        let is_after = |link: &Arc<ChainLink>| Some(link.summary.snapshot) > snapshot;
        let first = self.chain.partition_point(|link| !is_after(link));
        self.chain.iter().skip(first).map(|link| &link.summary)
    }

    /// The snapshots before this one, newest first.
    pub fn before(&self, snapshot: SnapshotId) -> impl Iterator<Item = &SnapshotSummary> {
        let n_before = self.chain.partition_point(|link| link.summary.snapshot < snapshot);
        self.chain.iter().take(n_before).rev().map(|link| &link.summary)
    }

    pub(crate) fn links(&self) -> &[Arc<ChainLink>] {
        &self.chain
    }

    /// To change what is said of them, in this value only.
    pub(crate) fn links_mut(&mut self) -> &mut [Arc<ChainLink>] {
        Arc::make_mut(&mut self.chain).as_mut_slice()
    }

    pub(crate) fn store(&self) -> &'a dyn ObjectStore {
        self.store
    }

    /// Where tarballs are looked for.
    pub(crate) fn tarballs(&self) -> TarballSource<'_> {
        self.tarballs_in(&self.tarballs)
    }

    /// Tarballs in these stores and no other.
    pub(crate) fn tarballs_in<'s>(
        &'s self,
        stores: &'s [&'s dyn ObjectStore],
    ) -> TarballSource<'s> {
        TarballSource { stores, keys: self.keys, filesystem: self.filesystem }
    }

    /// Reads a manifest of the chain again: they are not kept in memory. It comes from the first
    /// store that has exactly those bytes.
    pub(crate) fn manifest(&self, link: &ChainLink) -> Result<Manifest, PersistError> {
        let (call, name) = (Call::bulk(), link.name(self.filesystem));
        let opened = first_whole(&self.tarballs, |store| {
            let bytes = read_small(&call, *store, &name, SIGNED_BYTES_MAX)?;
            // Before it is opened: damage of its header would look like another key's.
            if sha256(&bytes) != link.reference.digest {
                return Err(PersistError::damaged(&name, "its digest is wrong"));
            }
            Manifest::from_object(&bytes, &name, self.keys)
        });
        Ok(opened?.manifest)
    }
}

impl std::fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}

/// The names of all manifests, by epoch and snapshot.
pub(crate) fn manifest_names(
    store: &dyn ObjectStore,
    filesystem: FilesystemId,
) -> Result<HashMap<(Epoch, SnapshotId), ObjectName>, PersistError> {
    let mut found = HashMap::new();
    for name in store
        .names(&Call::bulk(), &names::manifests_prefix(filesystem))
        .map_err(PersistError::Store)?
    {
        if let Some((_, ObjectKind::Manifest { epoch, snapshot })) = names::parse(&name) {
            found.insert((epoch, snapshot), name);
        }
    }
    Ok(found)
}

/// Whether a key opens one of the manifests before the newest one. The last few of its epoch are
/// tried: those of others may be for other keys.
fn opens_older(
    store: &dyn ObjectStore,
    links: &HashMap<(Epoch, SnapshotId), ObjectName>,
    newest: Epoch,
    keys: &Keys,
) -> bool {
    let mut older: Vec<_> = links.iter().filter(|((epoch, _), _)| *epoch == newest).collect();
    older.sort_unstable_by_key(|(number, _)| Reverse(**number));
    let mut tried = older.into_iter().take(N_TRIED_MAX);
    tried.any(|(_, name)| ChainLink::read(store, name, keys).is_ok())
}

/// A header with a damaged byte looks like one for another key. Where the key fits other manifests
/// of the history it is damage.
fn told_apart(error: PersistError, key_fits: impl FnOnce() -> bool) -> PersistError {
    let PersistError::WrongKey { object } = &error else { return error };
    if key_fits() {
        let object = object.clone();
        PersistError::damaged(object, "its age header fits no key that fits the others")
    } else {
        error
    }
}
