//! The persister: takes one snapshot to tarballs, manifest and index, in this order.
//!
//! Each step makes durable what the next one relies on. Before the manifest is there, nothing of
//! the snapshot is: a crash leaves tarballs that the next attempt removes. After it, the snapshot
//! is committed: a crash before the index has it leaves an index that is behind, which
//! [`Archive::catch_up`](crate::Archive::catch_up) brings up to the manifest by the same code. The
//! status log is told after each step, and is evidence of none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tier_index::{Index, TarballId};
use tier_status::{Event, StatusSink};
use tier_types::{Clock, Epoch, Ino, ObjectStore, SnapshotId, StagingStore, XidRange};

use crate::derive::apply::{self, Apply, ScanMode};
use crate::error::PersistError;
use crate::format::keys::{Keys, random_bytes};
use crate::format::manifest::{Manifest, ManifestKind, ManifestRef};
use crate::format::names::{self, FilesystemId, NameToken};
use crate::format::packed::PackedObject;
use crate::format::tarball::identity::TarballIdentity;
use crate::progress::Watch;
use crate::read::link::ChainLink;
use crate::read::tarball_source::TarballSource;
use crate::write::checkpoint::{
    self, CheckpointObjects, CheckpointReport, CheckpointRequest, KnownSteps,
};
use crate::write::discard;
use crate::write::limits::Limits;
use crate::write::options::PersistOptions;
use crate::write::packed_writer::PackedWriter;
use crate::write::parts::{PartEnd, plan_all};
use crate::write::pipeline::context::Context;
use crate::write::pipeline::{self, jobs::JobQueue};
use crate::write::planner::Planner;
use crate::write::request::{EpochBegin, PersistReport, PersistRequest};
use crate::write::unread::Sorted;
use crate::write::written::{ShareOf, Written};

/// Writes snapshots of one filesystem into a local store.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use std::sync::atomic::AtomicBool;
///
/// use tier_index::{Index, IndexOptions};
/// use tier_persist::{
///     Fetcher, FetcherOptions, FilesystemId, Keys, PartBounds, PersistOptions, PersistRequest,
///     Persister, WriterToken,
/// };
/// use tier_status::NullSink;
/// use tier_testkit::{FakeKvs, MemoryStore, OneByOne};
/// use tier_types::{
///     Change, ChunkNo, ChunkRange, Epoch, FileUpdate, LogService, MountedInstance, RecallRequest,
///     SnapshotId, SystemClock,
/// };
///
/// // A filesystem with one file, and a snapshot of it.
/// let kvs = FakeKvs::new(512).file("hello", b"world");
/// let publication = kvs.log().publish()?.expect("there is something to publish");
/// let mounted = kvs.open_snapshot(&publication)?;
///
/// let dir = tempfile::tempdir()?;
/// let index = Arc::new(Index::open(dir.path(), 512, &IndexOptions::default())?);
/// let (store, keys) = (Arc::new(MemoryStore::default()), Arc::new(Keys::generate()?));
/// let filesystem = FilesystemId::random()?;
/// let persister = Persister::new(
///     filesystem,
///     store.clone(),
///     keys.clone(),
///     index.clone(),
///     Arc::new(SystemClock),
///     PersistOptions::default(),
/// );
///
/// // What changed is the log's to say: here, all of the file.
/// let ino = kvs.ino("hello");
/// let update = FileUpdate { ino, change: Change::Touched(vec![ChunkRange::ALL]) };
/// let report = persister.persist(&mut PersistRequest {
///     epoch: Epoch::new(1),
///     writer: WriterToken::random()?,
///     snapshot: SnapshotId::new(1),
///     range: publication.range,
///     part: None,
///     failed_before: &[],
///     n_looked_at: 0,
///     mounted: mounted.as_ref(),
///     updates: &mut [Ok(update)].into_iter(),
///     segments: &mut std::iter::empty(),
///     bounds: PartBounds::NONE,
///     on_sealed: &|_| {},
///     status: &NullSink,
///     stop: &AtomicBool::new(false),
/// })?;
/// assert_eq!((report.n_inodes, report.data_bytes, report.n_tarballs), (1, 5, 1));
///
/// // The data comes back by inode, chunk, and exactly the transaction that wrote it.
/// let fetcher = Fetcher::new(filesystem, index, keys, vec![store], FetcherOptions::default());
/// let extent = kvs.resident_of(ino, ChunkNo::new(0), 1)?.remove(0);
/// let request = RecallRequest { ino, chunks: extent.chunks, data_xid: extent.data_xid };
/// assert_eq!(fetcher.fetch(&request)?.bytes(), b"world");
/// # Ok(())
/// # }
/// ```
pub struct Persister {
    filesystem: FilesystemId,
    store: Arc<dyn StagingStore>,
    /// Where else a tarball is that the store has dropped by the time of its commit.
    copies: Vec<Arc<dyn ObjectStore>>,
    keys: Arc<Keys>,
    index: Arc<Index>,
    clock: Arc<dyn Clock>,
    options: PersistOptions,
    /// An attempt has failed, and may have left tarballs.
    has_leftovers: AtomicBool,
    known_steps: Mutex<KnownSteps>,
}

