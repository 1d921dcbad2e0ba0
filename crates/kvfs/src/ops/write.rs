//! Writes of file data.
//!
//! A write replaces whole chunks: their bytes go to an extent file before anything else, and of
//! what was there only the rows are read, to know which extents become free. Of the chunks at its
//! ends that keep other bytes, one that is in the store gets a patch, so that nothing of it is
//! read; only one that was evicted has to come back first. One that is lost can be replaced as a
//! whole, and not in part: the rest of it would have no content.

use std::collections::BTreeMap;
use tier_log::Operation;

use tier_types::{ChunkNo, ChunkRange, ChunkState, FileAttr, Ino, to_u64, to_usize};

use super::change::{Blocking, Decision, RoomWanted, edges, end_of};
use crate::FsError;
use crate::core::{Core, Kvfs};
use crate::store::extents::ChunkExtent;
use crate::store::{ChunkBefore, RunState};
use crate::tx::{MapWindow, patch};

/// What a write puts where.
struct Pieces<'a> {
    /// Of chunks that it writes in part.
    edges: Vec<Piece>,
    /// The first chunk that it writes from its start, and the bytes from there on.
    first: ChunkNo,
    whole: &'a [u8],
}

/// What a write puts into a chunk at one of its ends.
struct Piece {
    chunk: ChunkNo,
    content: PieceContent,
}

/// What was in the chunks that a write replaces, each of them.
struct Replaced(BTreeMap<ChunkNo, ChunkBefore>);

impl Replaced {
    #[expect(clippy::expect_used, reason = "the window covers all chunks of the write")]
    fn of(&self, chunk: ChunkNo) -> ChunkBefore {
        self.0.get(&chunk).expect("a chunk of the window that is not patched").clone()
    }
}

enum PieceContent {
    /// A change of nothing: zeros lie before it.
    OfNothing(Vec<u8>),
    /// A change of what the chunk holds.
    OfContent(Vec<u8>),
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
        let chunk_bytes = self.chunk_bytes;
        let len = to_u64(data.len());
        let end = end_of(offset, len)?;
        let Some(chunks) = ChunkRange::touching(offset, len, chunk_bytes) else {
            return Ok(());
        };
        self.note_use(ino);
        let scope = |_: &FileAttr| Ok(chunks);
        self.change(RoomWanted::growth(len), blocking, ino, scope, |attr, window| {
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
            let Pieces { edges, first, whole } =
                pieces(chunks, chunk_bytes, offset, data, &patched);
            let (before, freed) = self.chunks_before(window, &patched)?;
            let new = self.chunk_writer.write(first, whole)?;
            let mut attr = attr.clone();
            attr.size_bytes = size.max(end);
            Ok(Decision::Commit(Box::new(move |draft, window| {
                draft.log(Operation::Write { ino, offset, len });
                // Before the new rows: this deletes dead chunks in the range, and of two writes of
                // one key in a batch the later one counts.
                window.set(ChunkState::Hot, attr.size_bytes, draft);
                draft.free(&freed);
                for Piece { chunk, content } in edges {
                    match content {
                        PieceContent::OfNothing(patch) => {
                            // An empty chunk to patch: a patch without a row is taken for damage.
                            draft.put_chunk(ino, chunk, &[]);
                            draft.patch_chunk(ino, chunk, patch);
                        }
                        PieceContent::OfContent(patch) => draft.patch_chunk(ino, chunk, patch),
                    }
                }
                new.put(ino, |chunk| before.of(chunk), draft);
                attr.modified = draft.time;
                draft.put_changed(&mut attr);
            })))
        })
    }
}

impl Core {
    /// What is in the chunks of a window but for those that are patched, and the extents that
    /// become free with them.
    fn chunks_before(
        &self,
        window: &MapWindow,
        patched: &[ChunkNo],
    ) -> Result<(Replaced, Vec<ChunkExtent>), FsError> {
        let ino = window.ino();
        let (mut before, mut freed) = (BTreeMap::new(), Vec::new());
        for run in window.runs() {
            // A chunk of a resident run without a row is damage: undone, it is that again.
            let state = if run.state.is_resident() { ChunkState::Lost } else { run.state };
            let away = RunState { state, data_xid: run.data_xid };
            let numbers = run.chunks.start().get()..run.chunks.end().get();
            let mut replaced = numbers.map(ChunkNo::new).filter(|chunk| !patched.contains(chunk));
            let all = replaced.clone();
            before.extend(all.map(|chunk| (chunk, ChunkBefore::Away(away))));
            // Only chunks at the ends of the window are patched, so that the others are a range.
            let first = replaced.next();
            let last = replaced.next_back().or(first);
            let ends = first.zip(last).filter(|_| run.state.is_resident());
            let chunks = ends.and_then(|(first, last)| ChunkRange::new(first, last.next()));
            let Some(chunks) = chunks else { continue };
            for old in self.reader().old_chunks(ino, chunks)? {
                let chunk = old.chunk;
                freed.extend(old.extent().map(|extent| ChunkExtent { ino, chunk, extent }));
                before.insert(chunk, ChunkBefore::Row(old.row));
            }
        }
        Ok((Replaced(before), freed))
    }
}

