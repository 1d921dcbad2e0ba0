//! What changed in a range of transactions.
//!
//! The log says it: it is folded into net changes, and nothing else is looked at. If a segment of
//! it is damaged or gone, the filesystem says the same, at the price of a look at every inode: what
//! has a transaction of the range, as an inode or in its map, changed in it, and what the archive
//! knows and the snapshot has no more is gone. What is lost with the segment is the history of it,
//! and nothing that a restore needs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::vec;

use tier_index::Index;
use tier_log::{LogError, NetChanges, NetChangesOptions};
use tier_persist::PartsSoFar;
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, ErrorKind, FileUpdate, Ino, LogReader, MountedSnapshot,
    PortError, SnapshotInode, SnapshotReader, Xid, XidRange, with_causes,
};

/// Inodes that are looked at together.
const N_INODES_READ: usize = 64;
/// Runs of a chunk map that are read at a time.
const N_RUNS_READ: usize = 1024;
/// Inodes of the archive that are listed at a time.
const N_ARCHIVED_READ: usize = 1024;
/// Changed ranges of one file; one with more is taken as changed altogether.
const N_RANGES_MAX: usize = 4096;

/// Changes in order of inodes.
pub(super) type Changes<'a> = Box<dyn Iterator<Item = Result<FileUpdate, PortError>> + Send + 'a>;

/// What changed, and how that was found out.
pub(super) struct Found<'a> {
    pub(super) changes: Changes<'a>,
    /// Every inode was looked at, because the log could not be read.
    pub(super) are_looked_at: bool,
}

/// What is asked.
pub(super) struct ChangeSource<'a> {
    pub(super) log: &'a dyn LogReader,
    /// The filesystem as it was after the range.
    pub(super) mounted: &'a dyn MountedSnapshot,
    /// What the archive knows of before.
    pub(super) index: &'a Index,
    /// Ends a look at the filesystem.
    pub(super) stop: &'a AtomicBool,
}

/// What changed in a range: of inodes that earlier parts hold only what changed since those.
pub(super) fn changes<'a>(
    source: &ChangeSource<'a>,
    range: XidRange,
    part: Option<PartsSoFar>,
    options: &NetChangesOptions,
) -> Result<Found<'a>, PortError> {
    match net_changes(source.log, range, part, options) {
        Ok(changes) => Ok(Found { changes: Box::new(changes), are_looked_at: false }),
        Err(error) if error.is_of_segment() => {
            let error = with_causes(&error);
            tracing::warn!(%range, "the log cannot be read, all inodes are looked at: {error}");
            let changes = Box::new(Looked::new(source, range, part));
            Ok(Found { changes, are_looked_at: true })
        }
        Err(error) => Err(error.into()),
    }
}

/// What the log says.
fn net_changes(
    log: &dyn LogReader,
    range: XidRange,
    part: Option<PartsSoFar>,
    options: &NetChangesOptions,
) -> Result<impl Iterator<Item = Result<FileUpdate, PortError>> + use<>, LogError> {
    let all = NetChanges::of_range(log, range, options)?;
    let since = part.and_then(|part| XidRange::new(part.last_xid.next(), range.end()));
    let since = since.map(|since| NetChanges::of_range(log, since, options)).transpose()?;
    let covered = part.map(|part| part.covered);
    // An error is of no inode, and comes out where it is.
    let is_beyond = move |update: &Result<FileUpdate, LogError>| {
        update.as_ref().map_or(true, |update| Some(update.ino) > covered)
    };
    let again = since.into_iter().flatten();
    let again = again.filter(move |update| !is_beyond(update) || update.is_err());
    // Both are in order of inodes, and the second begins behind the first.
    let changes = again.chain(all.filter(is_beyond));
    Ok(changes.map(|update| update.map_err(PortError::from)))
}

/// What the filesystem says: its inodes and those of the archive, side by side in order.
struct Looked<'a> {
    range: XidRange,
    live: LiveInodes<'a>,
    archived: ArchivedInodes<'a>,
}

impl<'a> Looked<'a> {
    fn new(source: &ChangeSource<'a>, range: XidRange, part: Option<PartsSoFar>) -> Self {
        let &ChangeSource { mounted, index, stop, .. } = source;
        let live = LiveInodes {
            reader: mounted.reader(),
            stop,
            range,
            part,
            last: Some(Ino::new(0)),
            page: Vec::new().into_iter(),
        };
        let archived =
            ArchivedInodes { index, last: Some(Ino::new(0)), page: Vec::new().into_iter() };
        Self { range, live, archived }
    }

    fn step(&mut self) -> Result<Option<FileUpdate>, PortError> {
        loop {
            let live = self.live.peek()?;
            let archived = self.archived.peek()?;
            if let Some(ino) = archived.filter(|ino| live.is_none_or(|live| *ino < live)) {
                self.archived.page.next();
                return Ok(Some(FileUpdate { ino, change: Change::Gone(self.range.last()) }));
            }
            if archived == live {
                self.archived.page.next();
            }
            let Some(LiveInode { ino, changed }) = self.live.page.next() else { return Ok(None) };
            if let Some(ranges) = changed {
                return Ok(Some(FileUpdate { ino, change: Change::Touched(ranges) }));
            }
        }
    }
}

