//! Persists one snapshot: tarballs, manifest, index, in this order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::rand::{SecureRandom, SystemRandom};
use tier_index::{Index, TarballId};
use tier_status::{Event, StatusSink};
use tier_types::{
    Clock, Epoch, FileUpdate, Ino, MountedSnapshot, ObjectStore, PortError, SnapshotId,
    StagingStore, XidRange, to_u64,
};

use crate::derive::rebuild::{ScanMode, Source, set_applied};
use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::manifest::{Manifest, ManifestRef};
use crate::format::names::{self, FilesystemId, ObjectKind};
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::row::TarballRow;
use crate::progress::Watch;
use crate::write::pipeline::{self, Sequenced};
use crate::write::planner::Planner;

/// How tarballs are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PersistOptions {
    /// zstd level.
    pub level: i32,
    /// Threads that compress and seal.
    pub n_workers: usize,
    /// Plaintext bytes after which a frame ends: what a random read decompresses.
    pub frame_bytes: usize,
    /// A tarball ends when it has this many bytes …
    pub tarball_bytes: u64,
    /// … or this many members.
    pub tarball_members: u64,
    /// A file with more data than this is written in parts of a frame each; up to it, it is one
    /// member under its own path, and held in memory as a whole.
    pub member_bytes_max: u64,
    /// A file up to this size is written whole even if only part of it changed.
    pub rewrite_bytes_max: u64,
    /// Compressed bytes that are written in a second at most; `None` for no limit.
    pub bytes_per_second_max: Option<u64>,
    /// How much of its time a worker works while the filesystem is in demand, in percent.
    pub busy_percent: u32,
}

impl Default for PersistOptions {
    fn default() -> Self {
        Self {
            level: 3,
            n_workers: std::thread::available_parallelism().map_or(2, usize::from),
            frame_bytes: 1 << 20,
            tarball_bytes: 128 << 20,
            tarball_members: 100_000,
            member_bytes_max: 8 << 20,
            rewrite_bytes_max: 256 << 10,
            bytes_per_second_max: None,
            busy_percent: 100,
        }
    }
}

/// What to persist.
pub struct PersistRequest<'a> {
    /// The writer's reign.
    pub epoch: Epoch,
    /// The number of the snapshot to be.
    pub snapshot: SnapshotId,
    /// Its transactions.
    pub range: XidRange,
    /// The filesystem's state after the last of them.
    pub mounted: &'a dyn MountedSnapshot,
    /// What changed, in order of inodes.
    pub updates: &'a mut dyn Iterator<Item = Result<FileUpdate, PortError>>,
    /// Where events and progress go.
    pub status: &'a dyn StatusSink,
    /// When this becomes true the work stops, with nothing committed.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for PersistRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersistRequest")
            .field("snapshot", &self.snapshot)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// What was persisted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PersistReport {
    /// Inodes.
    pub n_inodes: u64,
    /// File data before compression, in bytes.
    pub data_bytes: u64,
    /// Tarballs.
    pub n_tarballs: u64,
    /// Their length in bytes.
    pub tarball_bytes: u64,
    /// Inodes that could not be read; the next snapshot tries again.
    pub failed: Vec<Ino>,
}

/// Writes snapshots of one filesystem into a local store.
pub struct Persister {
    filesystem: FilesystemId,
    store: Arc<dyn StagingStore>,
    keys: Arc<Keys>,
    index: Arc<Index>,
    clock: Arc<dyn Clock>,
    options: PersistOptions,
}

impl std::fmt::Debug for Persister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Persister").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}

