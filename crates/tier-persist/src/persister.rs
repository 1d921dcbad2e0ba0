//! Persists one snapshot: tarballs, manifest, index, in this order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_index::{Index, TarballId};
use tier_status::{Event, Progress, StatusSink};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, Clock, Epoch, ErrorKind, FileUpdate, Ino, InodeState,
    MountedSnapshot, ObjectStore, PortError, SnapshotId, XidRange, to_u64, to_usize,
};

use crate::manifest::{Manifest, ManifestRef};
use crate::names::{self, ObjectKind};
use crate::pipeline::WorkerPool;
use crate::plan::{self, PartMembers, PlanLimits};
use crate::rebuild::{apply_manifest, set_applied};
use crate::tarball::{
    Member, PendingTarball, TarballIdentity, TarballRow, TarballWriter, WriterContext,
};
use crate::{FilesystemId, Keys, LocalStore, PersistError, ScanMode};

/// Runs that are asked of the snapshot at a time.
const N_RUNS: usize = 1024;
/// Tarballs whose last bytes are still on their way while the next one is built.
const N_PENDING_MAX: usize = 1;

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
    /// Data bytes of one member: what is held in memory.
    pub member_bytes_max: u64,
    /// A file up to this size is written whole even if only part of it changed.
    pub rewrite_bytes_max: u64,
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
    store: LocalStore,
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

impl Persister {
    /// Components and settings of a persister.
    pub fn new(
        filesystem: FilesystemId,
        store: LocalStore,
        keys: Arc<Keys>,
        index: Arc<Index>,
        (clock, options): (Arc<dyn Clock>, PersistOptions),
    ) -> Self {
        Self { filesystem, store, keys, index, clock, options }
    }

    /// Persists a snapshot. When this returns without an error it is durable in the local store,
    /// and the index includes it. An inode that cannot be read is left out and reported.
    pub fn persist(&self, request: &mut PersistRequest<'_>) -> Result<PersistReport, PersistError> {
        request.status.report(Event::Started { range: request.range })?;
        let pool = WorkerPool::new(self.options.n_workers, self.options.level)?;
        let context = WriterContext {
            pool: &pool,
            store: &self.store,
            keys: &self.keys,
            frame_bytes: self.options.frame_bytes,
        };
        let id = TarballId { epoch: request.epoch, snapshot: request.snapshot, part: 0 };
        let identity = TarballIdentity {
            filesystem: self.filesystem,
            id,
            range: request.range,
            chunk_bytes: request.mounted.chunk_bytes(),
        };
        let mut run = Run::new(self, &context, identity, request.mounted, request.status);
        for update in &mut *request.updates {
            if request.stop.load(Ordering::Relaxed) {
                return Err(PersistError::Cancelled);
            }
            run.add(&update.map_err(PersistError::Source)?)?;
        }
        let (tarballs, mut report) = run.finish()?;
        report.n_tarballs = to_u64(tarballs.len());
        report.tarball_bytes = tarballs.iter().map(|row| row.object_bytes).sum();
        let manifest = self.manifest(request, tarballs, &report)?;
        self.commit(&manifest, request.status, &report)?;
        Ok(report)
    }

    /// Removes what an interrupted snapshot left: temporary files, and tarballs of snapshots after
    /// `last` that no manifest commits.
    pub fn discard_uncommitted(&self, last: SnapshotId) -> Result<(), PersistError> {
        self.store.remove_temporaries().map_err(PersistError::Store)?;
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
            {
                self.store.delete(name).map_err(PersistError::Store)?;
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
        let mut new = self.store.create(&manifest.name()).map_err(PersistError::Store)?;
        new.write(&object).map_err(PersistError::Store)?;
        new.finish().map_err(PersistError::Store)?;
        status.report(Event::Committed {
            manifest: manifest.name().to_string(),
            n_tarballs: report.n_tarballs,
            n_inodes: report.n_inodes,
            data_bytes: report.data_bytes,
            tarball_bytes: report.tarball_bytes,
        })?;
        apply_manifest(&self.index, &self.store, &self.keys, manifest, ScanMode::Tables)?;
        set_applied(&self.index, &manifest.reference(&object))?;
        Ok(status.report(Event::Indexed)?)
    }
}

/// One snapshot on its way.
struct Run<'a> {
    persister: &'a Persister,
    context: &'a WriterContext<'a>,
    identity: TarballIdentity,
    mounted: &'a dyn MountedSnapshot,
    status: &'a dyn StatusSink,
    limits: PlanLimits,
    writer: Option<TarballWriter<'a>>,
    pending: VecDeque<PendingTarball>,
    done: Vec<TarballRow>,
    report: PersistReport,
    data: Vec<u8>,
}