impl Iterator for Looked<'_> {
    type Item = Result<FileUpdate, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// All inodes of the archive, in order.
struct ArchivedInodes<'a> {
    index: &'a Index,
    /// The last one that was listed; `None` at the end.
    last: Option<Ino>,
    page: vec::IntoIter<(Ino, Xid)>,
}

impl ArchivedInodes<'_> {
    fn peek(&mut self) -> Result<Option<Ino>, PortError> {
        if self.page.as_slice().is_empty()
            && let Some(last) = self.last
        {
            self.page = self.index.inodes_after(last, N_ARCHIVED_READ)?.into_iter();
            self.last = self.page.as_slice().last().map(|(last, _)| *last);
        }
        Ok(self.page.as_slice().first().map(|(ino, _)| *ino))
    }
}

/// An inode of the snapshot, and what of it changed, if anything did.
struct LiveInode {
    ino: Ino,
    changed: Option<Vec<ChunkRange>>,
}

/// All inodes of the snapshot, in order.
struct LiveInodes<'a> {
    reader: Box<dyn SnapshotReader + 'a>,
    stop: &'a AtomicBool,
    range: XidRange,
    part: Option<PartsSoFar>,
    /// The last one that was listed; `None` at the end.
    last: Option<Ino>,
    page: vec::IntoIter<LiveInode>,
}

impl LiveInodes<'_> {
    fn peek(&mut self) -> Result<Option<Ino>, PortError> {
        if self.page.as_slice().is_empty()
            && let Some(last) = self.last
        {
            self.page = self.page_after(last)?.into_iter();
            self.last = self.page.as_slice().last().map(|inode| inode.ino);
        }
        Ok(self.page.as_slice().first().map(|inode| inode.ino))
    }

    fn page_after(&mut self, last: Ino) -> Result<Vec<LiveInode>, PortError> {
        // Of many inodes few may have changed, and the planner looks at the flag for those alone.
        check_stop(self.stop)?;
        let inodes = self.reader.inodes_after(last, N_INODES_READ)?;
        let ascend = |inodes: &[Ino]| inodes.is_sorted_by(|a, b| a < b);
        if !ascend(&inodes) || inodes.first().is_some_and(|first| *first <= last) {
            let message = format!("a snapshot does not list its inodes above {last} in order");
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        let answers = self.reader.inodes(&inodes, N_RUNS_READ);
        if answers.len() != inodes.len() {
            let message = "a snapshot does not answer for each inode that it is asked for";
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        let mut page = Vec::new();
        for (ino, answer) in inodes.into_iter().zip(answers) {
            let changed = answer.and_then(|inode| match inode {
                Some(inode) => self.changed(&inode),
                None => Ok(None),
            });
            let changed = match changed {
                Err(error) if matches!(error.kind(), ErrorKind::Away | ErrorKind::Cancelled) => {
                    return Err(error);
                }
                // Taken as changed: what is wrong with it is told where it is persisted.
                changed => changed.unwrap_or_else(|_| Some(vec![ChunkRange::ALL])),
            };
            page.push(LiveInode { ino, changed });
        }
        Ok(page)
    }

    /// The first transaction that counts for an inode.
    fn since(&self, ino: Ino) -> Xid {
        let part = self.part.filter(|part| ino <= part.covered);
        part.map_or(self.range.start(), |part| part.last_xid.next())
    }

    /// What changed of an inode; `None` if nothing did.
    fn changed(&mut self, inode: &SnapshotInode) -> Result<Option<Vec<ChunkRange>>, PortError> {
        let ino = inode.state.attr.ino;
        let since = self.since(ino);
        let mut ranges = Vec::new();
        add_new(&mut ranges, &inode.runs, since);
        let mut end = inode.runs.last().map_or(ChunkNo::END, |run| run.chunks.end());
        while end < ChunkNo::END && ranges.len() <= N_RANGES_MAX {
            check_stop(self.stop)?;
            let runs = self.reader.chunk_runs(ino, end, N_RUNS_READ)?;
            add_new(&mut ranges, &runs, since);
            // A map that says nothing more ends here; where it is persisted that is an error.
            end = runs.last().map_or(ChunkNo::END, |run| run.chunks.end().max(end.next()));
        }
        if ranges.len() > N_RANGES_MAX {
            ranges = vec![ChunkRange::ALL];
        }
        let has_changed = inode.state.attr.xid >= since || !ranges.is_empty();
        Ok(has_changed.then_some(ranges))
    }
}

fn check_stop(stop: &AtomicBool) -> Result<(), PortError> {
    let stopped = || PortError::new(ErrorKind::Cancelled, "stopped on request");
    if stop.load(Ordering::Relaxed) { Err(stopped()) } else { Ok(()) }
}

/// Adds the chunks of runs that are as new as a transaction, of which neighbours become one range.
fn add_new(ranges: &mut Vec<ChunkRange>, runs: &[ChunkRun], since: Xid) {
    for ChunkRun { chunks, .. } in runs.iter().filter(|run| run.data_xid >= since) {
        let joined = ranges.last().filter(|last| last.end() == chunks.start());
        match joined.and_then(|last| ChunkRange::new(last.start(), chunks.end())) {
            Some(joined) => {
                ranges.pop();
                ranges.push(joined);
            }
            None => ranges.push(*chunks),
        }
    }
}
