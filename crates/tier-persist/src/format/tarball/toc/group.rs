//! Groups of entries, and the parts of the table that they are cut into.
//!
//! A group is what one worker's job came to. Its head says from which frame its entries count, and
//! how long it is, so that the entries themselves are appended as the worker made them. A part ends
//! between two groups: with the group that would make it longer than a part may be, the next
//! begins.

use serde::{Deserialize, Serialize};
use tier_types::{Ino, to_u64, to_usize};

use crate::format::postcard;
use crate::format::tarball::layout::to_u32;
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::toc::entry::StoredEntry;
use crate::format::tarball::toc::root::{PlainMember, TocPart};

/// Stands before the entries of a group.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct GroupHead {
    base_frame: u32,
    /// Length of the entries in bytes.
    entries_bytes: u64,
}

/// The table of contents of a tarball that is being built.
#[derive(Debug)]
pub(crate) struct TocWriter {
    bytes: Vec<u8>,
    /// Where each part but the last ends in `bytes`.
    cuts: Vec<usize>,
    /// No part is longer, but for one with a single longer group.
    part_bytes_max: usize,
    /// The frame from which the last group's entries count.
    last_base_frame: Option<u32>,
}

impl TocWriter {
    pub(crate) fn new(part_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), cuts: Vec::new(), part_bytes_max, last_base_frame: None }
    }

    /// Adds the entries of one job, whose frames are counted from `base_frame`.
    pub(crate) fn add(&mut self, base_frame: u32, entries: &[u8]) {
        assert!(!entries.is_empty(), "a job that made frames has members in them");
        assert!(
            self.last_base_frame.is_none_or(|last| last < base_frame),
            "every group has frames of its own, after those of the group before"
        );
        self.last_base_frame = Some(base_frame);
        // Parts are kept small, so that a reader never holds a large table in memory.
        let part_bytes = self.bytes.len() - self.cuts.last().copied().unwrap_or(0);
        if part_bytes > 0 && part_bytes + entries.len() > self.part_bytes_max {
            self.cuts.push(self.bytes.len());
        }
        // The length in front lets a reader go on with the next group without knowing the entries.
        let head = GroupHead { base_frame, entries_bytes: to_u64(entries.len()) };
        postcard::append(&head, &mut self.bytes);
        self.bytes.extend_from_slice(entries);
    }

    /// The members that hold the table, one frame each, of which the first has this number; and
    /// where the table's parts lie in them.
    pub(crate) fn into_frames(self, first_frame: u32, mark: &FrameMark) -> TocFrames {
        let mut frames = Vec::new();
        let mut parts = Vec::new();
        let mut rest = self.bytes.as_slice();
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        for (end, number) in ends.zip(0_u32..) {
            let start = self.bytes.len() - rest.len();
            // The last part may be the only one, and even empty: a reader finds one at least.
            let (part, after) = rest.split_at(end - start);
            rest = after;
            let path = format!(".tier/toc/{number:06}");
            let PlainMember { blocks, offset } = PlainMember::new(path.as_bytes(), part, mark);
            parts.push(TocPart { frame: first_frame + number, offset, len: to_u32(part.len()) });
            frames.push(blocks);
        }
        assert!(rest.is_empty(), "the parts are all of the table");
        TocFrames { frames, parts }
    }
}

/// A table of contents as frames.
pub(crate) struct TocFrames {
    /// Plaintext of each frame.
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) parts: Vec<TocPart>,
}