/// Why an inode is not in the snapshot: its own fault, or the end of the work.
enum InodeError {
    Inode(PortError),
    Fatal(PersistError),
}

impl From<PersistError> for InodeError {
    fn from(error: PersistError) -> Self {
        Self::Fatal(error)
    }
}

impl<'a> Run<'a> {
    fn new(
        persister: &'a Persister,
        context: &'a WriterContext<'a>,
        identity: TarballIdentity,
        mounted: &'a dyn MountedSnapshot,
        status: &'a dyn StatusSink,
    ) -> Self {
        let options = &persister.options;
        let chunk_bytes = identity.chunk_bytes;
        Self {
            persister,
            context,
            identity,
            mounted,
            status,
            limits: PlanLimits {
                chunk_bytes,
                member_bytes: options.member_bytes_max.max(u64::from(chunk_bytes)),
                rewrite_bytes: options.rewrite_bytes_max,
                n_runs: 1000,
            },
            writer: None,
            pending: VecDeque::new(),
            done: Vec::new(),
            report: PersistReport::default(),
            data: Vec::new(),
        }
    }

    fn add(&mut self, update: &FileUpdate) -> Result<(), PersistError> {
        let added = match &update.change {
            Change::Gone(xid) => {
                let member = Member { gone: Some(*xid), ..Member::of(update.ino) };
                self.append(&member).map_err(InodeError::from)
            }
            Change::Touched(_) => self.add_inode(update),
        };
        match added {
            Ok(()) => {
                self.report.n_inodes += 1;
                let Self { report, .. } = self;
                let progress = Progress { n_inodes: report.n_inodes, bytes: report.data_bytes };
                self.status.progress(progress);
                Ok(())
            }
            Err(InodeError::Inode(error)) if error.kind() != ErrorKind::Cancelled => {
                let ino = update.ino.get();
                self.status.report(Event::InodeFailed { ino, error: chain_text(&error) })?;
                self.report.failed.push(update.ino);
                Ok(())
            }
            Err(InodeError::Inode(error)) => Err(PersistError::Source(error)),
            Err(InodeError::Fatal(error)) => Err(error),
        }
    }

    fn add_inode(&mut self, update: &FileUpdate) -> Result<(), InodeError> {
        let ino = update.ino;
        let inode = self.mounted.inode(ino).map_err(InodeError::Inode)?.ok_or_else(|| {
            let message = format!("inode {ino} changed but is not in the snapshot");
            InodeError::Inode(PortError::new(ErrorKind::Missing, message))
        })?;
        let touched = plan::touched(&update.change);
        if let Some(member) = self.whole(&inode, touched).map_err(InodeError::Inode)? {
            self.read_data(&member).map_err(InodeError::Inode)?;
            self.append(&member)?;
            return Ok(self.append_links(&inode, &member)?);
        }
        self.add_parts(&inode, touched)
    }

    /// The inode as one member under its own path, if it can be.
    fn whole(
        &self,
        inode: &InodeState,
        touched: &[ChunkRange],
    ) -> Result<Option<Member>, PortError> {
        let regular = matches!(inode.attr.kind, tier_types::FileKind::Regular);
        let path = plan::member_path(inode, self.mounted.path(inode.attr.ino)?);
        let Some(path) = path else { return Ok(None) };
        let mut runs = Vec::new();
        if regular {
            runs = self.mounted.chunk_runs(inode.attr.ino, ChunkNo::new(0), N_RUNS)?;
            let complete = runs.last().is_some_and(|run| run.chunks.end() == ChunkNo::END);
            if !complete {
                return Ok(None);
            }
        }
        Ok(plan::whole_member(inode, &path, &runs, touched, &self.limits))
    }

