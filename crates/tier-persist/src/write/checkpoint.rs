//! Writing a checkpoint: all that an index knows, as sorted objects, so that a restore need not read
//! the tables of everything that ever was.
//!
//! **Where it comes from.** The index has every inode in order, with the places of its metadata and
//! data; the KVS snapshot of the same moment has the metadata itself, in the same order. One pass over
//! both writes it, with one object in memory. What the KVS snapshot has in another state than the
//! index (an inode that could not be persisted, a row that cannot be read) is written without its
//! metadata, which the tarball has.
//!
//! **What is not written.** Objects of the checkpoint before are named again where nothing of their
//! inodes has changed: no row of them is of a later step or a later transaction. Inode numbers ascend
//! as files are made, so that most of what is old stays as it is. With what has changed, neighbours
//! are written together, and cut anew.
//!
//! A checkpoint is a step of the history without transactions, committed by its manifest as any other
//! is. A crash before that leaves objects that are removed like those of a snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tier_index::{Index, IndexError, InodeLocation, InodeRange, InodeRecord, TarballId};
use tier_status::StatusSink;
use tier_types::{
    Epoch, ErrorKind, Ino, InodeState, MountedSnapshot, SnapshotId, SnapshotReader, Xid, to_u64,
};

use crate::error::PersistError;
use crate::format::checkpoint::{self, CheckpointInode, CheckpointStep};
use crate::format::claim::WriterToken;
use crate::format::manifest::Manifest;
use crate::format::names::PackedKind;
use crate::format::packed::PackedObject;
use crate::read::chain::Archive;
use crate::read::link::{ChainLink, StepKind};
use crate::write::packed_writer::PackedWriter;

/// Rows of tarballs that are together in a step of a checkpoint, and in memory.
const N_ROWS_MAX: usize = 1024;

/// What to write a checkpoint from.
pub struct CheckpointRequest<'a> {
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The store that writes.
    pub writer: WriterToken,
    /// The number of the step to be.
    pub snapshot: SnapshotId,
    /// The history up to it: all that the index includes.
    pub archive: &'a Archive<'a>,
    /// Whether what an earlier checkpoint holds may be named again. Not if any of it is damaged.
    pub reuse: bool,
    /// The filesystem's state after the last snapshot.
    pub mounted: &'a dyn MountedSnapshot,
    /// Where events go.
    pub status: &'a dyn StatusSink,
    /// When this becomes true the work stops, with nothing committed.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for CheckpointRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointRequest")
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

/// What became of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointReport {
    /// Objects that were written.
    pub n_written: u64,
    /// Their length in bytes.
    pub written_bytes: u64,
    /// Objects of earlier checkpoints that are named again.
    pub n_kept: u64,
}

/// The objects of a checkpoint.
pub(crate) struct CheckpointObjects {
    pub(crate) objects: Vec<PackedObject>,
    pub(crate) report: CheckpointReport,
}

/// Writes the objects of a checkpoint; they are durable and not committed.
pub(crate) fn write_objects(
    request: &CheckpointRequest<'_>,
    index: &Index,
    writer: PackedWriter<'_>,
    object_bytes: usize,
) -> Result<CheckpointObjects, PersistError> {
    let started = Instant::now();
    let before = if request.reuse { last_checkpoint(request.archive) } else { None };
    let reader = request.mounted.reader();
    let content = checkpoint::begin();
    let pending = Pending { content, bounds: None };
    let (stop, objects) = (request.stop, Vec::new());
    let mut work = Work { index, writer, reader, pending, stop, object_bytes, objects, n_kept: 0 };
    work.steps(request.archive, before.as_ref())?;
    for span in spans(before.as_ref()) {
        work.span(&span, before.as_ref())?;
    }
    work.end_run(PackedKind::Inodes)?;
    let Work { objects, n_kept, .. } = work;
    let is_own = |object: &&PackedObject| object.name.id.snapshot == request.snapshot;
    let written = objects.iter().filter(is_own).map(|object| object.content.len_bytes);
    let (written_bytes, n_written) = (written.clone().sum(), to_u64(written.count()));
    assert_eq!(n_written + n_kept, to_u64(objects.len()), "each is written or kept");
    let report = CheckpointReport { n_written, written_bytes, n_kept };
    tracing::info!(?report, elapsed = ?started.elapsed(), "checkpoint written");
    Ok(CheckpointObjects { objects, report })
}

