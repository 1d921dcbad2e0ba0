//! Writing a checkpoint: all that an index knows, as sorted objects, so that a restore need not
//! read the tables of everything that ever was.
//!
//! **Where it comes from.** The index has every inode in order, with the places of its metadata and
//! data; the KVS snapshot of the same moment has the metadata itself, in the same order. One pass
//! over both writes it, with one object in memory. What the KVS snapshot has in another state than
//! the index (an inode that could not be persisted, a row that cannot be read) is written without
//! its metadata, which the tarball has.
//!
//! **What is not written.** Objects of the checkpoint before are named again where the index still
//! says the same of their inodes: each has a digest of the rows that it was written from. Inode
//! numbers ascend as files are made, so that most of what is old stays as it is. With what has
//! changed, neighbours are written together, and cut anew. The history is written in the same way.
//!
//! A checkpoint is a step of the history without transactions, committed by its manifest as any
//! other is. A crash before that leaves objects that are removed like those of a snapshot.

use std::collections::HashSet;
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
use crate::format::digest::Sha256Stream;
use crate::format::manifest::Manifest;
use crate::format::names::PackedKind;
use crate::format::packed::{PackedAbout, PackedObject};
use crate::read::chain::Archive;
use crate::read::link::{ChainLink, StepKind};
use crate::read::tarball_rows::TarballRows;
use crate::write::packed_writer::PackedWriter;

/// Inodes of one object, which are in memory at once when it is read.
const N_INODES_MAX: u64 = 16 << 10;
/// Steps of one object. Only the last object of them is ever written anew.
const N_STEPS_MAX: u64 = 4 << 10;
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
    /// Whether what an earlier checkpoint of this number wrote may be named again: not if any of it
    /// is damaged.
    pub is_whole: &'a (dyn Fn(SnapshotId) -> bool + Sync),
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

/// Objects of steps that say what the index says: nothing but a rebuild changes its row of a step
/// that was committed, so that these need not be compared again.
#[derive(Default)]
pub(crate) struct KnownSteps {
    /// Of the index.
    generation: u64,
    /// The digests of the objects.
    objects: HashSet<[u8; 32]>,
}

impl KnownSteps {
    fn has(&self, index: &Index, object: &PackedObject) -> bool {
        self.generation == index.generation() && self.objects.contains(&object.content.sha256)
    }
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
    known_steps: &mut KnownSteps,
) -> Result<CheckpointObjects, PersistError> {
    let started = Instant::now();
    // Before any row is read: what takes the index's place meanwhile is another one.
    let generation = index.generation();
    let before = last_checkpoint(request.archive);
    let mut work = Work {
        request,
        index,
        known_steps,
        reader: request.mounted.reader(),
        pending: Pending::new(),
        object_bytes,
        writer,
        objects: Vec::new(),
        n_kept: 0,
    };
    for kind in [PackedKind::Steps, PackedKind::Inodes] {
        for span in spans(before.as_ref(), kind) {
            work.span(kind, &span)?;
        }
        work.end_run(kind)?;
    }
    let (objects, n_kept) = work.finish();
    let is_own = |object: &&PackedObject| object.name.id.snapshot == request.snapshot;
    let written = objects.iter().filter(is_own).map(|object| object.content.len_bytes);
    let (written_bytes, n_written) = (written.clone().sum(), to_u64(written.count()));
    assert_eq!(n_written + n_kept, to_u64(objects.len()), "each is written or kept");
    let report = CheckpointReport { n_written, written_bytes, n_kept };
    tracing::info!(?report, elapsed = ?started.elapsed(), "checkpoint written");
    let steps = objects.iter().filter(|object| object.name.kind == PackedKind::Steps);
    let steps = steps.map(|object| object.content.sha256).collect();
    *known_steps = KnownSteps { generation, objects: steps };
    Ok(CheckpointObjects { objects, report })
}

/// The checkpoint before.
fn last_checkpoint(archive: &Archive<'_>) -> Option<Manifest> {
    let is_checkpoint = |link: &&Arc<ChainLink>| link.summary.kind == StepKind::Checkpoint;
    let link = archive.links().iter().rev().find(is_checkpoint)?;
    // Without it all is written again, which costs no more than that.
    let read = archive.manifest(link).inspect_err(|error| {
        tracing::warn!("the checkpoint before cannot be read; writing all of it: {error}");
    });
    read.ok()
}

/// Numbers of inodes or steps, with the objects that the checkpoint before has of them.
struct Span {
    first: u64,
    last: u64,
    objects: Vec<PackedObject>,
}

