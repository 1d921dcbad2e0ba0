//! The ports of the way back: recall of evicted data, and what is known to be archived.
//!
//! Both speak of data by inode, chunks and *data xid*: the transaction that last changed it. A
//! detour holds this number, and so does the archive's index. Data is evicted only where
//! [`Persisted`] says that exactly this version can be read back, and [`Recall`] brings back
//! exactly this version or an error; neither ever answers for "the newest". Together they make
//! eviction safe without a lock between filesystem and archive: a version is immutable, whatever is
//! written or archived meanwhile.

use std::iter;

use crate::{Call, ChunkRange, ErrorKind, Ino, PortError, SnapshotId, Xid, to_u64, to_usize};

/// Evicted data that a reader wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecallRequest {
    /// Which inode.
    pub ino: Ino,
    /// Which of its chunks.
    pub chunks: ChunkRange,
    /// Exactly which version of them.
    pub data_xid: Xid,
}

/// Data that came back: chunks with bytes for each of them.
///
/// ```
/// use tier_types::{ChunkNo, ChunkRange, ErrorKind, Ino, RecallRequest, RecalledExtent, Xid};
///
/// let chunks = ChunkRange::new(ChunkNo::new(4), ChunkNo::new(6)).expect("two chunks");
/// let request = RecallRequest { ino: Ino::new(9), chunks, data_xid: Xid::new(70) };
/// // Two chunks of 512 bytes, of which the last one ends early.
/// assert!(RecalledExtent::new(&request, chunks, vec![1; 600], 512).is_ok());
/// // The second chunk has no bytes at all: that must not read as zeros.
/// let short = RecalledExtent::new(&request, chunks, vec![1; 512], 512).unwrap_err();
/// assert_eq!(short.kind(), ErrorKind::Damaged);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecalledExtent {
    chunks: ChunkRange,
    bytes: Vec<u8>,
    chunk_bytes: u32,
}

impl RecalledExtent {
    /// The answer to a request. The chunks must include the first one asked for, and may be more or
    /// fewer than were asked for. Every chunk but the last is whole; the last one ends where the
    /// file ended when it was archived, and has at least one byte. Anything else is an error of
    /// kind `Damaged`: bytes that are missing must never read as zeros.
    ///
    /// # Panics
    /// If a chunk has no bytes.
    pub fn new(
        request: &RecallRequest,
        chunks: ChunkRange,
        bytes: Vec<u8>,
        chunk_bytes: u32,
    ) -> Result<Self, PortError> {
        assert!(chunk_bytes > 0, "a chunk has bytes");
        let ino = request.ino;
        // A reader that wants more asks again for the rest: without the first chunk it would ask
        // for the same one for ever.
        if !chunks.contains(request.chunks.start()) {
            let asked = request.chunks;
            let message = format!("inode {ino}: chunks {chunks} came where {asked} were asked for");
            return Err(PortError::new(ErrorKind::Damaged, message));
        }
        // The last chunk has at least one byte: with none it would not be a chunk that came.
        let whole = chunks.len().saturating_mul(u64::from(chunk_bytes));
        let all_but_last = whole.saturating_sub(u64::from(chunk_bytes));
        let n = to_u64(bytes.len());
        // A range that no memory can hold saturates the product, and no number of bytes fits it.
        if n <= all_but_last || n > whole {
            let message = format!(
                "inode {ino}: {n} bytes came for chunks {chunks} of {chunk_bytes} bytes each"
            );
            return Err(PortError::new(ErrorKind::Damaged, message));
        }
        Ok(Self { chunks, bytes, chunk_bytes })
    }

    /// The chunks that came.
    pub fn chunks(&self) -> ChunkRange {
        self.chunks
    }

    /// The bytes of some of them; what is missing of the last chunk to a whole one is zeros.
    ///
    /// # Panics
    /// If they did not all come.
    pub fn bytes_of(&self, chunks: ChunkRange) -> &[u8] {
        assert!(self.chunks.covers(chunks), "{chunks} of {} that came", self.chunks);
        let bytes = |n_chunks: u64| to_usize(n_chunks * u64::from(self.chunk_bytes));
        let start = bytes(chunks.start().get() - self.chunks.start().get());
        let (_, from_start) = self.bytes.split_at(start);
        let (wanted, _) = from_start.split_at(bytes(chunks.len()).min(from_start.len()));
        wanted
    }

    /// Their bytes; what is missing of the last chunk to a whole one is zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What is known of the reader, and so of what it asks for next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum RecallHint {
    /// Nothing: whether it reads in order is seen from what it asks for.
    #[default]
    Unknown,
    /// It reads all of the file, from its start to its end.
    Sequential,
}

/// Brings evicted data back. One answer may serve many waiting readers.
pub trait Recall: Send + Sync {
    /// The data of exactly the version asked for. An error of kind `Missing` says that the archive
    /// has no such version; other data is never returned in its place.
    ///
    /// The call says how urgent it is, how long its caller waits, and what ends that wait before
    /// with an error of kind `Cancelled`. Where several wait for the same data it still comes to
    /// the others.
    fn recall_with(
        &self,
        call: &Call<'_>,
        hint: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError>;

    /// The same for a reader that waits, and of which nothing is known.
    fn recall(&self, request: &RecallRequest) -> Result<RecalledExtent, PortError> {
        self.recall_with(&Call::interactive(), RecallHint::Unknown, request)
    }
}

/// Knows what is safely archived.
pub trait Persisted: Send + Sync {
    /// The first run of these chunks of which exactly this version can be read back from the
    /// archive: from the first such chunk up to the next one that is not archived in this version,
    /// or to the end of `chunks`. `None` if none of them is.
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError>;

