//! What a step of which not all can be read may have held.
//!
//! When a tarball is lost, older data and holes must not stand for what lay in it. What the step
//! changed its log segments say, which are in the archive as objects of their own: exactly these
//! chunks are in doubt, and of them what no later step brings is lost. Where the segments are lost
//! as well, every file that may have changed in the step is in doubt as a whole.
//!
//! Inodes that an earlier snapshot could not read are persisted again with a later one, and no
//! transaction of that tells: they are in doubt as a whole too. What a repair persisted again is in
//! no need of this, because the step that held it first is one of which not all can be read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use tier_index::{Extent, ExtentContent, TarballId};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, ChunkState, Epoch, FileAttr, FileUpdate, HasKind, Ino,
    InodeState, PortError, SnapshotId, Xid, XidRange, with_causes,
};

use crate::error::PersistError;
use crate::format::names::PackedKind;
use crate::format::packed::PackedObject;
use crate::read::chain::Archive;
use crate::read::link::{ChainLink, StepKind};
use crate::read::small::is_of_the_object;

/// A log segment from an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchivedSegment {
    /// Its transactions.
    pub range: XidRange,
    /// For messages.
    pub name: PathBuf,
    /// Its bytes, as the log wrote them.
    pub content: Vec<u8>,
}

/// Shows which chunks of which inodes a range of transactions changed, by the segments that hold
/// it. They come in order, and each is read when it is asked for.
pub type ReadLog<'a> = &'a dyn Fn(
    &mut dyn Iterator<Item = Result<ArchivedSegment, PortError>>,
    XidRange,
    &mut dyn FnMut(FileUpdate),
) -> Result<(), PortError>;

/// Chunks by inode.
type Changed = BTreeMap<Ino, Vec<ChunkRange>>;

/// Inodes of a step of which not all can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Doubtful {
    step: (Epoch, SnapshotId),
    /// Those that it holds if its transactions changed them. An inode has the number of the
    /// transaction that made it, so that one with a higher number than its last came later.
    inodes: RangeInclusive<Ino>,
    /// The last transaction before these.
    after: Xid,
    /// Holes of this transaction or an earlier one are older than the step.
    holes_until: Xid,
    /// Inodes that an earlier snapshot could not read, and that were tried again.
    retried: BTreeSet<Ino>,
    /// What the transactions changed, if the log says so.
    changed: Option<Changed>,
}

const ALL: &[ChunkRange] = &[ChunkRange::ALL];

impl Doubtful {
    /// The chunks of an inode that the step may have held. Without the log that is all of one whose
    /// newest transaction is not from before the step.
    fn chunks(&self, ino: Ino, xid: Xid) -> &[ChunkRange] {
        match &self.changed {
            _ if self.retried.contains(&ino) => ALL,
            _ if !self.inodes.contains(&ino) => &[],
            Some(changed) => changed.get(&ino).map_or(&[], Vec::as_slice),
            None if xid > self.after => ALL,
            None => &[],
        }
    }

    /// Whether an extent is older than what the step may have held in its place.
    fn is_behind(&self, extent: &Extent) -> bool {
        match (extent.tarball(), extent.content) {
            (Some(TarballId { epoch, snapshot, .. }), _) => (epoch, snapshot) < self.step,
            (None, ExtentContent::Lost) => false,
            (None, _) => extent.data_xid <= self.holes_until,
        }
    }

    /// What the step held of an inode behind its end, if the inode's newest state is from before
    /// it: as much as it had grown.
    pub(super) fn grown(
        &self,
        ino: Ino,
        xid: Xid,
        n_chunks: u64,
    ) -> impl Iterator<Item = ChunkRange> + '_ {
        let is_older = xid <= self.after;
        let changed = self.changed.as_ref().filter(|_| is_older).and_then(|c| c.get(&ino));
        // What has no end is a cut, and nothing that was there.
        let bounded = changed.into_iter().flatten().filter(|range| range.end() < ChunkNo::END);
        bounded.filter_map(move |range| {
            ChunkRange::new(range.start().max(ChunkNo::new(n_chunks)), range.end())
        })
    }
}

