//! Reads what changed from the mounted snapshot and decides which members go into which frame.

use tier_status::{Event, StatusSink};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, ErrorKind, FileKind, FileUpdate, Ino, InodeState,
    MountedSnapshot, PortError, SnapshotReader, to_usize, with_causes,
};

use crate::error::PersistError;
use crate::format::tarball::member::{Member, header_bytes_about};
use crate::write::persister::PersistOptions;
use crate::write::pipeline::Jobs;
use crate::write::plan::{self, PartMembers, PlanLimits, SortKey};

/// Runs that are asked of the snapshot at a time.
const N_RUNS: usize = 1024;
/// Members that are put into a better order before they are cut into frames.
const WINDOW_MEMBERS: usize = 4096;
/// What their headers may take in memory.
const WINDOW_BYTES: usize = 16 << 20;

/// One snapshot's planning.
pub(crate) struct Planner<'a> {
    reader: Box<dyn SnapshotReader + 'a>,
    status: &'a dyn StatusSink,
    limits: PlanLimits,
    frame_bytes: usize,
    window: Vec<(SortKey, Member)>,
    window_bytes: usize,
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
        options: &PersistOptions,
        mounted: &'a dyn MountedSnapshot,
        status: &'a dyn StatusSink,
    ) -> Self {
        let chunk_bytes = mounted.chunk_bytes();
        let frame_bytes = u64::try_from(options.frame_bytes).unwrap_or(u64::MAX);
        Self {
            reader: mounted.reader(),
            status,
            limits: PlanLimits {
                chunk_bytes,
                whole_bytes: options.member_bytes_max,
                part_bytes: frame_bytes.max(u64::from(chunk_bytes)),
                rewrite_bytes: options.rewrite_bytes_max,
                n_runs: 1000,
            },
            frame_bytes: options.frame_bytes,
            window: Vec::new(),
            window_bytes: 0,
            n_inodes: 0,
            failed: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, update: &FileUpdate, jobs: &mut Jobs) -> Result<(), PersistError> {
        let added = match &update.change {
            Change::Gone(xid) => {
                let member = Member { gone: Some(*xid), ..Member::of(update.ino) };
                let key = SortKey { ino: update.ino, ..SortKey::default() };
                self.put(key, member, jobs).map_err(InodeError::from)
            }
            Change::Touched(ranges) => self.add_inode(update.ino, ranges, jobs),
        };
        self.n_inodes += 1;
        match added {
            Ok(()) => Ok(()),
            Err(InodeError::Inode(error)) if error.kind() != ErrorKind::Cancelled => {
                let ino = update.ino.get();
                self.status.report(Event::InodeFailed { ino, error: with_causes(&error) })?;
                self.failed.push(update.ino);
                Ok(())
            }
            Err(InodeError::Inode(error)) => Err(PersistError::Source(error)),
            Err(InodeError::Fatal(error)) => Err(error),
        }
    }

    /// Hands over what is left.
    pub(crate) fn finish(&mut self, jobs: &mut Jobs) -> Result<(), PersistError> {
        self.flush_window(jobs)
    }

    fn add_inode(
        &mut self,
        ino: Ino,
        touched: &[ChunkRange],
        jobs: &mut Jobs,
    ) -> Result<(), InodeError> {
        // One that failed in an earlier snapshot may be gone by now.
        let Some(inode) = self.reader.inode(ino).map_err(InodeError::Inode)? else {
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
        let path = plan::member_path(inode, self.reader.path(inode.attr.ino)?);
        let Some(path) = path else { return Ok(None) };
        let mut runs = Vec::new();
        if regular {
            runs = self.reader.chunk_runs(inode.attr.ino, ChunkNo::new(0), N_RUNS)?;
            let complete = runs.last().is_some_and(|run| run.chunks.end() == ChunkNo::END);
            if !complete {
                return Ok(None);
            }
        }
        let member = plan::whole_member(inode, path, &runs, touched, &self.limits);
        let Some(mut member) = member else { return Ok(None) };
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
        if inode.links.len() < 2 || matches!(inode.attr.kind, FileKind::Directory) {
            return Ok(paths);
        }
        for link in &inode.links {
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
        jobs: &mut Jobs,
    ) -> Result<(), InodeError> {
        let ino = inode.attr.ino;
        let key = SortKey::of(inode);
        let mut parts = PartMembers::new(inode, self.limits);
        for range in touched {
            let mut at = Some(*range);
            while let Some(rest) = at {
                let runs = self.reader.chunk_runs(ino, rest.start(), N_RUNS);
                let runs = runs.map_err(InodeError::Inode)?;
                let end = runs.last().map_or(rest.end(), |run| run.chunks.end());
                for run in runs {
                    let Some(chunks) = run.chunks.intersection(rest) else { continue };
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

    fn put(&mut self, key: SortKey, member: Member, jobs: &mut Jobs) -> Result<(), PersistError> {
        let path_bytes = member.other_paths.iter().map(Vec::len).sum::<usize>();
        self.window_bytes += header_bytes_about(&member) + path_bytes;
        self.window.push((key, member));
        let full = self.window.len() >= WINDOW_MEMBERS || self.window_bytes >= WINDOW_BYTES;
        if full { self.flush_window(jobs) } else { Ok(()) }
    }

    /// Cuts members into frames, by directory and then by type: what is alike compresses better
    /// next to each other, and what lies together is often read together. Small members share a
    /// frame, a large one has its own.
    fn flush_window(&mut self, jobs: &mut Jobs) -> Result<(), PersistError> {
        self.window.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.window_bytes = 0;
        let mut frame = Frame::default();
        for (_, member) in self.window.drain(..) {
            if to_usize(member.data_bytes) >= self.frame_bytes / 2 {
                frame.large.push(member);
                continue;
            }
            let member_bytes = header_bytes_about(&member) + to_usize(member.data_bytes);
            if frame.bytes + member_bytes > self.frame_bytes {
                std::mem::take(&mut frame).push_to(jobs)?;
            }
            frame.bytes += member_bytes;
            frame.small.push(member);
        }
        frame.push_to(jobs)
    }
}

/// A frame that is being put together, and the large members that come after it.
#[derive(Default)]
struct Frame {
    small: Vec<Member>,
    bytes: usize,
    large: Vec<Member>,
}

impl Frame {
    fn push_to(self, jobs: &mut Jobs) -> Result<(), PersistError> {
        if !self.small.is_empty() {
            jobs.push(self.small)?;
        }
        self.large.into_iter().try_for_each(|member| jobs.push(vec![member]))
    }
}
