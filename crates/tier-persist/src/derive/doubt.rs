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

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use tier_index::{Extent, ExtentContent, TarballId};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, ChunkState, Epoch, FileAttr, FileUpdate, Ino,
    InodeState, PortError, SnapshotId, Xid, XidRange,
};

use crate::error::PersistError;
use crate::format::names::PackedKind;
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

/// Says which chunks of which inodes a range of transactions changed, by the segments that hold it.
pub type ReadLog<'a> =
    &'a dyn Fn(Vec<ArchivedSegment>, XidRange) -> Result<Vec<FileUpdate>, PortError>;

/// A step of which not all can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Doubtful {
    step: (Epoch, SnapshotId),
    /// The last transaction before those that it holds.
    after: Xid,
    /// The last one of them.
    last: Xid,
    /// Inodes that an earlier snapshot could not read, and that were tried again.
    retried: Vec<Ino>,
    /// What its transactions changed, if the log says so.
    changed: Option<BTreeMap<Ino, Vec<ChunkRange>>>,
}

const ALL: &[ChunkRange] = &[ChunkRange::ALL];

impl Doubtful {
    /// The chunks of an inode that the step may have held. Without the log: all of an inode whose
    /// newest transaction is this one, if it was there by the end of the step and was not left
    /// alone from before it. An inode has the number of the transaction that made it, so that one
    /// with a higher number came later.
    fn chunks(&self, ino: Ino, xid: Xid) -> &[ChunkRange] {
        let was_there = ino.get() <= self.last.get();
        match &self.changed {
            _ if self.retried.contains(&ino) => ALL,
            Some(changed) => changed.get(&ino).map_or(&[], Vec::as_slice),
            None if xid > self.after && was_there => ALL,
            None => &[],
        }
    }

    /// Whether an extent is older than what the step may have held in its place.
    fn is_behind(&self, extent: &Extent) -> bool {
        match (extent.tarball(), extent.content) {
            (Some(TarballId { epoch, snapshot, .. }), _) => (epoch, snapshot) < self.step,
            (None, ExtentContent::Lost) => false,
            (None, _) => extent.data_xid <= self.after,
        }
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
    ) -> Result<Option<Doubtful>, PersistError> {
        let links = self.links();
        let Some(link) = links.get(position) else { return Ok(None) };
        let before = position.checked_sub(1).and_then(|before| links.get(before));
        let (step, last) = ((link.summary.epoch, link.summary.snapshot), link.summary.last_xid);
        let retried = before.map(|before| before.summary.failed.clone()).unwrap_or_default();
        if link.is_lost() {
            // Without transactions it began an epoch, was a checkpoint, or a repair.
            let doubt = Doubtful { step, after: complete, last, retried, changed: None };
            return Ok((last > complete).then_some(doubt));
        }
        // A checkpoint holds what tarballs hold as well.
        if link.summary.kind == StepKind::Checkpoint || link.summary.n_tarballs == 0 {
            return Ok(None);
        }
        let after = Xid::new(link.holds_from.get().saturating_sub(1));
        let changed = self.changed_in(position, read_log)?;
        Ok(Some(Doubtful { step, after, last, retried, changed }))
    }

    /// What the transactions of a step changed; `None` if not all of their segments can be read.
    fn changed_in(
        &self,
        position: usize,
        read_log: ReadLog<'_>,
    ) -> Result<Option<BTreeMap<Ino, Vec<ChunkRange>>>, PersistError> {
        let links = self.links().get(..=position).unwrap_or_default();
        let Some(link) = links.last() else { return Ok(None) };
        let Some(range) = XidRange::new(link.holds_from, link.summary.last_xid.next()) else {
            return Ok(None);
        };
        // What a part holds its own segments tell, and those of the parts before it.
        let is_before = |link: &&ChainLink| link.summary.last_xid < range.start();
        let steps = links.iter().map(AsRef::as_ref).rev().take_while(|link| !is_before(link));
        let mut segments = VecDeque::new();
        for step in steps {
            let Some(of_step) = self.segments_of(step)? else { return Ok(None) };
            of_step.into_iter().rev().for_each(|segment| segments.push_front(segment));
        }
        match read_log(segments.into(), range) {
            Ok(updates) => Ok(Some(updates.into_iter().filter_map(touched).collect())),
            Err(error) => {
                let snapshot = link.summary.snapshot;
                tracing::warn!(%snapshot, "the log does not tell what a snapshot held: {error}");
                Ok(None)
            }
        }
    }

    /// The log segments that a step brought; `None` if one cannot be read.
    fn segments_of(&self, link: &ChainLink) -> Result<Option<Vec<ArchivedSegment>>, PersistError> {
        if link.is_lost() {
            return Ok(None);
        }
        let read = || -> Result<_, PersistError> {
            let mut segments: Vec<ArchivedSegment> = Vec::new();
            for object in self.manifest(link)?.packed_of(PackedKind::Segment) {
                let content = self.tarballs().read_packed(object)?;
                let (first, last) = (Xid::new(object.about.first), Xid::new(object.about.last));
                let Some(range) = XidRange::new(first, last.next()) else { continue };
                let name = object.object_name(self.filesystem());
                // A long one comes in pieces.
                match segments.last_mut().filter(|before| before.range == range) {
                    Some(before) => before.content.extend_from_slice(&content),
                    None => {
                        let name = PathBuf::from(name.as_str());
                        segments.push(ArchivedSegment { range, name, content });
                    }
                }
            }
            Ok(segments)
        };
        match read() {
            Err(error) if is_of_the_object(&error) => Ok(None),
            segments => segments.map(Some),
        }
    }
}

/// The chunks that an update may have changed. What has ended has none.
fn touched(update: FileUpdate) -> Option<(Ino, Vec<ChunkRange>)> {
    match update.change {
        Change::Touched(ranges) => Some((update.ino, ranges)),
        Change::Gone(_) => None,
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