impl Archive<'_> {
    /// What the step of this number may have held, of which not all can be read. `complete` is the
    /// last transaction of the last snapshot before it that is complete.
    pub(super) fn doubt(
        &self,
        position: usize,
        complete: Xid,
        read_log: ReadLog<'_>,
    ) -> Result<Vec<Doubtful>, PersistError> {
        let links = self.links();
        let Some(link) = links.get(position) else { return Ok(Vec::new()) };
        let before = position.checked_sub(1).and_then(|before| links.get(before));
        let before = before.map(|before| &before.summary);
        let (step, last) = ((link.summary.epoch, link.summary.snapshot), link.summary.last_xid);
        let before_xid = before.map_or(Xid::new(0), |before| before.last_xid);
        let mut whole = Doubtful {
            step,
            inodes: Ino::new(0)..=Ino::new(last.get()),
            after: complete,
            holes_until: before_xid,
            retried: before.into_iter().flat_map(|before| &before.failed).copied().collect(),
            changed: None,
        };
        if link.is_lost() {
            // Without transactions it began an epoch, was a checkpoint, or a repair.
            return Ok(Vec::from_iter((last > complete).then_some(whole)));
        }
        // A checkpoint holds what tarballs hold as well.
        if link.summary.kind == StepKind::Checkpoint || link.summary.n_tarballs == 0 {
            return Ok(Vec::new());
        }
        let mut doubts = Vec::new();
        let mut first = Ino::new(0);
        if let Some(covered) = before.and_then(|before| before.covered) {
            // A part holds what earlier parts reached only where it changed since.
            let (inodes, after) = (first..=covered, before_xid);
            let changed = self.changed_in(position, after.next(), &inodes, read_log)?;
            let retried = BTreeSet::new();
            doubts.push(Doubtful { step, inodes, after, holes_until: after, retried, changed });
            first = covered.next();
        }
        let end =
            link.summary.covered.map_or(Ino::new(last.get()), |c| c.min(Ino::new(last.get())));
        whole.inodes = first..=end;
        whole.after = Xid::new(link.holds_from.get().saturating_sub(1));
        whole.holes_until = whole.after;
        // A repair of what had not changed has no transactions at all.
        let has_any = link.summary.range.is_some() || !doubts.is_empty();
        whole.changed = match has_any {
            true => self.changed_in(position, link.holds_from, &whole.inodes, read_log)?,
            false => Some(Changed::new()),
        };
        doubts.push(whole);
        Ok(doubts)
    }

    /// What the transactions of a step from this one on changed of these inodes; `None` if not all
    /// of their segments can be read.
    fn changed_in(
        &self,
        position: usize,
        from: Xid,
        inodes: &RangeInclusive<Ino>,
        read_log: ReadLog<'_>,
    ) -> Result<Option<Changed>, PersistError> {
        assert!(position < self.links().len(), "it is a step of this history");
        let links = self.links().get(..=position).unwrap_or_default();
        let Some(link) = links.last() else { return Ok(None) };
        let mut changed = Changed::new();
        let Some(range) = XidRange::new(from, link.summary.last_xid.next()) else {
            return Ok(Some(changed));
        };
        // The segments of earlier parts are theirs.
        let is_before = |link: &&ChainLink| link.summary.last_xid < range.start();
        let steps = links.iter().map(AsRef::as_ref).rev().take_while(|link| !is_before(link));
        let mut segments = VecDeque::new();
        for step in steps {
            self.segments_of(step)?
                .into_iter()
                .rev()
                .for_each(|segment| segments.push_front(segment));
        }
        let mut failed = None;
        let mut opened = segments.into_iter().map(|pieces| {
            self.read_segment(&pieces).map_err(|error| {
                let problem = PortError::new(error.kind(), with_causes(&error));
                failed = Some(error);
                problem
            })
        });
        let read = read_log(&mut opened, range, &mut |update| match update.change {
            Change::Touched(ranges) if inodes.contains(&update.ino) => {
                changed.insert(update.ino, ranges);
            }
            // What has ended has no chunks.
            Change::Touched(_) | Change::Gone(_) => {}
        });
        drop(opened);
        match (read, failed) {
            (_, Some(error)) if !is_of_the_object(&error) => Err(error),
            (Ok(()), None) => Ok(Some(changed)),
            (read, failed) => {
                let error = failed.map(|e| with_causes(&e)).or(read.err().map(|e| with_causes(&e)));
                let (snapshot, error) = (link.summary.snapshot, error.unwrap_or_default());
                tracing::warn!(%snapshot, "the log does not tell what a snapshot held: {error}");
                Ok(None)
            }
        }
    }

    /// The log segments that a step brought, each as the objects of its pieces. Without the
    /// manifest there are none, which a reader of the log meets as a gap.
    fn segments_of(&self, link: &ChainLink) -> Result<Vec<Vec<PackedObject>>, PersistError> {
        if link.is_lost() {
            return Ok(Vec::new());
        }
        let manifest = match self.manifest(link) {
            Err(error) if is_of_the_object(&error) => return Ok(Vec::new()),
            manifest => manifest?,
        };
        let mut segments: Vec<Vec<PackedObject>> = Vec::new();
        let number = |object: &PackedObject| (object.about.first, object.about.last);
        for object in manifest.packed_of(PackedKind::Segment) {
            let last = segments.last_mut();
            match last.filter(|pieces| pieces.first().map(number) == Some(number(object))) {
                Some(pieces) => pieces.push(object.clone()),
                None => segments.push(vec![object.clone()]),
            }
        }
        Ok(segments)
    }

    fn read_segment(&self, pieces: &[PackedObject]) -> Result<ArchivedSegment, PersistError> {
        let mut content = Vec::new();
        let mut segment = None;
        for piece in pieces {
            let name = piece.object_name(self.filesystem());
            let (first, last) = (Xid::new(piece.about.first), Xid::new(piece.about.last));
            let problem = "it has no transactions";
            let range = XidRange::new(first, last.next())
                .ok_or_else(|| PersistError::damaged(&name, problem))?;
            content.append(&mut self.tarballs().read_packed(piece)?);
            segment = segment.or(Some((range, PathBuf::from(name.as_str()))));
        }
        let nothing = || PersistError::Missing("a log segment without pieces".into());
        let (range, name) = segment.ok_or_else(nothing)?;
        Ok(ArchivedSegment { range, name, content })
    }

    /// The inodes that the transactions of a snapshot changed, as far as they were there by its
    /// end, and those that it tried again; `None` if the log does not tell.
    pub fn inodes_of(
        &self,
        snapshot: SnapshotId,
        read_log: ReadLog<'_>,
    ) -> Result<Option<Vec<Ino>>, PersistError> {
        // An error if there is none, and not what the next one changed.
        self.link(snapshot)?;
        let position = self.links().partition_point(|link| link.summary.snapshot < snapshot);
        let mut inodes = BTreeSet::new();
        for doubt in self.doubt(position, Xid::new(0), read_log)? {
            let Some(changed) = doubt.changed else { return Ok(None) };
            inodes.extend(changed.into_keys().chain(doubt.retried));
        }
        Ok(Some(inodes.into_iter().collect()))
    }
}

