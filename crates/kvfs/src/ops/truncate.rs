//! Changes of a file's size.
//!
//! A cut makes a hole of everything from the new end on. The chunk in which the file now ends keeps
//! its bytes up to there, for which they may have to come back. The runs behind it are replaced if
//! they are few; if not, a cut mark stands for the whole of them, so that a cut costs the same
//! whatever it cuts off, and the reaper deletes them (see `tx::map_window`).
//!
//! The kernel sets other attributes with a size, the times at least. They are one change: a cut
//! that is done, and then reported as failed because the times found no room, would have taken the
//! content of a file that its owner believes unchanged.

use tier_log::Operation;
use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, Ino, to_u64, to_usize};

use super::attr::SetAttr;
use super::change::{Blocking, Decision, Edges, Fill, RoomWanted};
use crate::FsError;
use crate::core::Kvfs;
use crate::store::FILE_BYTES_MAX;
use crate::store::extents::ChunkExtent;
use crate::tx::{Draft, MapWindow};

/// A cut of a file.
struct Cut {
    /// What of it lies behind the window.
    rest: Option<ChunkRange>,
    new_bytes: u64,
    /// Bytes of the first chunk of the window that stay; zero for none of it.
    kept_bytes: u64,
    /// Those bytes, unless the chunk is a hole.
    kept: Option<Vec<u8>>,
    /// What the rows of the window refer to.
    freed: Vec<ChunkExtent>,
}

impl Kvfs {
    /// Sets the size of a file. What is cut off is gone; what is added reads as zeros.
    pub fn truncate(&self, ino: Ino, new_size: u64) -> Result<(), FsError> {
        self.truncate_with(Blocking::Blocking, ino, new_size, &SetAttr::default())
    }

    /// The same, and attributes that are set with it, with a say in whether it waits for what was
    /// evicted: it does where the new end lies within a chunk.
    pub fn truncate_with(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        new_size: u64,
        set: &SetAttr,
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
        let edge = ChunkRange::one(first).ok_or(FsError::TooLarge("the file"))?;
        let scope = |attr: &FileAttr| {
            // Growth needs only the end of the file, whatever is stored behind it.
            if new_size < attr.size_bytes { self.hole_scope(ino, tail) } else { Ok(edge) }
        };
        self.change(room, blocking, ino, scope, |attr, window| {
            let old_size = attr.size_bytes;
            // A cut at the end of a chunk needs nothing of it, and neither does growth: what lies
            // behind the end of a file reads as zeros, and is not stored.
            let cuts = |run: &ChunkRun, chunk: ChunkNo| {
                new_size < old_size
                    && kept_bytes > 0
                    && chunk == first
                    && run.state != ChunkState::Hole
            };
            let rest = ChunkRange::new(window.range().end(), tail.end());
            let rest = rest.filter(|_| new_size < old_size);
            if rest.is_some() && !window.has_room_for_mark() {
                return Ok(Decision::Settle);
            }
            let kept = match self.load_edges(window, cuts)? {
                Edges::Cold(run) => return Ok(Decision::Recall(run)),
                Edges::Loaded(mut loaded) => loaded.pop().map(|edge| {
                    let mut content = edge.content;
                    content.truncate(to_usize(kept_bytes));
                    content
                }),
            };
            let freed = if new_size < old_size {
                window.extents(self.reader(), window.range())?
            } else {
                Vec::new()
            };
            let cut = Cut { rest, new_bytes: new_size, kept_bytes, kept, freed };
            let mut new = self.new_attributes(attr.clone(), set)?;
            new.attr.size_bytes = new_size;
            let modified = set.modified;
            let fill: Fill = Box::new(move |draft, window| {
                draft.log(Operation::Truncate { ino, old_size, new_size });
                if new_size < old_size {
                    cut.apply(window, draft);
                } else {
                    window.grow(new_size, None, draft);
                }
                new.attr.modified = modified.unwrap_or(draft.time);
                new.put(draft);
            });
            let has_mark = rest.is_some();
            Ok(if has_mark { Decision::CommitMark(fill) } else { Decision::Commit(fill) })
        })
    }
}

impl Cut {
    /// The first chunk of the window keeps some bytes, the rest is a hole.
    fn apply(self, window: &MapWindow, draft: &mut Draft) {
        let Self { rest, new_bytes, kept_bytes, kept, freed } = self;
        // Of the chunk in which the file ends now, too: what is kept of it goes into its row.
        draft.free(&freed);
        assert!(kept.as_ref().is_none_or(|kept| to_u64(kept.len()) <= kept_bytes), "it is cut");
        let range = window.range();
        let first = ChunkRange::one(range.start()).filter(|_| kept_bytes > 0);
        let gone_from = first.map_or(range.start(), ChunkRange::end);
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
        if let Some(gone) = ChunkRange::new(gone_from, range.end()) {
            runs.push(ChunkRun { chunks: gone, state: ChunkState::Hole, data_xid: draft.xid });
            window.delete_chunks(gone, draft);
        }
        window.replace(&runs, new_bytes, draft);
        if let Some(rest) = rest {
            window.mark(rest, draft);
        }
    }
}