impl std::fmt::Debug for Persister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Persister").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}

impl Persister {
    /// Components and settings of a persister. Stops on settings that make no sense: no worker, an
    /// empty frame, a rate of nothing.
    pub fn new(
        filesystem: FilesystemId,
        store: Arc<dyn StagingStore>,
        keys: Arc<Keys>,
        index: Arc<Index>,
        clock: Arc<dyn Clock>,
        options: PersistOptions,
    ) -> Self {
        options.assert_sound();
        Self {
            filesystem,
            store,
            copies: Vec::new(),
            keys,
            index,
            clock,
            options,
            has_leftovers: AtomicBool::default(),
            known_steps: Mutex::default(),
        }
    }

    /// Reads tarballs that the store drops before their snapshot is committed from these stores.
    #[must_use]
    pub fn with_copies(self, copies: Vec<Arc<dyn ObjectStore>>) -> Self {
        Self { copies, ..self }
    }

    /// Persists a snapshot. When this returns without an error it is durable in the local store,
    /// and the index includes it. An inode whose metadata or chunk map cannot be read is left out
    /// and reported. Of one whose data cannot be read in places exactly those chunks are left out,
    /// as lost ranges, and it is persisted with the rest; if the reason is not damage, it is
    /// reported as well. Where that becomes of many of them, the snapshot fails as a whole.
    pub fn persist(&self, request: &mut PersistRequest<'_>) -> Result<PersistReport, PersistError> {
        let started = Instant::now();
        let PersistRequest { epoch, snapshot, range, .. } = *request;
        tracing::info!(%snapshot, %epoch, %range, "persisting a snapshot");
        // Nothing later compares them: applying takes the chunk size to be the index's own.
        apply::check_chunk_bytes(&self.index, request.mounted.chunk_bytes())?;
        // Before anything is said or removed: a snapshot that is refused stays what it was.
        self.check_is_next(epoch, snapshot)?;
        // What an earlier process left went when this one recovered, so that nothing is listed for
        // a first attempt. Set until the snapshot is committed.
        if self.has_leftovers.swap(true, Ordering::Relaxed) {
            let store = self.store.as_ref();
            discard::discard_attempt(store, self.filesystem, &self.index, epoch, snapshot)?;
        }
        // So that a crash at any later step leaves a status log that says what was begun.
        request.status.report(Event::Started { range })?;
        let token = NameToken(random_bytes()?);
        let written = self.write_objects(request, token);
        // Nothing is committed yet, so that all of it is of no use: its room may be what is wanted.
        let (written, packed) = written.inspect_err(|_| self.discard_failed(epoch, snapshot))?;
        let Written { tarballs, mut report, unread } = written;
        let manifest = Manifest { tarballs, packed, ..self.manifest(request, &report)? };
        self.commit(&manifest, request.status, &report)?;
        self.has_leftovers.store(false, Ordering::Relaxed);
        // Only now: which of it earlier snapshots have is known when this one is in the index.
        let Sorted { lost, archived } = unread.sort(&self.index)?;
        (report.lost, report.unread) = (lost, archived);
        tracing::info!(
            %snapshot,
            n_tarballs = report.n_tarballs,
            n_inodes = report.n_inodes,
            n_failed = report.failed.len(),
            covered = report.covered.map(Ino::get),
            lost_bytes = report.lost.n_bytes(),
            unread_bytes = report.unread.n_bytes(),
            data_bytes = report.data_bytes,
            tarball_bytes = report.tarball_bytes,
            elapsed = ?started.elapsed(),
            "snapshot committed"
        );
        Ok(report)
    }

