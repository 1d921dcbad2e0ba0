//! The planner: reads what changed from the mounted snapshot, and hands out jobs.
//!
//! It is the one serial stage of persisting, so it reads metadata and chunk maps only, never data.
//! What it decides is pure and elsewhere: which members an inode becomes ([`crate::write::plan`]),
//! and which members share a frame ([`crate::write::framing`]). An inode that cannot be read is
//! reported, left out, and tried again with the next snapshot; only the end of the whole work is an
//! error.

use tier_status::{Event, StatusSink};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, ErrorKind, FileKind, FileUpdate, Ino, InodeState,
    MountedSnapshot, PortError, SnapshotReader, with_causes,
};

use crate::error::PersistError;
use crate::format::tarball::member::Member;
use crate::write::framing::{SortKey, Window};
use crate::write::limits::{Limits, MemberLimits, RUNS_PER_READ};
use crate::write::member_data::ends_the_attempt;
use crate::write::pipeline::jobs::JobQueue;
use crate::write::plan::{self, PartMembers};

/// One snapshot's planning.
pub(crate) struct Planner<'a> {
    reader: Box<dyn SnapshotReader + 'a>,
    status: &'a dyn StatusSink,
    limits: MemberLimits,
    window: Window,
    n_inodes: u64,
    failed: Vec<Ino>,
}

/// What was planned.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Updates, those that failed included.
    pub(crate) n_inodes: u64,
    /// Inodes that could not be read.
    pub(crate) failed: Vec<Ino>,
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

impl<'a> Planner<'a> {
    pub(crate) fn new(
        limits: &Limits,
        mounted: &'a dyn MountedSnapshot,
        status: &'a dyn StatusSink,
    ) -> Self {
        Self {
            reader: mounted.reader(),
            status,
            limits: limits.member,
            window: Window::new(limits.frame.frame_bytes),
            n_inodes: 0,
            failed: Vec::new(),
        }
    }

    /// Plans one inode. Its members are handed out when the window is full, at the latest by
    /// [`finish`](Self::finish).
    pub(crate) fn add(
        &mut self,
        update: &FileUpdate,
        jobs: &mut JobQueue,
    ) -> Result<(), PersistError> {
        let added = match &update.change {
            // Tombstones have no directory any more, and go first.
            Change::Gone(xid) => {
                let member = Member { gone: Some(*xid), ..Member::of(update.ino) };
                let key = SortKey { ino: update.ino, ..SortKey::default() };
                self.put(key, member, jobs).map_err(InodeError::from)
            }
            Change::Touched(ranges) => self.add_inode(update.ino, ranges, jobs),
        };
        // Also if it fails: the report takes those that failed off again.
        self.n_inodes += 1;
        match added {
            Ok(()) => Ok(()),
            // One bad inode must not keep the others from being persisted.
            Err(InodeError::Inode(error)) if !ends_the_attempt(error.kind()) => {
                let ino = update.ino.get();
                self.status.report(Event::InodeFailed { ino, error: with_causes(&error) })?;
                self.failed.push(update.ino);
                Ok(())
            }
            Err(InodeError::Inode(error)) => Err(PersistError::Source(error)),
            Err(InodeError::Fatal(error)) => Err(error),
        }
    }

    /// Hands out what is left.
    pub(crate) fn finish(mut self, jobs: &mut JobQueue) -> Result<Planned, PersistError> {
        self.flush_window(jobs)?;
        Ok(Planned { n_inodes: self.n_inodes, failed: self.failed })
    }

    fn add_inode(
        &mut self,
        ino: Ino,
        touched: &[ChunkRange],
        jobs: &mut JobQueue,
    ) -> Result<(), InodeError> {
        // One that failed in an earlier snapshot may be gone by now.
        let Some(inode) = self.reader.inode(ino).map_err(InodeError::Inode)? else {
            tracing::debug!(%ino, "nothing to persist of an inode that is not there");
            return Ok(());
        };
        match self.whole(&inode, touched).map_err(InodeError::Inode)? {
            Some(member) => Ok(self.put(SortKey::of(&inode), member, jobs)?),
            None => self.add_parts(&inode, touched, jobs),
        }
    }