/// The checkpoint before, with its manifest.
struct Before {
    manifest: Manifest,
    snapshot: SnapshotId,
    last_xid: Xid,
}

fn last_checkpoint(archive: &Archive<'_>) -> Option<Before> {
    let is_whole =
        |link: &&Arc<ChainLink>| link.summary.kind == StepKind::Checkpoint && !link.is_doubtful;
    let link = archive.links().iter().rev().find(is_whole)?;
    match archive.manifest(link) {
        Ok(manifest) => {
            let (snapshot, last_xid) = (link.summary.snapshot, link.summary.last_xid);
            Some(Before { manifest, snapshot, last_xid })
        }
        // It costs writing everything again, and no more.
        Err(error) => {
            tracing::warn!("the checkpoint before cannot be read; writing all of it: {error}");
            None
        }
    }
}

impl Before {
    /// Whether something is later than the checkpoint.
    fn is_older_than(&self, record: &InodeRecord) -> bool {
        let after = |snapshot: SnapshotId| snapshot > self.snapshot;
        let newest = record.newest.is_some_and(|newest| match newest {
            InodeLocation::At { xid, location } => {
                xid > self.last_xid || after(location.tarball.snapshot)
            }
            InodeLocation::Gone { xid } => xid > self.last_xid,
        });
        newest
            || record.extents.iter().any(|extent| {
                let at = extent.data().map(|data| data.location.tarball.snapshot);
                extent.data_xid > self.last_xid || at.is_some_and(after)
            })
    }
}

/// Inodes, with the objects that the checkpoint before has of them.
struct Span {
    inodes: InodeRange,
    objects: Vec<PackedObject>,
}

/// All inodes, cut where the objects of the checkpoint before are. An inode that lies in several of
/// them is in one span.
fn spans(before: Option<&Before>) -> Vec<Span> {
    let objects = before.map(|before| before.manifest.packed_of(PackedKind::Inodes));
    let mut spans: Vec<Span> = Vec::new();
    for object in objects.unwrap_or_default() {
        let last = Ino::new(object.about.last);
        match spans.last_mut().filter(|span| object.about.first <= span.inodes.last.get()) {
            Some(span) => {
                span.inodes.last = last;
                span.objects.push(object.clone());
            }
            None => {
                let first = spans.last().map_or(Ino::new(0), |before| before.inodes.last.next());
                let inodes = InodeRange { first, last };
                spans.push(Span { inodes, objects: vec![object.clone()] });
            }
        }
    }
    // What is made later belongs to the last one.
    match spans.last_mut() {
        Some(last) => last.inodes.last = InodeRange::ALL.last,
        None => spans.push(Span { inodes: InodeRange::ALL, objects: Vec::new() }),
    }
    spans
}

/// Values that are not in an object yet.
struct Pending {
    content: Vec<u8>,
    /// The first and the last one.
    bounds: Option<(u64, u64)>,
}

struct Work<'a> {
    index: &'a Index,
    writer: PackedWriter<'a>,
    reader: Box<dyn SnapshotReader + 'a>,
    pending: Pending,
    stop: &'a AtomicBool,
    /// Content of one object.
    object_bytes: usize,
    objects: Vec<PackedObject>,
    n_kept: u64,
}