/// All numbers, cut where the objects of the checkpoint before are. What lies in several of them is
/// in one span.
fn spans(before: Option<&Manifest>, kind: PackedKind) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for object in before.map(|before| before.packed_of(kind)).unwrap_or_default() {
        let PackedAbout { first, last, .. } = object.about;
        match spans.last_mut().filter(|span| first <= span.last) {
            Some(span) => {
                span.last = last;
                span.objects.push(object.clone());
            }
            None => {
                let first = spans.last().map_or(0, |before| before.last.saturating_add(1));
                spans.push(Span { first, last, objects: vec![object.clone()] });
            }
        }
    }
    // What is made later belongs to the last one.
    match spans.last_mut() {
        Some(last) => last.last = u64::MAX,
        None => spans.push(Span { first: 0, last: u64::MAX, objects: Vec::new() }),
    }
    spans
}

/// One thing that a checkpoint says.
enum Record<'a> {
    Inode(&'a InodeRecord),
    Step { number: u64, step: CheckpointStep },
}

impl Record<'_> {
    fn number(&self) -> u64 {
        match self {
            Self::Inode(record) => record.ino.get(),
            Self::Step { number, .. } => *number,
        }
    }

    /// Appends what the index says of it.
    fn append_rows(&self, out: &mut Vec<u8>) {
        match self {
            Self::Inode(record) => checkpoint::append_inode(
                &CheckpointInode { record: InodeRecord::clone(record), metadata: None },
                out,
            ),
            Self::Step { step, .. } => checkpoint::append_step(step, out),
        }
    }
}

/// A digest of rows, and how many there were.
#[derive(Default)]
struct RowsDigest {
    n_records: u64,
    digest: Sha256Stream,
    /// Kept from record to record.
    bytes: Vec<u8>,
}

impl RowsDigest {
    fn add(&mut self, record: &Record<'_>) {
        self.bytes.clear();
        record.append_rows(&mut self.bytes);
        self.digest.update(&self.bytes);
        self.n_records += 1;
    }

    fn finish(self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(self.digest.finish().split_at(16).0);
        half
    }
}

/// Records that are not in an object yet.
struct Pending {
    content: Vec<u8>,
    /// The first and the last one.
    bounds: Option<(u64, u64)>,
    rows: RowsDigest,
}

impl Pending {
    fn new() -> Self {
        Self { content: checkpoint::begin(), bounds: None, rows: RowsDigest::default() }
    }
}

struct Work<'a> {
    request: &'a CheckpointRequest<'a>,
    index: &'a Index,
    known_steps: &'a KnownSteps,
    reader: Box<dyn SnapshotReader + 'a>,
    pending: Pending,
    /// Content of one object.
    object_bytes: usize,
    writer: PackedWriter<'a>,
    objects: Vec<PackedObject>,
    n_kept: u64,
}