/// The chunk map of an inode, from its extents in order: with lost runs for what is in doubt.
pub(super) struct DoubtedRuns<'a, I> {
    extents: I,
    /// Steps that may have held some of it, each with the chunks.
    doubts: Vec<(&'a Doubtful, &'a [ChunkRange])>,
    /// Where any of these begin or end, in order.
    cuts: Vec<u64>,
    /// Of the file; behind that nothing is in doubt.
    n_chunks: u64,
    /// The inode's newest transaction, which stands for that of what is lost.
    xid: Xid,
    /// Where the next extent or gap begins; `None` at the end.
    at: Option<u64>,
    ready: VecDeque<ChunkRun>,
}

impl<'a, I> DoubtedRuns<'a, I> {
    pub(super) fn new(
        extents: I,
        doubtful: &'a [Doubtful],
        inode: &InodeState,
        chunk_bytes: u32,
    ) -> Self {
        let FileAttr { ino, xid, size_bytes, .. } = inode.attr;
        let n_chunks = size_bytes.div_ceil(u64::from(chunk_bytes));
        let chunks = doubtful.iter().map(|step| (step, step.chunks(ino, xid)));
        let doubts: Vec<_> = chunks.filter(|(_, chunks)| !chunks.is_empty()).collect();
        let ranges = doubts.iter().flat_map(|(_, chunks)| chunks.iter());
        let mut cuts: Vec<_> =
            ranges.flat_map(|range| [range.start().get(), range.end().get()]).collect();
        cuts.sort_unstable();
        Self { extents, doubts, cuts, n_chunks, xid, at: Some(0), ready: VecDeque::new() }
    }

    /// Adds the runs of an extent, or of a gap between two up to this chunk.
    fn add(&mut self, extent: Option<&Extent>, from: u64, until: u64) {
        let mut at = from;
        while at < until {
            let cut = self.cuts.partition_point(|cut| *cut <= at);
            let end = self.cuts.get(cut).copied().unwrap_or(u64::MAX).min(until);
            let is_in_doubt = self.doubts.iter().any(|(step, ranges)| {
                extent.is_none_or(|extent| step.is_behind(extent))
                    && ranges.iter().any(|range| range.contains(ChunkNo::new(at)))
            });
            let known = extent.map(|extent| (state_of(extent), extent.data_xid));
            let lost = Some((ChunkState::Lost, self.xid)).filter(|_| is_in_doubt);
            let chunks = ChunkRange::new(ChunkNo::new(at), ChunkNo::new(end));
            if let (Some(chunks), Some((state, data_xid))) = (chunks, lost.or(known)) {
                self.ready.push_back(ChunkRun { chunks, state, data_xid });
            }
            at = end;
        }
    }
}

fn state_of(extent: &Extent) -> ChunkState {
    match extent.content {
        ExtentContent::Hole => ChunkState::Hole,
        ExtentContent::Lost => ChunkState::Lost,
        ExtentContent::Data(_) => ChunkState::Cold,
    }
}

impl<I: Iterator<Item = Result<Extent, PortError>>> Iterator for DoubtedRuns<'_, I> {
    type Item = Result<ChunkRun, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(run) = self.ready.pop_front() {
                return Some(Ok(run));
            }
            let at = self.at?;
            match self.extents.next() {
                Some(Ok(extent)) => {
                    let (start, end) = (extent.chunks.start().get(), extent.chunks.end().get());
                    self.add(None, at, start.min(self.n_chunks));
                    self.add(Some(&extent), start, end);
                    self.at = Some(end);
                }
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.add(None, at, self.n_chunks);
                    self.at = None;
                }
            }
        }
    }
}