impl Work<'_> {
    /// The history. What the checkpoint before has of it stays, but for a last object that is small.
    fn steps(
        &mut self,
        archive: &Archive<'_>,
        before: Option<&Before>,
    ) -> Result<(), PersistError> {
        // A step that is doubtful now may not have been so then.
        let sound = |object: &PackedObject| {
            let of_it = archive.links().iter().filter(|link| {
                let snapshot = link.summary.snapshot.get();
                (object.about.first..=object.about.last).contains(&snapshot)
            });
            of_it.into_iter().all(|link| !link.is_doubtful)
        };
        let known = before.map(|before| before.manifest.packed_of(PackedKind::Steps));
        let mut next = 0;
        for object in known.unwrap_or_default() {
            if object.about.content_bytes < to_u64(self.object_bytes / 2) || !sound(object) {
                break;
            }
            next = object.about.last.saturating_add(1);
            self.keep(object);
        }
        for link in archive.links() {
            if link.summary.snapshot.get() >= next {
                self.step(link)?;
            }
        }
        self.end_run(PackedKind::Steps)
    }

    /// A step with the rows of its tarballs, several times if there are many.
    fn step(&mut self, link: &ChainLink) -> Result<(), PersistError> {
        let (epoch, snapshot) = (link.summary.epoch, link.summary.snapshot);
        let mut from = Some(TarballId { epoch, snapshot, part: 0 });
        while let Some(first) = from {
            self.check_stop()?;
            let rows = self.index.tarball_rows(first, N_ROWS_MAX)?;
            let last = rows.last().filter(|_| rows.len() == N_ROWS_MAX).map(|(id, _)| *id);
            from = last.and_then(|id| Some(TarballId { part: id.part.checked_add(1)?, ..id }));
            let tarballs = rows.into_iter().map(|(_, row)| row).collect();
            let step = CheckpointStep { link: link.to_bytes(), tarballs };
            checkpoint::append_step(&step, &mut self.pending.content);
            self.added(PackedKind::Steps, snapshot.get())?;
        }
        Ok(())
    }

    fn span(&mut self, span: &Span, before: Option<&Before>) -> Result<(), PersistError> {
        let has_changed = match before {
            Some(before) if !span.objects.is_empty() => self.has_changed(span.inodes, before)?,
            Some(_) | None => true,
        };
        if !has_changed {
            self.end_run(PackedKind::Inodes)?;
            span.objects.iter().for_each(|object| self.keep(object));
            return Ok(());
        }
        let index = self.index;
        index.visit_inodes(span.inodes, &mut |record| self.inode(record))
    }

    fn has_changed(&self, inodes: InodeRange, before: &Before) -> Result<bool, PersistError> {
        let looked = self.index.visit_inodes(inodes, &mut |record| {
            if before.is_older_than(record) { Err(Look::Changed) } else { Ok(()) }
        });
        match looked {
            Ok(()) => Ok(false),
            Err(Look::Changed) => Ok(true),
            Err(Look::Failed(error)) => Err(error.into()),
        }
    }

    fn inode(&mut self, record: &InodeRecord) -> Result<(), PersistError> {
        self.check_stop()?;
        let metadata = match record.newest {
            Some(InodeLocation::At { xid, .. }) => self.metadata(record.ino, xid)?,
            Some(InodeLocation::Gone { .. }) | None => None,
        };
        let inode = CheckpointInode { record: record.clone(), metadata };
        checkpoint::append_inode(&inode, &mut self.pending.content);
        self.added(PackedKind::Inodes, record.ino.get())
    }

    /// The metadata of an inode, if the filesystem has it of exactly this transaction.
    fn metadata(&mut self, ino: Ino, xid: Xid) -> Result<Option<InodeState>, PersistError> {
        match self.reader.inode(ino) {
            Ok(state) => Ok(state.filter(|state| state.attr.xid == xid)),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::debug!(%ino, %error, "the checkpoint leaves the metadata to the tarball");
                Ok(None)
            }
            Err(error) => Err(PersistError::Source(error)),
        }
    }

    /// A value was added to what is pending.
    fn added(&mut self, kind: PackedKind, number: u64) -> Result<(), PersistError> {
        let first = self.pending.bounds.map_or(number, |(first, _)| first);
        assert!(first <= number, "values come in order");
        self.pending.bounds = Some((first, number));
        if self.pending.content.len() >= self.object_bytes { self.end_run(kind) } else { Ok(()) }
    }

    /// Writes what is pending.
    fn end_run(&mut self, kind: PackedKind) -> Result<(), PersistError> {
        let Some((first, last)) = self.pending.bounds.take() else { return Ok(()) };
        let content = std::mem::replace(&mut self.pending.content, checkpoint::begin());
        self.writer.write(kind, first, last, &content)?;
        self.objects.extend(self.writer.written.last().cloned());
        Ok(())
    }

    fn keep(&mut self, object: &PackedObject) {
        assert!(self.pending.bounds.is_none(), "objects are in order");
        self.n_kept += 1;
        self.objects.push(object.clone());
    }

    fn check_stop(&self) -> Result<(), PersistError> {
        if self.stop.load(Ordering::Relaxed) { Err(PersistError::Cancelled) } else { Ok(()) }
    }
}

/// Why a look at some inodes ended.
enum Look {
    Changed,
    Failed(IndexError),
}

impl From<IndexError> for Look {
    fn from(error: IndexError) -> Self {
        Self::Failed(error)
    }
}