    /// Whether exactly this version of all these chunks can be read back from the archive.
    fn is_persisted(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<bool, PortError> {
        Ok(self.first_persisted(ino, chunks, data_xid)? == Some(chunks))
    }

    /// The snapshot that holds the inode's metadata as this transaction left it; `None` if none
    /// does.
    fn snapshot_of(&self, ino: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError>;
}

/// Neighbouring chunks that are alike: each of them is archived in one version, or none is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PersistedPart {
    /// The chunks.
    pub chunks: ChunkRange,
    /// Whether exactly this version of them can be read back from the archive.
    pub is_persisted: bool,
}

/// All of these chunks in parts, in order, by what of exactly this version can be read back from
/// the archive. A part is asked for when it is wanted. After an error there is no next part.
///
/// An archive that answers with chunks it was not asked for is an error of kind `Failed`: data
/// could be evicted by that answer.
pub fn persisted_parts(
    persisted: &dyn Persisted,
    ino: Ino,
    chunks: ChunkRange,
    data_xid: Xid,
) -> impl Iterator<Item = Result<PersistedPart, PortError>> {
    let mut rest = Some(chunks);
    let mut found = None;
    iter::from_fn(move || {
        // Behind a part that is not archived comes the one that ended it.
        if let Some(chunks) = found.take() {
            return Some(Ok(PersistedPart { chunks, is_persisted: true }));
        }
        let asked = rest.take()?;
        let run = match persisted.first_persisted(ino, asked, data_xid) {
            Ok(run) => run,
            Err(error) => return Some(Err(error)),
        };
        let Some(run) = run else {
            return Some(Ok(PersistedPart { chunks: asked, is_persisted: false }));
        };
        if !asked.covers(run) {
            let message = format!(
                "asked for chunks {asked} of inode {ino}, the archive answered with chunks {run}"
            );
            return Some(Err(PortError::new(ErrorKind::Failed, message)));
        }
        rest = ChunkRange::new(run.end(), asked.end());
        match ChunkRange::new(asked.start(), run.start()) {
            Some(chunks) => {
                found = Some(run);
                Some(Ok(PersistedPart { chunks, is_persisted: false }))
            }
            None => Some(Ok(PersistedPart { chunks: run, is_persisted: true })),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChunkNo;

    fn range(start: u64, end: u64) -> ChunkRange {
        ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
    }

    /// Has chunks 2 to 4 and 7, or answers everything with the same chunks.
    struct Archive {
        answer: Option<ChunkRange>,
    }

    impl Persisted for Archive {
        fn first_persisted(
            &self,
            _: Ino,
            chunks: ChunkRange,
            _: Xid,
        ) -> Result<Option<ChunkRange>, PortError> {
            let runs = [range(2, 5), range(7, 8)];
            let found = runs.into_iter().find_map(|run| run.intersection(chunks));
            Ok(self.answer.or(found))
        }

        fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
            Ok(None)
        }
    }

    #[test]
    fn parts_are_all_that_was_asked_for_in_order() {
        let parts = |start, end| -> Vec<_> {
            let archive = Archive { answer: None };
            let parts = persisted_parts(&archive, Ino::new(7), range(start, end), Xid::new(9));
            parts.map(|part| part.unwrap()).map(|part| (part.chunks, part.is_persisted)).collect()
        };
        let all = [
            (range(0, 2), false),
            (range(2, 5), true),
            (range(5, 7), false),
            (range(7, 8), true),
            (range(8, 10), false),
        ];
        assert_eq!(parts(0, 10), all);
        assert_eq!(parts(3, 5), [(range(3, 5), true)]);
        assert_eq!(parts(4, 6), [(range(4, 5), true), (range(5, 6), false)]);
        assert_eq!(parts(5, 7), [(range(5, 7), false)]);
        let archive = Archive { answer: None };
        let is_persisted = |chunks| archive.is_persisted(Ino::new(7), chunks, Xid::new(9)).unwrap();
        assert!(is_persisted(range(2, 5)) && !is_persisted(range(2, 6)));
    }

    #[test]
    fn an_answer_of_chunks_that_were_not_asked_for_is_an_error_and_the_end() {
        let archive = Archive { answer: Some(range(0, 3)) };
        let mut parts = persisted_parts(&archive, Ino::new(7), range(1, 9), Xid::new(9));
        assert_eq!(parts.next().unwrap().unwrap_err().kind(), ErrorKind::Failed);
        assert!(parts.next().is_none());
    }

    #[test]
    fn bytes_must_cover_their_chunks() {
        let request =
            RecallRequest { ino: Ino::new(7), chunks: range(2, 5), data_xid: Xid::new(9) };
        let answer = |chunks, n| RecalledExtent::new(&request, chunks, vec![1; n], 4);
        for (chunks, n) in [(range(2, 5), 12), (range(2, 5), 9), (range(1, 3), 8), (range(2, 3), 1)]
        {
            assert!(answer(chunks, n).is_ok(), "{chunks:?}, {n} bytes");
        }
        for (chunks, n) in [(range(2, 5), 8), (range(2, 5), 13), (range(2, 3), 0), (range(3, 5), 8)]
        {
            let error = answer(chunks, n).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{chunks:?}, {n} bytes");
        }
    }
}
