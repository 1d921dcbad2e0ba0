//! The contract of [`Recall`].
//!
//! An answer holds the first chunk asked for, and is of exactly the version asked for in all of its
//! chunks, whether they are more or fewer than were asked for; asking on brings the rest. Another
//! version, other chunks or another inode are missing. All this holds for many readers at a time,
//! some of which meet at the same extent.

use std::thread;

use tier_types::{
    ChunkNo, ChunkRange, ErrorKind, Ino, Recall, RecallRequest, RecalledExtent, Xid, to_u64,
    to_usize,
};

use crate::{ArchivedExtent, ArchivedInode};

/// Threads that recall at a time.
const N_THREADS: usize = 8;

/// Runs the contract of [`Recall`] on an implementation whose archive holds these inodes, as they
/// were last archived, and no other inode. One of them must have an extent of several chunks, and
/// one must end within a chunk.
pub fn check_recall(recall: &(dyn Recall + Sync), chunk_bytes: u32, archived: &[ArchivedInode]) {
    let extents = || archived.iter().flat_map(|inode| &inode.extents);
    assert!(extents().any(|e| e.chunks.len() > 2), "give an extent of several chunks");
    let cut = |e: &ArchivedExtent| !to_u64(e.bytes.len()).is_multiple_of(u64::from(chunk_bytes));
    assert!(extents().any(cut), "give a file that ends within a chunk");
    let subject = Subject { recall, chunk_bytes };
    let unknown = Ino::new(archived.iter().map(|inode| inode.ino.get()).max().unwrap() + 1000);
    for inode in archived {
        for extent in &inode.extents {
            subject.every_part_comes_back(inode.ino, extent);
            subject.no_other_version_comes(inode.ino, extent);
            subject.is_missing(unknown, extent.chunks, extent.data_xid);
        }
        subject.is_missing(inode.ino, beyond(inode), inode.xid);
    }
    subject.many_readers_get_their_own(archived);
}

/// Chunks behind all data.
fn beyond(inode: &ArchivedInode) -> ChunkRange {
    let end = inode.extents.iter().map(|extent| extent.chunks.end()).max();
    ChunkRange::one(end.unwrap_or(ChunkNo::new(0))).unwrap()
}

#[derive(Clone, Copy)]
struct Subject<'a> {
    recall: &'a (dyn Recall + Sync),
    chunk_bytes: u32,
}

impl Subject<'_> {
    fn every_part_comes_back(&self, ino: Ino, extent: &ArchivedExtent) {
        let (start, end) = (extent.chunks.start().get(), extent.chunks.end().get());
        for first in start..end {
            for until in [first + 1, end] {
                let chunks = ChunkRange::new(ChunkNo::new(first), ChunkNo::new(until)).unwrap();
                self.comes_back(ino, extent, chunks);
            }
        }
    }

    /// Asks until all of these chunks came, as a filesystem does.
    fn comes_back(&self, ino: Ino, extent: &ArchivedExtent, chunks: ChunkRange) {
        let mut rest = Some(chunks);
        while let Some(chunks) = rest {
            let request = RecallRequest { ino, chunks, data_xid: extent.data_xid };
            let answer = self.recall.recall(&request).unwrap();
            let first = chunks.start();
            assert!(answer.chunks().contains(first), "an answer holds the first chunk asked for");
            self.is_of(&answer, extent);
            rest = ChunkRange::new(answer.chunks().end(), chunks.end());
        }
    }

    /// An answer brings bytes of exactly the version asked for, for all of its chunks.
    fn is_of(&self, answer: &RecalledExtent, extent: &ArchivedExtent) {
        let chunks = answer.chunks();
        assert!(extent.chunks.covers(chunks), "{chunks} is of several versions");
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let skipped = to_usize(chunks.start().get() - extent.chunks.start().get());
        let rest = &extent.bytes[skipped * chunk_bytes..];
        let expected = &rest[..rest.len().min(to_usize(chunks.len()) * chunk_bytes)];
        assert!(answer.bytes() == expected, "chunks {chunks} come with other bytes");
    }

    fn no_other_version_comes(&self, ino: Ino, extent: &ArchivedExtent) {
        for xid in [Xid::new(extent.data_xid.get() - 1), extent.data_xid.next()] {
            self.is_missing(ino, extent.chunks, xid);
        }
    }

    fn is_missing(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) {
        let request = RecallRequest { ino, chunks, data_xid };
        let error = self.recall.recall(&request).expect_err("no such version is archived");
        assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    }

    /// Every thread asks for everything, each beginning elsewhere, so that some meet at the same
    /// extent; one of them asks for what is not there as well.
    fn many_readers_get_their_own(self, archived: &[ArchivedInode]) {
        let all: Vec<(Ino, &ArchivedExtent)> =
            archived.iter().flat_map(|i| i.extents.iter().map(|e| (i.ino, e))).collect();
        thread::scope(|scope| {
            for number in 0..N_THREADS {
                let all = &all;
                scope.spawn(move || {
                    for at in 0..all.len() {
                        let (ino, extent) = all[(at + number / 2) % all.len()];
                        self.comes_back(ino, extent, extent.chunks);
                        if number == 0 {
                            self.no_other_version_comes(ino, extent);
                        }
                    }
                });
            }
        });
    }
}
