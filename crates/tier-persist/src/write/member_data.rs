//! The data of a member as it is read from the snapshot: all that can be read, and what is lost.
//!
//! All data of a member is read before any of it counts. A run is read at once; if that fails, its
//! chunks are asked for one by one, and exactly those that fail are lost. The member is then
//! written without them, and says so: a chunk that cannot be read costs itself, and neither the
//! rest of the file nor its name and attributes.
//!
//! A member is never left out. Its inode's metadata may lie in another one, and a restore would
//! serve what an earlier snapshot has of these chunks, older bytes under the new size and the new
//! times, without a word. "Lost", with the data xid of what was not read, outranks all of that, and
//! gives way to the data itself as soon as a snapshot has it.
//!
//! Whether the next snapshot tries again depends on the [`Cause`]. Bytes that are damaged or
//! missing do not become right by themselves. Any other error says nothing of what is stored, so
//! that the inode is on the list of those that are tried again. A snapshot that is away or was
//! stopped ends the attempt, because every inode that follows would fail as well.
//!
//! What the snapshot gives must be what its map says: every chunk but the file's last one is whole,
//! and none lies behind the end of the file. A snapshot that contradicts itself there, without an
//! error, is believed in nothing: all data of the member is lost, and tried again.

use std::ops::Range;

use tier_types::{
    ByteRange, ChunkNo, ChunkRange, ErrorKind, Ino, PortError, SnapshotReader, to_u64, to_usize,
};

use crate::format::tarball::member::{Member, Run};

/// Whether an error of a snapshot is one of the snapshot, and not of the inode that was read.
pub(super) fn ends_the_attempt(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Cancelled | ErrorKind::Away)
}

/// So many chunks of a run are asked for in vain before the rest of it is taken for unreadable.
const N_FAILURES_MAX: usize = 8;

/// What was read of a member.
#[derive(Debug)]
pub(super) struct MemberData {
    /// Where in the buffer its data is, that of all runs that could be read, one after another.
    pub(super) bytes: Range<usize>,
    /// What of its runs could not be read, in order.
    pub(super) lost: Vec<LostRun>,
}

/// Chunks of one run that could not be read.
#[derive(Debug)]
pub(crate) struct LostRun {
    pub(crate) ino: Ino,
    pub(crate) run: Run,
    /// The same in bytes of the file.
    pub(crate) bytes: ByteRange,
    /// What the first of them said.
    pub(crate) error: PortError,
    pub(crate) cause: Cause,
}

/// Why chunks could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// Stored bytes are damaged or missing: another read fails in the same way.
    Damage,
    /// Nothing is known of what is stored: the next snapshot tries again.
    Failure,
}

impl Cause {
    fn of(error: &PortError) -> Self {
        match error.kind() {
            ErrorKind::Damaged | ErrorKind::Missing => Self::Damage,
            ErrorKind::WrongKey
            | ErrorKind::Busy
            | ErrorKind::Away
            | ErrorKind::Throttled { .. }
            | ErrorKind::Frozen { .. }
            | ErrorKind::Denied
            | ErrorKind::Conflict
            | ErrorKind::NoSpace
            | ErrorKind::Cancelled
            | ErrorKind::Failed => Self::Failure,
        }
    }
}

/// Why reading a member stopped half way.
enum Stop {
    /// The whole attempt ends.
    Attempt(PortError),
    /// The snapshot contradicts itself.
    Contradiction(&'static str),
}

/// Appends all data of a member to the buffer that can be read. Only what ends the attempt is an
/// error.
pub(super) fn read(
    member: &Member,
    chunk_bytes: usize,
    reader: &mut dyn SnapshotReader,
    buffer: &mut Vec<u8>,
) -> Result<MemberData, PortError> {
    let begin = buffer.len();
    let mut reading = Reading { ino: member.ino, chunk_bytes, reader, buffer, lost: Vec::new() };
    match reading.member(member) {
        Ok(()) => {}
        Err(Stop::Attempt(error)) => return Err(error),
        Err(Stop::Contradiction(problem)) => {
            reading.buffer.truncate(begin);
            reading.lose_all(member, problem);
        }
    }
    let lost = reading.lost;
    Ok(MemberData { bytes: begin..buffer.len(), lost })
}

struct Reading<'a> {
    ino: Ino,
    chunk_bytes: usize,
    reader: &'a mut dyn SnapshotReader,
    buffer: &'a mut Vec<u8>,
    lost: Vec<LostRun>,
}