/// What nobody could know when the files were written.
fn random_token() -> Result<u64, PersistError> {
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| PersistError::BadKey("the system has no random bytes".into()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// The tarballs, and what the snapshot comes to.
fn report(planner: &Planner<'_>, sequenced: Sequenced) -> (Vec<TarballRow>, PersistReport) {
    let Sequenced { tarballs, data_bytes, failed } = sequenced;
    let failed: BTreeSet<_> = failed.into_iter().chain(planner.failed.iter().copied()).collect();
    let report = PersistReport {
        n_inodes: planner.n_inodes.saturating_sub(to_u64(failed.len())),
        data_bytes,
        n_tarballs: to_u64(tarballs.len()),
        tarball_bytes: tarballs.iter().map(|row| row.object_bytes).sum(),
        failed: failed.into_iter().collect(),
    };
    (tarballs, report)
}

impl Persister {
    /// Components and settings of a persister.
    pub fn new(
        filesystem: FilesystemId,
        store: Arc<dyn StagingStore>,
        keys: Arc<Keys>,
        index: Arc<Index>,
        (clock, options): (Arc<dyn Clock>, PersistOptions),
    ) -> Self {
        Self { filesystem, store, keys, index, clock, options }
    }

    /// Persists a snapshot. When this returns without an error it is durable in the local store,
    /// and the index includes it. An inode that cannot be read is left out and reported; of a large
    /// file that is written in parts, only those that cannot be read are left out.
    pub fn persist(&self, request: &mut PersistRequest<'_>) -> Result<PersistReport, PersistError> {
        request.status.report(Event::Started { range: request.range })?;
        self.remove_parts(request.epoch, request.snapshot)?;
        let id = TarballId { epoch: request.epoch, snapshot: request.snapshot, part: 0 };
        let identity = TarballIdentity {
            filesystem: self.filesystem,
            id,
            range: request.range,
            chunk_bytes: request.mounted.chunk_bytes(),
            token: random_token()?,
        };
        let context = pipeline::Context {
            store: self.store.as_ref(),
            keys: &self.keys,
            options: self.options,
            identity,
            mounted: request.mounted,
            status: request.status,
        };
        let mut planner = Planner::new(&self.options, request.mounted, request.status);
        let sequenced = pipeline::run(&context, |jobs| {
            for update in &mut *request.updates {
                if request.stop.load(Ordering::Relaxed) {
                    return Err(PersistError::Cancelled);
                }
                planner.add(&update.map_err(PersistError::Source)?, jobs)?;
            }
            planner.finish(jobs)
        })?;
        let (tarballs, report) = report(&planner, sequenced);
        let manifest = self.manifest(request, tarballs, &report)?;
        self.commit(&manifest, request.status, &report)?;
        Ok(report)
    }

    /// Removes what an interrupted snapshot left: temporary files, and tarballs of snapshots after
    /// `last` that no manifest commits.
    pub fn discard_uncommitted(&self, last: SnapshotId) -> Result<(), PersistError> {
        self.store.discard_staged().map_err(PersistError::Store)?;
        let names = self.store.list(&format!("{}/", self.filesystem));
        let kinds: Vec<_> = names
            .map_err(PersistError::Store)?
            .into_iter()
            .filter_map(|name| names::parse(&name).map(|(_, kind)| (name, kind)))
            .collect();
        let committed = |id: TarballId| {
            kinds.iter().any(|(_, kind)| {
                *kind == ObjectKind::Manifest { epoch: id.epoch, snapshot: id.snapshot }
            })
        };
        for (name, kind) in &kinds {
            if let ObjectKind::Tarball(id) = kind
                && id.snapshot > last
                && !committed(*id)
                && self.index.tarball_row(*id)?.is_none()
            {
                self.store.delete(name).map_err(PersistError::Store)?;
            }
        }
        Ok(())
    }

    /// Removes the tarballs of an earlier attempt, which may have had more of them.
    fn remove_parts(&self, epoch: Epoch, snapshot: SnapshotId) -> Result<(), PersistError> {
        let names = self.store.list(&format!("{}/", self.filesystem));
        for name in names.map_err(PersistError::Store)? {
            if let Some((_, ObjectKind::Tarball(id))) = names::parse(&name)
                && (id.epoch, id.snapshot) == (epoch, snapshot)
            {
                self.store.delete(&name).map_err(PersistError::Store)?;
            }
        }
        Ok(())
    }

    fn manifest(
        &self,
        request: &PersistRequest<'_>,
        tarballs: Vec<TarballRow>,
        report: &PersistReport,
    ) -> Result<Manifest, PersistError> {
        let parent = self.index.applied()?.map(|applied| ManifestRef {
            epoch: applied.epoch,
            snapshot: applied.snapshot,
            digest: applied.manifest_digest,
        });
        Ok(Manifest {
            filesystem: self.filesystem,
            epoch: request.epoch,
            snapshot: request.snapshot,
            range: request.range,
            created: self.clock.now(),
            chunk_bytes: request.mounted.chunk_bytes(),
            parent,
            failed: report.failed.clone(),
            n_inodes: report.n_inodes,
            data_bytes: report.data_bytes,
            tarballs,
            signer: self.keys.signer_public().to_vec(),
        })
    }

    fn commit(
        &self,
        manifest: &Manifest,
        status: &dyn StatusSink,
        report: &PersistReport,
    ) -> Result<(), PersistError> {
        let object = manifest.to_object(&self.keys)?;
        let mut new = self.store.stage(&manifest.name()).map_err(PersistError::Store)?;
        new.write(&object).map_err(PersistError::Store)?;
        new.commit().map_err(PersistError::Store)?;
        status.report(Event::Committed {
            manifest: manifest.name().to_string(),
            n_tarballs: report.n_tarballs,
            n_inodes: report.n_inodes,
            data_bytes: report.data_bytes,
            tarball_bytes: report.tarball_bytes,
        })?;
        let stores: [&dyn ObjectStore; 1] = [self.store.as_ref()];
        let (keys, filesystem) = (&self.keys, self.filesystem);
        let source = Source { stores: &stores, keys, filesystem, mode: ScanMode::Tables };
        let mut writer = self.index.writer();
        source.apply(&mut writer, &manifest.tarballs, &mut Watch::default())?;
        set_applied(&mut writer, &manifest.reference(&object))?;
        writer.flush()?;
        Ok(status.report(Event::Indexed)?)
    }
}
