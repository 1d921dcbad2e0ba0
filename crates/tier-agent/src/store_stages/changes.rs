//! What changed in a range of transactions.
//!
//! The log says it: it is folded into net changes, and nothing else is looked at. If a segment of
//! it is damaged or gone, the filesystem says the same, at the price of a look at every inode: what
//! has a transaction of the range, as an inode or in its map, changed in it, and what the archive
//! knows and the snapshot has no more is gone. What is lost with the segment is the history of it,
//! and nothing that a restore needs.

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
/// Inodes that are gone, of which so many are told at a time.
const N_GONE_MAX: usize = 4096;
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

/// What the filesystem says.
struct Looked<'a> {
    reader: Box<dyn SnapshotReader + 'a>,
    index: &'a Index,
    range: XidRange,
    part: Option<PartsSoFar>,
    /// The last inode of the snapshot that was listed, and those that are yet to be told.
    last: Ino,
    shown: vec::IntoIter<FileUpdate>,
    /// The last inode of the archive that was listed, and those that are yet to be compared.
    last_archived: Ino,
    archived: vec::IntoIter<(Ino, Xid)>,
}

impl<'a> Looked<'a> {
    fn new(source: &ChangeSource<'a>, range: XidRange, part: Option<PartsSoFar>) -> Self {
        Self {
            reader: source.mounted.reader(),
            index: source.index,
            range,
            part,
            last: Ino::new(0),
            shown: Vec::new().into_iter(),
            last_archived: Ino::new(0),
            archived: Vec::new().into_iter(),
        }
    }

    /// The first transaction that counts for an inode.
    fn since(&self, ino: Ino) -> Xid {
        let part = self.part.filter(|part| ino <= part.covered);
        part.map_or(self.range.start(), |part| part.last_xid.next())
    }

    /// The next inodes of the snapshot that changed, with those before them that are gone; `None`
    /// at the end of both lists.
    fn next_page(&mut self) -> Result<Option<Vec<FileUpdate>>, PortError> {
        let inodes = self.reader.inodes_after(self.last, N_INODES_READ)?;
        let ascend = |inodes: &[Ino]| inodes.is_sorted_by(|a, b| a < b);
        if !ascend(&inodes) || inodes.first().is_some_and(|first| *first <= self.last) {
            let message =
                format!("a snapshot does not list its inodes above {} in order", self.last);
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        let Some(last) = inodes.last().copied() else {
            let gone = self.gone_before(None, &[])?;
            return Ok(Some(gone).filter(|gone| !gone.is_empty()));
        };
        let mut updates = self.gone_before(Some(last), &inodes)?;
        if updates.len() >= N_GONE_MAX {
            // Those first; the same inodes are listed once more behind them.
            return Ok(Some(updates));
        }
        let answers = self.reader.inodes(&inodes, N_RUNS_READ);
        if answers.len() != inodes.len() {
            let message = "a snapshot does not answer for each inode that it is asked for";
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        for (ino, answer) in inodes.iter().zip(answers) {
            let changed = match answer.map(|inode| inode.map(|inode| self.changed(&inode))) {
                Ok(None) => None,
                Ok(Some(Ok(changed))) => changed,
                Ok(Some(Err(error))) | Err(error)
                    if matches!(error.kind(), ErrorKind::Away | ErrorKind::Cancelled) =>
                {
                    return Err(error);
                }
                // Taken as changed: what is wrong with it is told where it is persisted.
                Ok(Some(Err(_))) | Err(_) => Some(vec![ChunkRange::ALL]),
            };
            let update = |ranges| FileUpdate { ino: *ino, change: Change::Touched(ranges) };
            updates.extend(changed.map(update));
        }
        updates.sort_unstable_by_key(|update| update.ino);
        self.last = last;
        Ok(Some(updates))
    }

    /// What changed of an inode; `None` if nothing did.
    fn changed(&mut self, inode: &SnapshotInode) -> Result<Option<Vec<ChunkRange>>, PortError> {
        let ino = inode.state.attr.ino;
        let since = self.since(ino);
        let is_new = |run: &&ChunkRun| run.data_xid >= since;
        let mut ranges: Vec<_> = inode.runs.iter().filter(is_new).map(|run| run.chunks).collect();
        let mut end = inode.runs.last().map_or(ChunkNo::END, |run| run.chunks.end());
        while end < ChunkNo::END && ranges.len() <= N_RANGES_MAX {
            let runs = self.reader.chunk_runs(ino, end, N_RUNS_READ)?;
            ranges.extend(runs.iter().filter(is_new).map(|run| run.chunks));
            // A map that says nothing more ends here; where it is persisted that is an error.
            end = runs.last().map_or(ChunkNo::END, |run| run.chunks.end().max(end.next()));
        }
        if ranges.len() > N_RANGES_MAX {
            ranges = vec![ChunkRange::ALL];
        }
        let has_changed = inode.state.attr.xid >= since || !ranges.is_empty();
        Ok(has_changed.then_some(ranges))
    }

    /// The next inodes of the archive, up to one, that are not among these.
    fn gone_before(
        &mut self,
        last: Option<Ino>,
        there: &[Ino],
    ) -> Result<Vec<FileUpdate>, PortError> {
        let mut gone = Vec::new();
        while gone.len() < N_GONE_MAX {
            let next = match self.archived.as_slice().first() {
                Some((ino, _)) => *ino,
                None => {
                    let page = self.index.inodes_after(self.last_archived, N_RUNS_READ);
                    let page = page.map_err(PortError::from)?;
                    let Some((last, _)) = page.last().copied() else { return Ok(gone) };
                    self.last_archived = last;
                    self.archived = page.into_iter();
                    continue;
                }
            };
            if last.is_some_and(|last| next > last) {
                return Ok(gone);
            }
            self.archived.next();
            if there.binary_search(&next).is_err() {
                gone.push(FileUpdate { ino: next, change: Change::Gone(self.range.last()) });
            }
        }
        Ok(gone)
    }
}

impl Iterator for Looked<'_> {
    type Item = Result<FileUpdate, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(update) = self.shown.next() {
                return Some(Ok(update));
            }
            match self.next_page() {
                Ok(page) => self.shown = page?.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