impl Reading<'_> {
    fn member(&mut self, member: &Member) -> Result<(), Stop> {
        let mut left = to_usize(member.data_bytes);
        for run in &member.data {
            let whole_bytes = to_usize(run.chunks.len()).saturating_mul(self.chunk_bytes);
            let run_bytes = whole_bytes.min(left);
            // A map that says more than the file has is not a chunk's fault.
            if whole_bytes - run_bytes >= self.chunk_bytes {
                return Err(Stop::Contradiction("data behind its end"));
            }
            self.run(*run, run_bytes)?;
            left -= run_bytes;
        }
        assert_eq!(left, 0, "the plan counted the data of the member's runs");
        Ok(())
    }

    fn run(&mut self, run: Run, run_bytes: usize) -> Result<(), Stop> {
        let Some(error) = self.range(run.chunks, run_bytes)? else { return Ok(()) };
        tracing::debug!(ino = %self.ino, chunks = %run.chunks, %error, "reading chunk by chunk");
        self.chunk_by_chunk(run, run_bytes)
    }

    /// Reads the chunks of a run of which some cannot be read.
    fn chunk_by_chunk(&mut self, run: Run, run_bytes: usize) -> Result<(), Stop> {
        let mut left = run_bytes;
        let mut n_failures = 0;
        let numbers = run.chunks.start().get()..run.chunks.end().get();
        for chunk in numbers.filter_map(|number| ChunkRange::one(ChunkNo::new(number))) {
            // The last chunk of the file ends where the file does.
            let n_bytes = left.min(self.chunk_bytes);
            if let Some(error) = self.range(chunk, n_bytes)? {
                let cause = Cause::of(&error);
                n_failures = if cause == Cause::Failure { n_failures + 1 } else { 0 };
                if n_failures > N_FAILURES_MAX
                    && let Some(rest) = ChunkRange::new(chunk.start(), run.chunks.end())
                {
                    // Each may take as long as a disk takes to give up.
                    self.lose(LostRun {
                        ino: self.ino,
                        run: Run { chunks: rest, ..run },
                        bytes: self.bytes_of(rest, left),
                        error,
                        cause,
                    });
                    return Ok(());
                }
                self.lose(LostRun {
                    ino: self.ino,
                    run: Run { chunks: chunk, ..run },
                    bytes: self.bytes_of(chunk, n_bytes),
                    error,
                    cause,
                });
            }
            left -= n_bytes;
        }
        assert_eq!(left, 0, "every chunk of a run was asked for");
        Ok(())
    }

    /// Reads exactly so many bytes of these chunks, or none of them and says why: then one of the
    /// chunks at least cannot be read.
    fn range(&mut self, chunks: ChunkRange, n_bytes: usize) -> Result<Option<PortError>, Stop> {
        let start = self.buffer.len();
        if let Err(error) = self.reader.read_chunks(self.ino, chunks, self.buffer) {
            if ends_the_attempt(error.kind()) {
                return Err(Stop::Attempt(error));
            }
            self.buffer.truncate(start);
            return Ok(Some(error));
        }
        // The last chunk may be stored shorter than the file is, and longer too.
        let stored = self.buffer.len() - start;
        if n_bytes.saturating_sub(stored) >= self.chunk_bytes {
            return Err(Stop::Contradiction("fewer bytes than its map says"));
        }
        // What a chunk lacks to its length is zeros by the port's contract; less than a chunk.
        self.buffer.resize(start + n_bytes, 0);
        Ok(None)
    }

    /// Loses all runs of a member, whatever was read of them.
    fn lose_all(&mut self, member: &Member, problem: &'static str) {
        self.lost.clear();
        let mut left = to_usize(member.data_bytes);
        for run in &member.data {
            let whole_bytes = to_usize(run.chunks.len()).saturating_mul(self.chunk_bytes);
            // None of a run behind the end of the file.
            let run_bytes = whole_bytes.min(left);
            left -= run_bytes;
            let message = format!("inode {} has {problem}", self.ino);
            self.lose(LostRun {
                ino: self.ino,
                run: *run,
                bytes: self.bytes_of(run.chunks, run_bytes),
                error: PortError::new(ErrorKind::Damaged, message),
                cause: Cause::Failure,
            });
        }
    }

    fn bytes_of(&self, chunks: ChunkRange, n_bytes: usize) -> ByteRange {
        let offset = chunks.start().get().saturating_mul(to_u64(self.chunk_bytes));
        ByteRange { offset, len: to_u64(n_bytes) }
    }

    fn lose(&mut self, lost: LostRun) {
        // One range for neighbours of one version, however many chunks a bad block held.
        if let Some(last) = self.lost.last_mut()
            && last.run.chunks.end() == lost.run.chunks.start()
            && (last.run.data_xid, last.cause) == (lost.run.data_xid, lost.cause)
            && let Some(chunks) = ChunkRange::new(last.run.chunks.start(), lost.run.chunks.end())
        {
            last.run.chunks = chunks;
            last.bytes.len += lost.bytes.len;
            return;
        }
        self.lost.push(lost);
    }
}