/// Calls `visit` for all entries of the groups in one part of a table. `None` if it cannot be read,
/// or `visit` says so.
pub(crate) fn read_groups<E>(
    mut bytes: &[u8],
    visit: &mut dyn FnMut(StoredEntry<'_>) -> Option<Result<(), E>>,
) -> Option<Result<(), E>> {
    while !bytes.is_empty() {
        let (head, rest) = postcard::take::<GroupHead>(bytes)?;
        // Before it becomes a `usize`: the number is from outside.
        if head.entries_bytes > to_u64(rest.len()) {
            return None;
        }
        let (mut group, rest) = rest.split_at_checked(to_usize(head.entries_bytes))?;
        // Numbers are relative within a group and not across groups: each can be read alone.
        let mut before = Ino::new(0);
        while !group.is_empty() {
            let (entry, after) = StoredEntry::take(head.base_frame, before, group)?;
            (before, group) = (entry.ino(), after);
            if let Err(error) = visit(entry)? {
                return Some(Err(error));
            }
        }
        bytes = rest;
    }
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tier_types::{ChunkNo, ChunkRange, Epoch, SnapshotId, Xid};

    use super::*;
    use crate::format::names::FilesystemId;
    use crate::format::tarball::blocks::Blocks;
    use crate::format::tarball::layout::FramePosition;
    use crate::format::tarball::member::Run;
    use crate::format::tarball::toc::entry::TocEntry;
    use crate::format::tarball::toc::piece::Piece;

    fn mark() -> FrameMark {
        FrameMark {
            filesystem: FilesystemId::from_bytes([1; 16]),
            epoch: Epoch::new(1),
            snapshot: SnapshotId::new(1),
            token: 7,
        }
    }

    fn any_run() -> impl Strategy<Value = Run> {
        (0..u64::MAX - 1, 1..u64::MAX, any::<u64>()).prop_map(|(start, n, xid)| {
            let end = ChunkNo::new(start.saturating_add(n));
            let chunks = ChunkRange::new(ChunkNo::new(start), end).unwrap();
            Run { chunks, data_xid: Xid::new(xid) }
        })
    }

    fn any_entry() -> impl Strategy<Value = TocEntry> {
        let piece = (any_run(), 0_u32..9, any::<u32>(), any::<u32>());
        let pieces = prop::collection::vec(piece, 0..4);
        let runs = || prop::collection::vec(any_run(), 0..4);
        let numbers = (any::<u64>(), 0_u32..1000, any::<u32>(), any::<Option<u64>>());
        let fields = (numbers, pieces, runs(), runs());
        fields.prop_map(|((ino, frame, offset, gone), pieces, holes, lost)| TocEntry {
            ino: Ino::new(ino),
            at: FramePosition { frame, offset },
            gone: gone.map(Xid::new),
            metadata: None,
            data: pieces
                .into_iter()
                .map(|(run, later, offset, short_bytes)| Piece {
                    run,
                    at: FramePosition { frame: frame + later, offset },
                    short_bytes,
                })
                .collect(),
            holes,
            lost,
        })
    }

    fn written(groups: &[Vec<TocEntry>], part_bytes_max: usize) -> TocWriter {
        let mut writer = TocWriter::new(part_bytes_max);
        for (group, number) in groups.iter().zip(0..) {
            let mut before = Ino::new(0);
            let mut entries = Vec::new();
            for entry in group {
                entry.append_to(before, &mut entries);
                before = entry.ino;
            }
            writer.add(number * 10_000, &entries);
        }
        writer
    }

    /// The content of the only member of a frame.
    fn content(frame: &[u8]) -> &[u8] {
        let member = Blocks::new(frame, 0).next_member().unwrap().unwrap();
        &frame[member.content_at..][..to_usize(member.content_bytes)]
    }

    proptest! {
        #[test]
        fn groups_are_read_as_they_were_written(
            groups in prop::collection::vec(prop::collection::vec(any_entry(), 1..4), 1..6),
            part_bytes_max in 1_usize..400,
        ) {
            let written = written(&groups, part_bytes_max).into_frames(500, &mark());
            let TocFrames { frames, parts } = written;
            prop_assert_eq!(frames.len(), parts.len());
            let mut found = Vec::new();
            for ((part, frame), number) in parts.iter().zip(&frames).zip(500..) {
                prop_assert_eq!(part.frame, number);
                let start = to_usize(u64::from(part.offset));
                let bytes = &frame[start..][..to_usize(u64::from(part.len))];
                prop_assert_eq!(bytes, content(frame));
                let read = read_groups(bytes, &mut |entry| {
                    let mut indexed = Vec::new();
                    entry.index_entries(&mut indexed)?;
                    let entry = entry.decode()?;
                    assert!(entry.index_entries().eq(indexed));
                    found.push(entry);
                    Some(Ok::<(), ()>(()))
                });
                prop_assert_eq!(read, Some(Ok(())));
            }
            let expected = groups.into_iter().zip(0..).flat_map(|(group, number)| {
                group.into_iter().map(move |mut entry| {
                    let base = number * 10_000;
                    entry.at.frame += base;
                    entry.data.iter_mut().for_each(|piece| piece.at.frame += base);
                    entry
                })
            });
            prop_assert!(expected.eq(found));
        }
    }

    #[test]
    fn a_part_that_is_cut_short_is_refused() {
        let entry = TocEntry {
            ino: Ino::new(9),
            at: FramePosition { frame: 1, offset: 0 },
            gone: Some(Xid::new(4)),
            metadata: None,
            data: Vec::new(),
            holes: Vec::new(),
            lost: Vec::new(),
        };
        let writer = written(&[vec![entry.clone(), entry]], 1000);
        let mut visit = |entry: StoredEntry<'_>| entry.decode().map(|_| Ok::<(), ()>(()));
        assert!(read_groups(&writer.bytes, &mut visit).is_some());
        for len in 1..writer.bytes.len() {
            assert_eq!(read_groups(&writer.bytes[..len], &mut visit), None, "{len}");
        }
    }
}
