//! The data of a member as it is read from the snapshot: all that can be read, and what is lost.
//!
//! All data of a member is read before any of it counts. A run is read at once; if that fails
//! because stored bytes are damaged or missing, its chunks are asked for one by one, and exactly
//! those that fail are lost. The member is then written without them, and says so: a chunk that
//! cannot be read costs itself, and neither the rest of the file nor its name and attributes.
//!
//! Errors of any other kind say nothing of what is stored. Where the whole snapshot is away or was
//! stopped the attempt ends, because every inode that follows would fail as well, and a manifest
//! without them would offer their older versions. Any other error is the member's own: it is left
//! out, and tried again.
//!
//! What the snapshot gives must be what its map says: every chunk but the file's last one is whole,
//! and none lies behind the end of the file. A snapshot that contradicts itself there, without an
//! error, is believed in nothing: that too is the member's own error.

use std::ops::Range;

use tier_types::{
    ByteRange, ChunkNo, ChunkRange, ErrorKind, Ino, PortError, SnapshotReader, to_u64, to_usize,
};

use crate::format::tarball::member::{Member, Run};

/// Whether an error of a snapshot is one of the snapshot, and not of the inode that was read.
pub(super) fn ends_the_attempt(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Cancelled | ErrorKind::Unavailable)
}

/// What was read of a member.
#[derive(Debug)]
pub(super) struct MemberData {
    /// Where in the buffer its data is, that of all runs that could be read, one after another.
    pub(super) bytes: Range<usize>,
    /// What of its runs could not be read, in order.
    pub(super) lost: Vec<LostRun>,
}

/// Chunks of one run that cannot be read.
#[derive(Debug)]
pub(crate) struct LostRun {
    pub(crate) ino: Ino,
    pub(crate) run: Run,
    /// The same in bytes of the file.
    pub(crate) bytes: ByteRange,
    /// What the first of them said.
    pub(crate) error: PortError,
}

/// Appends all data of a member to the buffer that can be read.
pub(super) fn read(
    member: &Member,
    chunk_bytes: usize,
    reader: &mut dyn SnapshotReader,
    buffer: &mut Vec<u8>,
) -> Result<MemberData, PortError> {
    let begin = buffer.len();
    let mut reading = Reading { ino: member.ino, chunk_bytes, reader, buffer, lost: Vec::new() };
    let mut left = to_usize(member.data_bytes);
    for run in &member.data {
        let whole_bytes = to_usize(run.chunks.len()).saturating_mul(chunk_bytes);
        let run_bytes = whole_bytes.min(left);
        // A map that says more than the file has is not a chunk's fault.
        if whole_bytes - run_bytes >= chunk_bytes {
            return Err(torn(member.ino, "data behind its end"));
        }
        reading.run(*run, run_bytes)?;
        left -= run_bytes;
    }
    assert_eq!(left, 0, "the plan counted the data of the member's runs");
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
    fn run(&mut self, run: Run, run_bytes: usize) -> Result<(), PortError> {
        let Some(error) = self.range(run.chunks, run_bytes)? else { return Ok(()) };
        tracing::debug!(ino = %self.ino, chunks = %run.chunks, %error, "reading chunk by chunk");
        self.chunk_by_chunk(run, run_bytes)
    }

    /// Reads the chunks of a run of which some cannot be read.
    fn chunk_by_chunk(&mut self, run: Run, run_bytes: usize) -> Result<(), PortError> {
        let mut left = run_bytes;
        let numbers = run.chunks.start().get()..run.chunks.end().get();
        for chunk in numbers.filter_map(|number| ChunkRange::one(ChunkNo::new(number))) {
            // The last chunk of the file ends where the file does.
            let n_bytes = left.min(self.chunk_bytes);
            if let Some(error) = self.range(chunk, n_bytes)? {
                self.lose(Run { chunks: chunk, ..run }, n_bytes, error);
            }
            left -= n_bytes;
        }
        assert_eq!(left, 0, "every chunk of a run was asked for");
        Ok(())
    }

    /// Reads exactly so many bytes of these chunks, or none of them and says why: then one of the
    /// chunks at least is lost.
    fn range(
        &mut self,
        chunks: ChunkRange,
        n_bytes: usize,
    ) -> Result<Option<PortError>, PortError> {
        let start = self.buffer.len();
        match self.reader.read_chunks(self.ino, chunks, self.buffer) {
            Ok(()) => {}
            Err(error) if is_lost(&error) => {
                self.buffer.truncate(start);
                return Ok(Some(error));
            }
            Err(error) => return Err(error),
        }
        // The last chunk may be stored shorter than the file is, and longer too.
        let stored = self.buffer.len() - start;
        if n_bytes.saturating_sub(stored) >= self.chunk_bytes {
            return Err(torn(self.ino, "fewer bytes than its map says"));
        }
        // What a chunk lacks to its length is zeros by the port's contract; less than a chunk.
        self.buffer.resize(start + n_bytes, 0);
        Ok(None)
    }

    fn lose(&mut self, run: Run, n_bytes: usize, error: PortError) {
        let len = to_u64(n_bytes);
        // One range for neighbours of one version, however many chunks a bad block held.
        if let Some(last) = self.lost.last_mut()
            && (last.run.chunks.end(), last.run.data_xid) == (run.chunks.start(), run.data_xid)
            && let Some(chunks) = ChunkRange::new(last.run.chunks.start(), run.chunks.end())
        {
            last.run.chunks = chunks;
            last.bytes.len += len;
            return;
        }
        let chunk_bytes = to_u64(self.chunk_bytes);
        let offset = run.chunks.start().get().saturating_mul(chunk_bytes);
        self.lost.push(LostRun { ino: self.ino, run, bytes: ByteRange { offset, len }, error });
    }
}

/// Whether an error says that stored bytes are gone, and not only out of reach.
fn is_lost(error: &PortError) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing)
}

fn torn(ino: Ino, problem: &str) -> PortError {
    PortError::new(ErrorKind::Damaged, format!("inode {ino} has {problem}"))
}
