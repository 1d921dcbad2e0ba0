//! The planner: reads what changed from the mounted snapshot, and hands out jobs.
//!
//! It is the one serial stage of persisting, so it reads metadata and chunk maps only, never data.
//! What it decides is pure and elsewhere: which members an inode becomes ([`crate::write::plan`]),
//! and which members share a frame ([`crate::write::framing`]).
//!
//! **An inode that cannot be planned** (its metadata or its chunk map cannot be read) is reported,
//! left out, and tried again with the next snapshot; the others are persisted. It is left out
//! whole: of a half of its members a restore would make a file of two versions. So members wait in
//! the window, from which they can be taken back, until the inode's map is read to its end. A file
//! whose members are more than a window holds cannot wait that long. Before the first of them are
//! handed out the rest of its map is read once without keeping it, so that a map with a damaged
//! place fails its inode and not the snapshot; if the map can then not be read a second time, the
//! attempt ends with nothing committed.

use tier_status::{Event, StatusSink};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, ErrorKind, FileKind, FileUpdate, Ino, InodeState,
    MountedSnapshot, PortError, SnapshotInode, SnapshotReader, with_causes,
};

use crate::error::PersistError;
use crate::format::tarball::member::Member;
use crate::write::framing::{SortKey, Window};
use crate::write::limits::{Limits, MemberLimits, RUNS_PER_READ};
use crate::write::member_data::ends_the_attempt;
use crate::write::pipeline::jobs::JobQueue;
use crate::write::plan::{self, PartMembers};
use crate::write::touched_runs::{MapRuns, TouchedRuns};

/// One snapshot's planning.
pub(crate) struct Planner<'a> {
    reader: Box<dyn SnapshotReader + 'a>,
    status: &'a dyn StatusSink,
    limits: MemberLimits,
    window: Window,
    n_inodes: u64,
    /// File data of all members so far.
    data_bytes: u64,
    failed: Vec<Ino>,
    unreadable: Vec<Ino>,
}

/// What was planned.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Updates, those that failed included.
    pub(crate) n_inodes: u64,
    /// Inodes that could not be planned, and of which nothing was handed out.
    pub(crate) failed: Vec<Ino>,
    /// Those of them that are damaged.
    pub(crate) unreadable: Vec<Ino>,
    /// The last inode, if there are more.
    pub(crate) covered: Option<Ino>,
}

/// An update, with what the snapshot shows of its inode.
pub(crate) struct ShownUpdate {
    pub(crate) update: FileUpdate,
    /// Nothing, without a look, of an inode that is gone.
    shown: Result<Option<SnapshotInode>, PortError>,
}