    /// The inode as one member under its own path, if it can be.
    fn whole(
        &mut self,
        inode: &InodeState,
        touched: &[ChunkRange],
    ) -> Result<Option<Member>, PortError> {
        let regular = matches!(inode.attr.kind, FileKind::Regular);
        // The path decides: without one the inode lies under its number, in parts.
        let Some(path) = plan::member_path(inode, self.reader.path(inode.attr.ino)?) else {
            return Ok(None);
        };
        let mut runs = Vec::new();
        if regular {
            let first = self.chunk_runs(inode.attr.ino, ChunkNo::new(0))?;
            // So many runs do not fit into one member's header.
            if first.end < ChunkNo::END {
                return Ok(None);
            }
            runs = first.runs;
        }
        let Some(mut member) = plan::whole_member(inode, path, &runs, touched, &self.limits) else {
            return Ok(None);
        };
        member.other_paths = self.other_paths(inode, &member)?;
        Ok(Some(member))
    }

    /// The paths of the other links of a whole inode.
    fn other_paths(
        &mut self,
        inode: &InodeState,
        member: &Member,
    ) -> Result<Vec<Vec<u8>>, PortError> {
        let mut paths = Vec::new();
        // A directory has one name, whatever its links say.
        if inode.links.len() < 2 || matches!(inode.attr.kind, FileKind::Directory) {
            return Ok(paths);
        }
        for link in &inode.links {
            // A name in a directory that has none itself is no path. `TIER.links` has it all the
            // same.
            let Some(mut path) = self.reader.path(link.parent)? else { continue };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(link.name.as_bytes());
            let path = plan::member_path(inode, Some(path));
            paths.extend(path.filter(|path| Some(path) != member.whole_path.as_ref()));
        }
        Ok(paths)
    }

    fn add_parts(
        &mut self,
        inode: &InodeState,
        touched: &[ChunkRange],
        jobs: &mut JobQueue,
    ) -> Result<(), InodeError> {
        let ino = inode.attr.ino;
        let key = SortKey::of(inode);
        let mut parts = PartMembers::new(inode, self.limits);
        for range in touched {
            let mut at = Some(*range);
            while let Some(rest) = at {
                let runs = self.chunk_runs(ino, rest.start()).map_err(InodeError::Inode)?;
                // The last run may go on behind the range that changed.
                let end = runs.end;
                for run in runs.runs {
                    let Some(chunks) = run.chunks.intersection(rest) else { continue };
                    // Members that are full go out while the rest of the file is still planned.
                    for member in parts.add(&ChunkRun { chunks, ..run }) {
                        self.put(key.clone(), member, jobs)?;
                    }
                }
                at = ChunkRange::new(end, rest.end());
            }
        }
        if let Some(member) = parts.finish() {
            self.put(key, member, jobs)?;
        }
        Ok(())
    }

    /// The first runs of the chunk map from a chunk on. The map is total: one that is empty, or
    /// leaves chunks out, would silently lose what they hold.
    fn chunk_runs(&mut self, ino: Ino, from: ChunkNo) -> Result<MapRuns, PortError> {
        let runs = self.reader.chunk_runs(ino, from, RUNS_PER_READ)?;
        let mut end = from;
        for run in &runs {
            if run.chunks.start() != end {
                return Err(gap(ino, end));
            }
            end = run.chunks.end();
        }
        if end == from {
            return Err(gap(ino, end));
        }
        Ok(MapRuns { runs, end })
    }

    fn put(
        &mut self,
        key: SortKey,
        member: Member,
        jobs: &mut JobQueue,
    ) -> Result<(), PersistError> {
        self.window.add(key, member);
        if self.window.is_full() { self.flush_window(jobs) } else { Ok(()) }
    }

    fn flush_window(&mut self, jobs: &mut JobQueue) -> Result<(), PersistError> {
        self.window.take_frames().into_iter().try_for_each(|members| jobs.push(members))
    }
}

/// Adjacent runs of a chunk map.
struct MapRuns {
    runs: Vec<ChunkRun>,
    /// The chunk after the last of them.
    end: ChunkNo,
}

fn gap(ino: Ino, at: ChunkNo) -> PortError {
    let message = format!("the chunk map of inode {ino} says nothing of chunk {at}");
    PortError::new(ErrorKind::Damaged, message)
}