/// What a write puts into every chunk that it touches; `patched` ones keep the rest of their
/// content, of the others there is none to keep.
fn pieces<'a>(
    chunks: ChunkRange,
    chunk_bytes: u32,
    offset: u64,
    data: &'a [u8],
    patched: &[ChunkNo],
) -> Pieces<'a> {
    let chunk_len = to_usize(u64::from(chunk_bytes));
    let mut within = offset - chunks.offset_bytes(chunk_bytes);
    let mut rest = data;
    let mut edges = Vec::new();
    let mut first = chunks.end();
    let mut whole_start = data.len();
    let mut whole_end = data.len();
    for number in chunks.start().get()..chunks.end().get() {
        let chunk = ChunkNo::new(number);
        let room = chunk_len - to_usize(within);
        let at = data.len() - rest.len();
        let (piece, after) = rest.split_at(room.min(rest.len()));
        rest = after;
        if patched.contains(&chunk) {
            edges.push(Piece { chunk, content: PieceContent::OfContent(patch(within, piece)) });
            // The last chunk at the latest: what is whole ends before it.
            whole_end = whole_end.min(if first < chunks.end() { at } else { data.len() });
        } else if within > 0 {
            edges.push(Piece { chunk, content: PieceContent::OfNothing(patch(within, piece)) });
        } else if first == chunks.end() {
            (first, whole_start) = (chunk, at);
        }
        // All chunks but the first are written from their start.
        within = 0;
    }
    assert!(rest.is_empty(), "the chunks hold all of the data");
    let (until_end, _) = data.split_at(whole_end);
    let (_, whole) = until_end.split_at(whole_start);
    Pieces { edges, first, whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &Pieces<'_>) -> Vec<(u64, Vec<u8>)> {
        let edges = pieces.edges.iter().map(|piece| match &piece.content {
            PieceContent::OfNothing(bytes) | PieceContent::OfContent(bytes) => {
                (piece.chunk.get(), bytes.clone())
            }
        });
        edges.collect()
    }

    #[test]
    fn a_write_is_cut_at_the_ends_of_chunks() {
        let chunks = ChunkRange::touching(3, 10, 4).unwrap();
        let new = pieces(chunks, 4, 3, b"0123456789", &[ChunkNo::new(0)]);
        assert_eq!(shown(&new), [(0, b"\x03\0\0\x000".to_vec())]);
        assert_eq!((new.first, new.whole), (ChunkNo::new(1), b"123456789".as_slice()));
    }

    #[test]
    fn what_is_whole_ends_before_a_patched_last_chunk() {
        let chunks = ChunkRange::touching(4, 9, 4).unwrap();
        let new = pieces(chunks, 4, 4, b"012345678", &[ChunkNo::new(3)]);
        assert_eq!(shown(&new), [(3, b"\0\0\0\x008".to_vec())]);
        assert_eq!((new.first, new.whole), (ChunkNo::new(1), b"01234567".as_slice()));
        let chunks = ChunkRange::touching(2, 4, 4).unwrap();
        let new = pieces(chunks, 4, 2, b"0123", &[ChunkNo::new(0), ChunkNo::new(1)]);
        assert_eq!(new.edges.len(), 2);
        assert!(new.whole.is_empty());
    }

    #[test]
    fn what_lies_before_a_write_into_nothing_is_zeros() {
        let chunks = ChunkRange::touching(6, 1, 4).unwrap();
        let new = pieces(chunks, 4, 6, b"x", &[]);
        let [Piece { content: PieceContent::OfNothing(patch), .. }] = &new.edges[..] else {
            panic!("one chunk, in part");
        };
        assert_eq!(patch, b"\x02\0\0\0x");
        assert!(new.whole.is_empty());
    }
}