/// Why an inode is not in the snapshot: its own fault, while none of its members is handed out, or
/// the end of the work.
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
            data_bytes: 0,
            failed: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// File data that was planned so far, in bytes.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Reads the inodes of some updates, all together.
    pub(crate) fn read(
        &mut self,
        updates: Vec<FileUpdate>,
    ) -> Result<Vec<ShownUpdate>, PersistError> {
        let is_there = |update: &&FileUpdate| matches!(update.change, Change::Touched(_));
        let inodes: Vec<_> = updates.iter().filter(is_there).map(|update| update.ino).collect();
        let answers = self.reader.inodes(&inodes, RUNS_PER_READ);
        // They are told apart by their places: with one too few each would be taken for another's.
        if answers.len() != inodes.len() {
            let (n_asked, n_answers) = (inodes.len(), answers.len());
            let message = format!("a snapshot was asked for {n_asked} inodes and gave {n_answers}");
            return Err(PersistError::Source(PortError::new(ErrorKind::Failed, message)));
        }
        let mut answers = answers.into_iter();
        let show = |update: FileUpdate| {
            let answer = if is_there(&&update) { answers.next() } else { None };
            ShownUpdate { update, shown: answer.unwrap_or(Ok(None)) }
        };
        Ok(updates.into_iter().map(show).collect())
    }

    /// Plans one inode. Its members are handed out when the window is full, at the latest by
    /// [`finish`](Self::finish).
    pub(crate) fn add(
        &mut self,
        ShownUpdate { update, shown }: ShownUpdate,
        jobs: &mut JobQueue,
    ) -> Result<(), PersistError> {
        let n_members = self.window.n_members();
        let FileUpdate { ino, change } = update;
        let added = match change {
            // Tombstones have no directory any more, and go first.
            Change::Gone(xid) => {
                let member = Member { gone: Some(xid), ..Member::of(ino) };
                let key = SortKey { ino, ..SortKey::default() };
                self.put(key, member, jobs).map_err(InodeError::from)
            }
            Change::Touched(ranges) => match shown {
                Ok(Some(inode)) => self.add_inode(inode, &ranges, jobs),
                // One that failed in an earlier snapshot may be gone by now.
                Ok(None) => {
                    tracing::debug!(%ino, "nothing to persist of an inode that is not there");
                    Ok(())
                }
                Err(error) => Err(InodeError::Inode(error)),
            },
        };
        // Also if it fails: the report takes those that failed off again.
        self.n_inodes += 1;
        match added {
            Ok(()) => Ok(()),
            // One bad inode must not keep the others from being persisted.
            Err(InodeError::Inode(error)) if !ends_the_attempt(error.kind()) => {
                // None was handed out: that would have been fatal.
                self.window.truncate(n_members);
                let failed = Event::InodeFailed { ino: ino.get(), error: with_causes(&error) };
                self.status.report(failed)?;
                self.failed.push(ino);
                if error.kind().is_of_object() {
                    self.unreadable.push(ino);
                }
                Ok(())
            }
            Err(InodeError::Inode(error)) => Err(PersistError::Source(error)),
            Err(InodeError::Fatal(error)) => Err(error),
        }
    }

    /// Hands out what is left. `covered` is the last inode, if there are more.
    pub(crate) fn finish(
        mut self,
        covered: Option<Ino>,
        jobs: &mut JobQueue,
    ) -> Result<Planned, PersistError> {
        self.flush_window(jobs)?;
        let Self { n_inodes, failed, unreadable, .. } = self;
        Ok(Planned { n_inodes, failed, unreadable, covered })
    }

    fn add_inode(
        &mut self,
        inode: SnapshotInode,
        touched: &[ChunkRange],
        jobs: &mut JobQueue,
    ) -> Result<(), InodeError> {
        let SnapshotInode { state, path, runs } = inode;
        match self.whole(&state, path, runs, touched).map_err(InodeError::Inode)? {
            Some(member) => Ok(self.put(SortKey::of(&state), member, jobs)?),
            None => self.add_parts(&state, touched, jobs),
        }
    }

    /// The inode as one member under its own path, if it can be.
    fn whole(
        &mut self,
        inode: &InodeState,
        path: Option<Vec<u8>>,
        runs: Vec<ChunkRun>,
        touched: &[ChunkRange],
    ) -> Result<Option<Member>, PortError> {
        // The path decides: without one the inode lies under its number, in parts.
        let Some(path) = plan::member_path(inode, path) else { return Ok(None) };
        let runs = if matches!(inode.attr.kind, FileKind::Regular) {
            let first = MapRuns::checked(inode.attr.ino, ChunkNo::new(0), runs)?;
            // So many runs do not fit into one member's header.
            if first.end < ChunkNo::END {
                return Ok(None);
            }
            first.runs
        } else {
            Vec::new()
        };
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
        let key = SortKey::of(inode);
        let mut parts = PartMembers::new(inode, self.limits);
        let mut map = TouchedRuns::new(inode.attr.ino, touched);
        let mut are_out = false;
        loop {
            let page = map.next_page(self.reader.as_mut()).map_err(|error| {
                if are_out { PersistError::Source(error).into() } else { InodeError::Inode(error) }
            });
            let Some(runs) = page? else { break };
            for member in runs.iter().flat_map(|run| parts.add(run)) {
                self.take(key.clone(), member);
                if self.window.is_full() {
                    if !are_out {
                        map.check(self.reader.as_mut()).map_err(InodeError::Inode)?;
                        are_out = true;
                    }
                    self.flush_window(jobs)?;
                }
            }
        }
        // The map is read: what comes now fails no more.
        if let Some(member) = parts.finish() {
            self.put(key, member, jobs)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        key: SortKey,
        member: Member,
        jobs: &mut JobQueue,
    ) -> Result<(), PersistError> {
        self.take(key, member);
        if self.window.is_full() { self.flush_window(jobs) } else { Ok(()) }
    }

    fn take(&mut self, key: SortKey, member: Member) {
        self.data_bytes = self.data_bytes.saturating_add(member.data_bytes);
        self.window.add(key, member);
    }

    fn flush_window(&mut self, jobs: &mut JobQueue) -> Result<(), PersistError> {
        self.window.take_frames().into_iter().try_for_each(|members| jobs.push(members))
    }
}