    /// Begins an epoch: commits a step without any content, so that the archive shows from now on
    /// whose history goes on, and from which snapshot.
    pub fn begin_epoch(&self, begin: &EpochBegin<'_>) -> Result<(), PersistError> {
        let EpochBegin { epoch, writer, snapshot, last_xid, covered, failed, status } = *begin;
        tracing::info!(%snapshot, %epoch, "beginning an epoch");
        self.check_is_next(epoch, snapshot)?;
        let manifest = Manifest {
            filesystem: self.filesystem,
            epoch,
            snapshot,
            kind: ManifestKind::Snapshot,
            range: None,
            last_xid,
            holds_from: last_xid,
            covered,
            created: self.clock.now(),
            chunk_bytes: self.index.chunk_bytes(),
            parent: self.parent()?,
            epoch_parent: self.epoch_parent(epoch)?,
            writer,
            failed: failed.to_vec(),
            n_inodes: 0,
            data_bytes: 0,
            tarballs: Vec::new(),
            packed: Vec::new(),
            others: Vec::new(),
            signer: self.keys.signer(),
        };
        self.commit(&manifest, status, &PersistReport::default())
    }

    /// Commits a checkpoint of the history: a step that states all that is live by itself. The KVS
    /// snapshot must be of the same moment as the newest snapshot.
    pub fn checkpoint(
        &self,
        request: &CheckpointRequest<'_>,
    ) -> Result<CheckpointReport, PersistError> {
        let CheckpointRequest { epoch, writer, snapshot, archive, .. } = *request;
        tracing::info!(%snapshot, %epoch, "writing a checkpoint");
        self.check_is_next(epoch, snapshot)?;
        let last = archive.links().last();
        let (Some(last), Some(parent)) = (last, self.parent()?) else {
            return Ok(CheckpointReport::default());
        };
        assert_eq!(last.reference, parent, "the history ends with what the index includes");
        assert!(last.summary.covered.is_none(), "a checkpoint is of one moment");
        if self.has_leftovers.swap(true, Ordering::Relaxed) {
            let store = self.store.as_ref();
            discard::discard_attempt(store, self.filesystem, &self.index, epoch, snapshot)?;
        }
        let packed = self.packed_writer(epoch, snapshot, NameToken(random_bytes()?));
        let object_bytes = self.options.object_bytes;
        let mut known = self.known_steps.lock();
        let written =
            checkpoint::write_objects(request, &self.index, packed, object_bytes, &mut known);
        drop(known);
        let written = written.inspect_err(|_| self.discard_failed(epoch, snapshot))?;
        let CheckpointObjects { objects, report } = written;
        let manifest = Manifest {
            filesystem: self.filesystem,
            epoch,
            snapshot,
            kind: ManifestKind::Checkpoint,
            range: None,
            last_xid: last.summary.last_xid,
            holds_from: last.summary.last_xid,
            covered: None,
            created: self.clock.now(),
            chunk_bytes: self.index.chunk_bytes(),
            parent: Some(parent),
            epoch_parent: self.epoch_parent(epoch)?,
            writer,
            failed: last.summary.failed.clone(),
            n_inodes: 0,
            data_bytes: 0,
            tarballs: Vec::new(),
            packed: objects,
            others: Vec::new(),
            signer: self.keys.signer(),
        };
        self.commit(&manifest, request.status, &PersistReport::default())?;
        self.has_leftovers.store(false, Ordering::Relaxed);
        Ok(report)
    }

    /// Gives the room of an attempt that failed back at once: the next one may be far away.
    fn discard_failed(&self, epoch: Epoch, snapshot: SnapshotId) {
        let store = self.store.as_ref();
        let discarded =
            discard::discard_attempt(store, self.filesystem, &self.index, epoch, snapshot);
        if let Err(error) = discarded {
            tracing::warn!("cannot remove what is left of a failed attempt: {error}");
        }
    }

