//! Reads what changed from the mounted snapshot and writes it into tarballs.

use std::collections::VecDeque;

use tier_status::{Event, Progress, StatusSink};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, ErrorKind, FileKind, FileUpdate, InodeState,
    MountedSnapshot, PortError, to_usize, with_causes,
};

use crate::persister::{PersistOptions, PersistReport};
use crate::plan::{self, PartMembers, PlanLimits};
use crate::tarball::{
    Member, PendingTarball, TarballIdentity, TarballRow, TarballWriter, WriterContext,
};
use crate::{PersistError, names};

/// Runs that are asked of the snapshot at a time.
const N_RUNS: usize = 1024;
/// Tarballs whose last bytes are still on their way while the next one is built.
const N_PENDING_MAX: usize = 1;

/// One snapshot on its way.
pub(crate) struct SnapshotWriter<'a> {
    options: PersistOptions,
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

impl<'a> SnapshotWriter<'a> {
    pub(crate) fn new(
        options: PersistOptions,
        context: &'a WriterContext<'a>,
        identity: TarballIdentity,
        mounted: &'a dyn MountedSnapshot,
        status: &'a dyn StatusSink,
    ) -> Self {
        let chunk_bytes = identity.chunk_bytes;
        Self {
            options,
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

    pub(crate) fn add(&mut self, update: &FileUpdate) -> Result<(), PersistError> {
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
                self.status.report(Event::InodeFailed { ino, error: with_causes(&error) })?;
                self.report.failed.push(update.ino);
                Ok(())
            }
            Err(InodeError::Inode(error)) => Err(PersistError::Source(error)),
            Err(InodeError::Fatal(error)) => Err(error),
        }
    }

    fn add_inode(&mut self, update: &FileUpdate) -> Result<(), InodeError> {
        let ino = update.ino;
        // One that failed in an earlier snapshot may be gone by now.
        let Some(inode) = self.mounted.inode(ino).map_err(InodeError::Inode)? else {
            return Ok(());
        };
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
        let regular = matches!(inode.attr.kind, FileKind::Regular);
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
        let directory = matches!(inode.attr.kind, FileKind::Directory);
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
        let options = &self.options;
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
        let name = names::tarball_name(self.identity.filesystem, row.id, row.encrypted);
        self.status.report(Event::TarballSealed {
            name: name.to_string(),
            bytes: row.object_bytes,
            n_members: row.n_members,
        })?;
        self.done.push(row);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(Vec<TarballRow>, PersistReport), PersistError> {
        self.end_tarball()?;
        while !self.pending.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok((self.done, self.report))
    }
}