    fn add_parts(&mut self, inode: &InodeState, touched: &[ChunkRange]) -> Result<(), InodeError> {
        let ino = inode.attr.ino;
        let mut parts = PartMembers::new(inode, self.limits);
        for range in touched {
            let mut at = Some(*range);
            while let Some(rest) = at {
                let runs = self.mounted.chunk_runs(ino, rest.start(), N_RUNS);
                let runs = runs.map_err(InodeError::Inode)?;
                let end = runs.last().map_or(rest.end(), |run| run.chunks.end());
                for run in runs {
                    let Some(chunks) = run.chunks.intersection(rest) else { continue };
                    for member in parts.add(&ChunkRun { chunks, ..run }) {
                        self.read_data(&member).map_err(InodeError::Inode)?;
                        self.append(&member)?;
                    }
                }
                at = ChunkRange::new(end, rest.end());
            }
        }
        if let Some(member) = parts.finish() {
            self.read_data(&member).map_err(InodeError::Inode)?;
            self.append(&member)?;
        }
        Ok(())
    }

    /// Reads all data of a member before any of it is written, so that one that cannot be read
    /// leaves nothing behind.
    fn read_data(&mut self, member: &Member) -> Result<(), PortError> {
        self.data.clear();
        for run in &member.data {
            self.mounted.read_chunks(member.ino, run.chunks, &mut self.data)?;
        }
        let data_bytes = to_usize(member.data_bytes);
        if self.data.len() < data_bytes {
            let message = format!("inode {} has fewer bytes than its map says", member.ino);
            return Err(PortError::new(ErrorKind::Damaged, message));
        }
        // The last chunk is filled up beyond the end of the file.
        self.data.truncate(data_bytes);
        Ok(())
    }

    fn append(&mut self, member: &Member) -> Result<(), PersistError> {
        if member.data.is_empty() {
            self.data.clear();
        }
        self.roll_if_full()?;
        let mut writer = self.writer()?;
        let appended = writer.append(member, &self.data);
        self.report.data_bytes += member.data_bytes;
        self.keep(writer, appended)
    }

    /// Hard links for stock tar.
    fn append_links(&mut self, inode: &InodeState, member: &Member) -> Result<(), PersistError> {
        let directory = matches!(inode.attr.kind, tier_types::FileKind::Directory);
        if inode.links.len() < 2 || directory {
            return Ok(());
        }
        for link in &inode.links {
            let parent = self.mounted.path(link.parent).map_err(PersistError::Source)?;
            let Some(mut path) = parent else { continue };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(link.name.as_bytes());
            let path = plan::member_path(inode, Some(path));
            let Some(path) = path.filter(|path| Some(path) != member.whole_path.as_ref()) else {
                continue;
            };
            let mut writer = self.writer()?;
            let appended = writer.append_help(&member.link_blocks(&path));
            self.keep(writer, appended)?;
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<TarballWriter<'a>, PersistError> {
        match self.writer.take() {
            Some(writer) => Ok(writer),
            None => TarballWriter::start(self.context, self.identity),
        }
    }

    fn keep(
        &mut self,
        writer: TarballWriter<'a>,
        done: Result<(), PersistError>,
    ) -> Result<(), PersistError> {
        match done {
            Ok(()) => {
                self.writer = Some(writer);
                Ok(())
            }
            Err(error) => Err(writer.explain(error)),
        }
    }

    fn roll_if_full(&mut self) -> Result<(), PersistError> {
        let options = &self.persister.options;
        let full = self.writer.as_ref().is_some_and(|writer| {
            writer.object_bytes() >= options.tarball_bytes
                || writer.n_members() >= options.tarball_members
        });
        if full { self.end_tarball() } else { Ok(()) }
    }

    fn end_tarball(&mut self) -> Result<(), PersistError> {
        if let Some(writer) = self.writer.take() {
            self.pending.push_back(writer.finish()?);
            self.identity.id.part += 1;
        }
        while self.pending.len() > N_PENDING_MAX {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn wait_for_oldest(&mut self) -> Result<(), PersistError> {
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let row = pending.wait()?;
        let name = names::tarball_name(self.persister.filesystem, row.id, row.encrypted);
        self.status.report(Event::TarballSealed {
            name: name.to_string(),
            bytes: row.object_bytes,
            n_members: row.n_members,
        })?;
        self.done.push(row);
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<TarballRow>, PersistReport), PersistError> {
        self.end_tarball()?;
        while !self.pending.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok((self.done, self.report))
    }
}

/// An error with its causes, on one line.
fn chain_text(error: &PortError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