    fn packed_writer(
        &self,
        epoch: Epoch,
        snapshot: SnapshotId,
        token: NameToken,
    ) -> PackedWriter<'_> {
        PackedWriter {
            store: self.store.as_ref(),
            keys: &self.keys,
            filesystem: self.filesystem,
            id: TarballId { epoch, snapshot, part: 0 },
            token,
            level: self.options.level,
            written: Vec::new(),
        }
    }

    /// Removes what an interrupted snapshot left: temporary files, and tarballs of this epoch's
    /// snapshots after `last` that no manifest commits.
    pub fn discard_uncommitted(&self, epoch: Epoch, last: SnapshotId) -> Result<(), PersistError> {
        discard::discard_uncommitted(self.store.as_ref(), self.filesystem, &self.index, epoch, last)
    }

    /// What an earlier attempt left is removed first: the snapshot must not be one that is
    /// committed.
    fn check_is_next(&self, epoch: Epoch, snapshot: SnapshotId) -> Result<(), PersistError> {
        // By the index and not the store: the manifest itself may be lost from there.
        let known = self.index.applied()?.map(|applied| (applied.epoch, applied.snapshot));
        // An index without any manifest is behind every snapshot, the first one included; but one
        // that was rebuilt without manifests knows tarballs, which it tells apart by their numbers.
        let problem = if known >= Some((epoch, snapshot)) {
            "the index includes it already, or a later one"
        } else if self.index.tarball_row(TarballId { epoch, snapshot, part: 0 })?.is_some() {
            "the index has tarballs of it; copy lost manifests back"
        } else {
            return Ok(());
        };
        let name = names::manifest_name(self.filesystem, epoch, snapshot).to_string();
        Err(PersistError::BrokenChain { name, problem })
    }

    /// Writes the tarballs and the log segments, durable and not yet committed.
    fn write_objects(
        &self,
        request: &mut PersistRequest<'_>,
        token: NameToken,
    ) -> Result<(Written, Vec<PackedObject>), PersistError> {
        let written = self.write_tarballs(request, token)?;
        written.check_share(&ShareOf {
            failed_before: &request.failed_before.iter().copied().collect(),
            n_looked_at: request.n_looked_at,
            unread_percent_max: self.options.unread_percent_max,
        })?;
        let mut segments = self.packed_writer(request.epoch, request.snapshot, token);
        for segment in &mut *request.segments {
            segments.write_segment(segment.map_err(PersistError::Source)?, request.stop)?;
        }
        Ok((written, segments.written))
    }

    /// Writes the tarballs, durable and not yet committed.
    fn write_tarballs(
        &self,
        request: &mut PersistRequest<'_>,
        token: NameToken,
    ) -> Result<Written, PersistError> {
        let chunk_bytes = request.mounted.chunk_bytes();
        let mut limits = Limits::of(&self.options, chunk_bytes);
        limits.tarball = limits.tarball.bounded(request.bounds.tarball_bytes);
        let context = Context {
            store: self.store.as_ref(),
            keys: &self.keys,
            options: self.options,
            limits,
            identity: TarballIdentity {
                filesystem: self.filesystem,
                id: TarballId { epoch: request.epoch, snapshot: request.snapshot, part: 0 },
                range: request.range,
                chunk_bytes,
                // Drawn now, after the files were written: no file can hold it.
                token: u64::from_le_bytes(random_bytes()?),
            },
            token,
            mounted: request.mounted,
            on_sealed: request.on_sealed,
            status: request.status,
        };
        // It reads on this thread; the workers have readers of their own.
        let planner = Planner::new(&limits, request.mounted, request.status);
        let end = PartEnd {
            part_bytes: self.options.part_bytes.min(request.bounds.part_bytes),
            after: request.part.map(|part| part.covered),
        };
        let (updates, stop) = (&mut *request.updates, request.stop);
        let plan = |jobs: &mut JobQueue| plan_all(planner, updates, end, stop, jobs);
        let (planned, sequenced) = pipeline::run(&context, plan)?;
        Ok(Written::of(planned, sequenced))
    }

    /// The manifest of a snapshot, but for its objects.
    fn manifest(
        &self,
        request: &PersistRequest<'_>,
        report: &PersistReport,
    ) -> Result<Manifest, PersistError> {
        let parent = self.parent()?;
        let is_beyond = |ino: &&Ino| report.covered.is_some_and(|covered| **ino > covered);
        let not_come_to = request.failed_before.iter().filter(is_beyond);
        Ok(Manifest {
            filesystem: self.filesystem,
            epoch: request.epoch,
            snapshot: request.snapshot,
            kind: ManifestKind::Snapshot,
            // What its earlier parts brought is theirs; it may bring no further transactions.
            range: match request.part {
                Some(part) => XidRange::new(part.last_xid.next(), request.range.end()),
                None => Some(request.range),
            },
            last_xid: request.range.last(),
            holds_from: request.range.start(),
            covered: report.covered,
            created: self.clock.now(),
            chunk_bytes: request.mounted.chunk_bytes(),
            parent,
            epoch_parent: self.epoch_parent(request.epoch)?,
            writer: request.writer,
            failed: report.failed.iter().chain(not_come_to).copied().collect(),
            n_inodes: report.n_inodes,
            data_bytes: report.data_bytes,
            tarballs: Vec::new(),
            packed: Vec::new(),
            others: Vec::new(),
            signer: self.keys.signer(),
        })
    }

    /// What the index includes: that is what a snapshot's updates are relative to.
    fn parent(&self) -> Result<Option<ManifestRef>, PersistError> {
        Ok(self.index.applied()?.map(|applied| ManifestRef {
            epoch: applied.epoch,
            snapshot: applied.snapshot,
            digest: applied.manifest_digest,
        }))
    }

    /// What the first manifest of an epoch continues.
    fn epoch_parent(&self, epoch: Epoch) -> Result<Option<ManifestRef>, PersistError> {
        let Some(parent) = self.parent()? else { return Ok(None) };
        if parent.epoch < epoch {
            return Ok(Some(parent));
        }
        let before = SnapshotId::new(parent.snapshot.get().saturating_sub(1));
        let row = self.index.chain_after(Some(before))?.pop();
        let link = row.and_then(|row| ChainLink::from_bytes(&row));
        let problem = "its row of the last snapshot cannot be read; rebuild it";
        let link = link.ok_or_else(|| PersistError::damaged("the index", problem))?;
        Ok(link.epoch_parent)
    }

    /// Makes the manifest durable, and brings the index up to it.
    fn commit(
        &self,
        manifest: &Manifest,
        status: &dyn StatusSink,
        report: &PersistReport,
    ) -> Result<(), PersistError> {
        let object = manifest.to_object(&self.keys)?;
        // The tarballs are durable: from this commit on the snapshot exists.
        let mut new = self.store.stage(&manifest.name()).map_err(PersistError::Store)?;
        new.write(&object).map_err(PersistError::Store)?;
        new.commit().map_err(PersistError::Store)?;
        // The snapshot stays committed if this fails: recovery writes the event again.
        status.report(Event::Committed {
            manifest: manifest.name().to_string(),
            n_tarballs: report.n_tarballs,
            n_inodes: report.n_inodes,
            data_bytes: report.data_bytes,
            tarball_bytes: report.tarball_bytes,
        })?;
        // Read back from the tarballs, and not kept in memory: a large snapshot's tables would not
        // fit, and what is in the index is what can be read
        // (`docs/adr/0004-index-reads-tarballs-back.md`).
        let store: &dyn ObjectStore = self.store.as_ref();
        let copies = self.copies.iter().map(AsRef::as_ref);
        let stores: Vec<&dyn ObjectStore> = std::iter::once(store).chain(copies).collect();
        let source =
            TarballSource { stores: &stores, keys: &self.keys, filesystem: self.filesystem };
        // Held until the flush: a rebuilt index must not take this one's place half way.
        let mut writer = self.index.writer();
        let apply = Apply { source, mode: ScanMode::Tables };
        apply.tarballs(&mut writer, apply::listed(manifest), &mut Watch::default())?;
        let link = ChainLink::of(manifest, &object, self.keys.encrypts())?;
        apply::set_applied(&mut writer, &link)?;
        writer.sync()?;
        Ok(status.report(Event::Indexed)?)
    }
}
