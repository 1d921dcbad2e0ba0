//! Writes of file data.
//!
//! A write replaces whole chunks without a look at what was there. Of the chunks at its ends that
//! keep other bytes, one that is in the store gets a patch, so that nothing is read either; only
//! one that was evicted has to come back first. One that is lost can be replaced as a whole, and not
//! in part: the rest of it would have no content.

use tier_log::Operation;
use tier_types::{ChunkNo, ChunkRange, ChunkState, Ino, to_u64, to_usize};

use super::change::{Blocking, Decision, edges, end_of};
use crate::FsError;
use crate::core::Kvfs;
use crate::tx::patch;

/// What a write puts into a chunk.
struct Piece {
    chunk: ChunkNo,
    content: PieceContent,
}

enum PieceContent {
    /// All of the chunk's content.
    Whole(Vec<u8>),
    /// A change of its content.
    Patch(Vec<u8>),
}

impl Kvfs {
    /// Writes all of `data` at `offset`.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<(), FsError> {
        self.write_with(Blocking::Blocking, ino, offset, data)
    }

    /// The same with a say in whether it waits for what was evicted.
    pub fn write_with(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        // Before any lock: what makes room must not wait for a writer that waits for room.
        self.check_room()?;
        let chunk_bytes = self.chunk_bytes;
        let len = to_u64(data.len());
        let end = end_of(offset, len)?;
        let Some(chunks) = ChunkRange::touching(offset, len, chunk_bytes) else {
            return Ok(());
        };
        self.note_use(ino);
        self.change(blocking, ino, chunks, |attr, window| {
            let size = attr.size_bytes;
            // What is at the edges of the write stays; if it is in the store, it is not read.
            let stays = |chunk: ChunkNo| {
                let start = chunk.get() * u64::from(chunk_bytes);
                let chunk_end = (start + u64::from(chunk_bytes)).min(size);
                start < chunk_end && (start < offset || end < chunk_end)
            };
            let mut patched = Vec::new();
            for edge in edges(window).into_iter().filter(|edge| stays(edge.chunk)) {
                match edge.run.state {
                    ChunkState::Hole => {}
                    ChunkState::Hot | ChunkState::Warm => patched.push(edge.chunk),
                    ChunkState::Cold => return Ok(Decision::Recall(edge.alone())),
                    ChunkState::Lost => return Err(window.lost(&edge.alone())),
                }
            }
            // The data is copied here and not before: a write that finds cold chunks comes again.
            let new = pieces(chunks, chunk_bytes, offset, data, &patched);
            let mut attr = attr.clone();
            attr.size_bytes = size.max(end);
            Ok(Decision::Commit(Box::new(move |draft, window| {
                draft.log(Operation::Write { ino, offset, len });
                window.set(ChunkState::Hot, attr.size_bytes, draft);
                for Piece { chunk, content } in new {
                    match content {
                        PieceContent::Whole(bytes) => draft.put_chunk(ino, chunk, bytes),
                        PieceContent::Patch(patch) => draft.patch_chunk(ino, chunk, patch),
                    }
                }
                attr.modified = draft.time;
                draft.put_changed(&mut attr);
            })))
        })
    }
}

/// What a write puts into every chunk that it touches; `patched` ones keep the rest of their
/// content, of the others there is none to keep.
fn pieces(
    chunks: ChunkRange,
    chunk_bytes: u32,
    offset: u64,
    data: &[u8],
    patched: &[ChunkNo],
) -> Vec<Piece> {
    let chunk_len = to_usize(u64::from(chunk_bytes));
    let mut within = offset - chunks.offset_bytes(chunk_bytes);
    let mut rest = data;
    let mut new = Vec::with_capacity(to_usize(chunks.len()));
    for number in chunks.start().get()..chunks.end().get() {
        let chunk = ChunkNo::new(number);
        let room = chunk_len - to_usize(within);
        let (piece, after) = rest.split_at(room.min(rest.len()));
        rest = after;
        let content = if patched.contains(&chunk) {
            PieceContent::Patch(patch(within, piece))
        } else {
            let mut bytes = Vec::with_capacity(to_usize(within) + piece.len());
            bytes.resize(to_usize(within), 0);
            bytes.extend_from_slice(piece);
            PieceContent::Whole(bytes)
        };
        new.push(Piece { chunk, content });
        // All chunks but the first are written from their start.
        within = 0;
    }
    assert!(rest.is_empty(), "the chunks hold all of the data");
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_cut_at_the_ends_of_chunks() {
        let chunks = ChunkRange::touching(3, 10, 4).unwrap();
        let new = pieces(chunks, 4, 3, b"0123456789", &[ChunkNo::new(0)]);
        let contents: Vec<_> = new
            .into_iter()
            .map(|piece| match piece.content {
                PieceContent::Whole(bytes) | PieceContent::Patch(bytes) => bytes,
            })
            .collect();
        assert_eq!(
            contents,
            [b"\x03\0\0\x000".to_vec(), b"1234".into(), b"5678".into(), b"9".into()]
        );
    }

    #[test]
    fn what_lies_before_a_write_into_nothing_is_zeros() {
        let chunks = ChunkRange::touching(6, 1, 4).unwrap();
        let new = pieces(chunks, 4, 6, b"x", &[]);
        let [Piece { content: PieceContent::Whole(bytes), .. }] = &new[..] else {
            panic!("one whole chunk");
        };
        assert_eq!(bytes, b"\0\0x");
    }
}
