//! Reads of file data.
//!
//! A read takes no lock. It takes a KVS snapshot, so that map and chunks belong together whatever
//! is evicted, recalled or written meanwhile, and returns the state of one moment. Chunks that are
//! in the store come from the snapshot, holes are zeros, what is lost is an error, and evicted ones
//! come from the archive in exactly the version that the snapshot's map names. If the archive does
//! not have that version any more because the file has changed, the read starts over with a new
//! snapshot.

use tier_types::{ChunkRange, ChunkState, Ino, RecallHint, to_u64, to_usize};

use super::change::{Blocking, N_ATTEMPTS, RecallWish};
use crate::FsError;
use crate::core::Kvfs;
use crate::store::{KvsSnapshot, StoreReader};

impl Kvfs {
    /// Up to `len` bytes from `offset` on; fewer at the end of the file. What was evicted comes
    /// back.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
        self.read_with(Blocking::Blocking, ino, offset, len)
    }

    /// The same with a say in whether it waits for what was evicted.
    pub fn read_with(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, FsError> {
        self.note_use(ino);
        for _ in 0..N_ATTEMPTS {
            match self.read_once(blocking, ino, offset, len) {
                // The snapshot ended with the database that it was of.
                Ok(None) | Err(FsError::Reopened) => {}
                Ok(Some(data)) => return Ok(data),
                Err(error) => return Err(error),
            }
        }
        Err(FsError::Contended { ino, problem: "changes faster than it can be read" })
    }

    /// `None` if the file changed so that the archive has its old data no more.
    fn read_once(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, FsError> {
        // A snapshot, so that no eviction comes between the map and the data.
        let snapshot = KvsSnapshot::take(&self.db)?;
        let attr = snapshot.reader().regular(ino)?;
        let end = offset.saturating_add(to_u64(len)).min(attr.size_bytes);
        let bytes = end.saturating_sub(offset);
        let Some(chunks) = ChunkRange::touching(offset, bytes, self.chunk_bytes) else {
            return Ok(Some(Vec::new()));
        };
        let data = self.read_runs(snapshot.reader(), blocking, ino, chunks);
        let skip = offset - chunks.offset_bytes(self.chunk_bytes);
        let data = self.unless_changed(&attr, data)?;
        Ok(data.map(|data| cut_out(data, to_usize(skip), to_usize(bytes))))
    }

    /// The whole of these chunks.
    fn read_runs(
        &self,
        reader: StoreReader<'_>,
        blocking: Blocking<'_>,
        ino: Ino,
        chunks: ChunkRange,
    ) -> Result<Vec<u8>, FsError> {
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let mut out = Vec::with_capacity(to_usize(chunks.len()) * chunk_bytes);
        for run in reader.runs_in(ino, chunks)? {
            let n_chunks = to_usize(run.chunks.end().get() - chunks.start().get());
            let end = n_chunks * chunk_bytes;
            match run.state {
                // A cold run is read from the archive, whatever became of it in the store since
                // this snapshot: the bytes of a version are the same in both.
                ChunkState::Hole => out.resize(end, 0),
                ChunkState::Hot | ChunkState::Warm => {
                    reader.read_chunks(ino, run.chunks, self.chunk_bytes, &mut out)?;
                    // The last chunk came as long as it is stored.
                    out.resize(end, 0);
                }
                ChunkState::Cold if blocking.is_allowed() => {
                    let wish = RecallWish { call: blocking.call(), hint: RecallHint::Unknown };
                    self.read_cold(&wish, ino, &run, &mut out)?;
                }
                ChunkState::Cold => return Err(FsError::Cold { ino }),
                ChunkState::Lost => {
                    let file_bytes = reader.regular(ino)?.size_bytes;
                    return Err(FsError::lost_range(ino, run.chunks, self.chunk_bytes, file_bytes));
                }
            }
            assert_eq!(out.len(), end, "each chunk is in its place");
        }
        Ok(out)
    }
}

/// `len` bytes of the data after the first `skip`, in the same memory.
fn cut_out(mut data: Vec<u8>, skip: usize, len: usize) -> Vec<u8> {
    assert!(data.len() >= skip + len, "all bytes of all chunks were read");
    data.truncate(skip + len);
    data.drain(..skip);
    data
}
