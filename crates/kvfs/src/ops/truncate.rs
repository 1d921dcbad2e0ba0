//! Changes of a file's size.

use tier_log::Operation;
use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino, to_u64, to_usize};

use super::change::{Blocking, Decision, Edges, RoomWanted};
use crate::FsError;
use crate::core::Kvfs;
use crate::store::FILE_BYTES_MAX;
use crate::store::extents::ChunkExtent;
use crate::tx::{Draft, MapWindow};

/// A cut of a file.
struct Cut {
    /// The chunks from the one in which the file now ends.
    tail: ChunkRange,
    new_bytes: u64,
    /// Bytes of the first chunk of the tail that stay; zero for none of it.
    kept_bytes: u64,
    /// Those bytes, unless the chunk is a hole.
    kept: Option<Vec<u8>>,
    /// What the rows of the tail refer to.
    freed: Vec<ChunkExtent>,
}

impl Kvfs {
    /// Sets the size of a file. What is cut off is gone; what is added reads as zeros.
    pub fn truncate(&self, ino: Ino, new_size: u64) -> Result<(), FsError> {
        self.truncate_with(Blocking::Blocking, ino, new_size)
    }

    /// The same with a say in whether it waits for what was evicted: it does where the new end lies
    /// within a chunk.
    pub fn truncate_with(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        new_size: u64,
    ) -> Result<(), FsError> {
        if new_size > FILE_BYTES_MAX {
            return Err(FsError::TooLarge("the file"));
        }
        let first = ChunkNo::new(new_size / u64::from(self.chunk_bytes));
        let tail = ChunkRange::from(first).ok_or(FsError::TooLarge("the file"))?;
        let kept_bytes = new_size % u64::from(self.chunk_bytes);
        // A look without the lock: what room is asked for need not be exact.
        let cuts_off = new_size < self.reader().regular(ino)?.size_bytes;
        let removal = RoomWanted::removal(self.chunk_bytes);
        let room = if cuts_off { removal } else { RoomWanted::growth(0) };
        self.change(room, blocking, ino, tail, |attr, window| {
            let old_size = attr.size_bytes;
            // A cut at the end of a chunk needs nothing of it, and neither does growth: what lies
            // behind the end of a file reads as zeros, and is not stored.
            let cuts = |run: &ChunkRun, chunk: ChunkNo| {
                new_size < old_size
                    && kept_bytes > 0
                    && chunk == first
                    && run.state != ChunkState::Hole
            };
            let kept = match self.load_edges(window, cuts)? {
                Edges::Cold(run) => return Ok(Decision::Recall(run)),
                Edges::Loaded(mut loaded) => loaded.pop().map(|edge| {
                    let mut content = edge.content;
                    content.truncate(to_usize(kept_bytes));
                    content
                }),
            };
            let freed =
                if new_size < old_size { window.extents(self.reader(), tail)? } else { Vec::new() };
            let cut = Cut { tail, new_bytes: new_size, kept_bytes, kept, freed };
            let mut attr = attr.clone();
            attr.size_bytes = new_size;
            Ok(Decision::Commit(Box::new(move |draft, window| {
                draft.log(Operation::Truncate { ino, old_size, new_size });
                if new_size < old_size {
                    cut.apply(window, draft);
                } else {
                    window.grow(new_size, None, draft);
                }
                attr.modified = draft.time;
                draft.put_changed(&mut attr);
            })))
        })
    }
}

impl Cut {
    /// The first chunk of the tail keeps some bytes, the rest is a hole.
    fn apply(self, window: &MapWindow, draft: &mut Draft) {
        let Self { tail, new_bytes, kept_bytes, kept, freed } = self;
        // Of the chunk in which the file ends now, too: what is kept of it goes into its row.
        draft.free(&freed);
        assert!(kept.as_ref().is_none_or(|kept| to_u64(kept.len()) <= kept_bytes), "it is cut");
        let first = ChunkRange::one(tail.start()).filter(|_| kept_bytes > 0);
        let gone = first.map_or(Some(tail), |first| ChunkRange::from(first.end()));
        let Some(gone) = gone else { return };
        let mut runs = Vec::new();
        if let (Some(first), Some(content)) = (first, kept) {
            runs.push(ChunkRun { chunks: first, state: ChunkState::Hot, data_xid: draft.xid });
            draft.put_chunk(window.ino(), first.start(), &content);
        } else if let Some(first) = first {
            // It was a hole and stays what it was.
            let old = window.runs().first().map(|run| ChunkRun { chunks: first, ..*run });
            runs.extend(old);
        }
        // With the xid of the cut: a hole, too, has a version, by which the archive learns of it.
        runs.push(ChunkRun { chunks: gone, state: ChunkState::Hole, data_xid: draft.xid });
        window.delete_chunks(gone, draft);
        window.replace(&runs, new_bytes, draft);
    }
}