impl Work<'_> {
    /// The objects, and how many of them are kept.
    fn finish(self) -> (Vec<PackedObject>, u64) {
        (self.objects, self.n_kept)
    }

    /// Writes what there is of a span, or names its objects again.
    fn span(&mut self, kind: PackedKind, span: &Span) -> Result<(), PersistError> {
        let mut objects = span.objects.iter();
        if span.objects.is_empty()
            || !objects.all(|object| self.may_keep(object))
            || self.has_changed(kind, span)?
        {
            let (index, archive) = (self.index, self.request.archive);
            return visit(index, archive, kind, span, &mut |record| self.record(kind, record));
        }
        self.end_run(kind)?;
        self.n_kept += to_u64(span.objects.len());
        self.objects.extend_from_slice(&span.objects);
        Ok(())
    }

    /// Whether an object is one that would be written now, and is not known to be damaged.
    fn may_keep(&self, object: &PackedObject) -> bool {
        let keys = self.writer.keys;
        object.recipients == keys.recipient_fingerprints()
            && object.name.encrypted == keys.encrypts()
            && (self.request.is_whole)(object.name.id.snapshot)
    }

    /// Whether the index says anything else than the objects of a span were written from.
    fn has_changed(&self, kind: PackedKind, span: &Span) -> Result<bool, PersistError> {
        if kind == PackedKind::Steps {
            let number = |link: &Arc<ChainLink>| link.summary.snapshot.get();
            let last = links_of(self.request.archive, span).last().map(number);
            if last != span.objects.last().map(|object| object.about.last) {
                return Ok(true);
            }
            if span.objects.iter().all(|object| self.known_steps.has(self.index, object)) {
                return Ok(false);
            }
        }
        let mut objects = span.objects.iter();
        let mut rows = RowsDigest::default();
        let looked = visit(self.index, self.request.archive, kind, span, &mut |record| {
            rows.add(record);
            let Some(PackedObject { about, .. }) = objects.as_slice().first() else {
                return Err(Look::Changed);
            };
            if rows.n_records == about.n_records {
                if std::mem::take(&mut rows).finish() != about.rows_digest {
                    return Err(Look::Changed);
                }
                objects.next();
            }
            self.check_stop().map_err(Look::Failed)
        });
        match looked {
            Ok(()) => Ok(rows.n_records > 0 || objects.len() > 0),
            Err(Look::Changed) => Ok(true),
            Err(Look::Failed(error)) => Err(error),
        }
    }

    /// Adds a record to what is pending, and writes that if it is enough.
    fn record(&mut self, kind: PackedKind, record: &Record<'_>) -> Result<(), PersistError> {
        self.check_stop()?;
        match record {
            Record::Inode(inode) => {
                let metadata = match inode.newest {
                    Some(InodeLocation::At { xid, .. }) => self.metadata(inode.ino, xid)?,
                    Some(InodeLocation::Gone { .. }) | None => None,
                };
                let inode = CheckpointInode { record: InodeRecord::clone(inode), metadata };
                checkpoint::append_inode(&inode, &mut self.pending.content);
            }
            Record::Step { step, .. } => {
                checkpoint::append_step(step, &mut self.pending.content);
            }
        }
        self.pending.rows.add(record);
        let number = record.number();
        let first = self.pending.bounds.map_or(number, |(first, _)| first);
        assert!(first <= number, "records come in order");
        self.pending.bounds = Some((first, number));
        let n_records_max = if kind == PackedKind::Steps { N_STEPS_MAX } else { N_INODES_MAX };
        let is_enough = self.pending.content.len() >= self.object_bytes
            || self.pending.rows.n_records >= n_records_max;
        if is_enough { self.end_run(kind) } else { Ok(()) }
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

    /// Writes what is pending.
    fn end_run(&mut self, kind: PackedKind) -> Result<(), PersistError> {
        let Pending { content, bounds, rows } =
            std::mem::replace(&mut self.pending, Pending::new());
        let Some((first, last)) = bounds else { return Ok(()) };
        let (content_bytes, n_records) = (to_u64(content.len()), rows.n_records);
        let rows_digest = rows.finish();
        let about = PackedAbout { first, last, content_bytes, n_records, rows_digest };
        self.writer.write(kind, about, &content)?;
        self.objects.extend(self.writer.written.last().cloned());
        Ok(())
    }

    fn check_stop(&self) -> Result<(), PersistError> {
        let stop = self.request.stop.load(Ordering::Relaxed);
        if stop { Err(PersistError::Cancelled) } else { Ok(()) }
    }
}

/// Shows `show` the records of a span, in order.
fn visit<E: From<PersistError> + From<IndexError>>(
    index: &Index,
    archive: &Archive<'_>,
    kind: PackedKind,
    span: &Span,
    show: &mut dyn FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if kind == PackedKind::Inodes {
        let inodes = InodeRange { first: Ino::new(span.first), last: Ino::new(span.last) };
        return index.visit_inodes(inodes, &mut |record| show(&Record::Inode(record)));
    }
    let of_span = links_of(archive, span);
    let ids_of =
        |link: &Arc<ChainLink>| TarballId::of_snapshot(link.summary.epoch, link.summary.snapshot);
    let (Some(first), Some(last)) = (of_span.first(), of_span.last()) else { return Ok(()) };
    let ids = *ids_of(first).start()..=*ids_of(last).end();
    let mut rows = TarballRows::new(index, ids, N_ROWS_MAX);
    of_span.iter().try_for_each(|link| visit_step(&mut rows, link, show))
}

/// The steps of a span.
fn links_of<'a>(archive: &'a Archive<'_>, span: &Span) -> &'a [Arc<ChainLink>] {
    let links = archive.links();
    let start = links.partition_point(|link| link.summary.snapshot.get() < span.first);
    let until = links.partition_point(|link| link.summary.snapshot.get() <= span.last);
    links.get(start..until).unwrap_or_default()
}

/// A step with the rows of its tarballs, as several records if there are many.
fn visit_step<E: From<PersistError> + From<IndexError>>(
    rows: &mut TarballRows<'_>,
    link: &ChainLink,
    show: &mut dyn FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let ids = TarballId::of_snapshot(link.summary.epoch, link.summary.snapshot);
    loop {
        let mut tarballs = Vec::new();
        while tarballs.len() < N_ROWS_MAX {
            let Some(row) = rows.next_of(&ids)? else { break };
            tarballs.push(row);
        }
        let is_last = tarballs.len() < N_ROWS_MAX;
        let step = CheckpointStep { link: link.to_bytes(), tarballs };
        show(&Record::Step { number: link.summary.snapshot.get(), step })?;
        if is_last {
            return Ok(());
        }
    }
}

/// Why a look at some records ended.
enum Look {
    Changed,
    Failed(PersistError),
}

impl From<PersistError> for Look {
    fn from(error: PersistError) -> Self {
        Self::Failed(error)
    }
}

impl From<IndexError> for Look {
    fn from(error: IndexError) -> Self {
        Self::Failed(error.into())
    }
}
