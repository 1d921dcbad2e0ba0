//! The contract of [`Persisted`].
//!
//! The answer is yes for each part of what is archived, in exactly its version, and no for the
//! version before and after it, for one chunk more than is archived, for a hole, and for another
//! inode. Metadata is in the snapshot that holds it as exactly this transaction left it, or in none.
//! A yes that should be a no would let the only copy of data be evicted.

use tier_types::{ChunkNo, ChunkRange, Ino, Persisted, Xid};

use crate::ArchivedInode;

/// Runs the contract of [`Persisted`] on an implementation that knows these inodes, as they were
/// last archived, and no other inode. One of them must have an extent of several chunks, and one
/// must have several extents.
pub fn check_persisted(persisted: &dyn Persisted, archived: &[ArchivedInode]) {
    let extents = || archived.iter().flat_map(|inode| &inode.extents);
    assert!(extents().any(|e| e.chunks.len() > 2), "give an extent of several chunks");
    assert!(archived.iter().any(|inode| inode.extents.len() > 1), "give several extents");
    for inode in archived {
        data_counts_in_exactly_its_version(persisted, inode);
        metadata_counts_in_exactly_its_version(persisted, inode);
    }
    let unknown = Ino::new(archived.iter().map(|inode| inode.ino.get()).max().unwrap() + 1000);
    for extent in extents() {
        assert!(!persisted.is_persisted(unknown, extent.chunks, extent.data_xid).unwrap());
    }
    assert_eq!(persisted.snapshot_of(unknown, Xid::new(1)).unwrap(), None);
}

fn data_counts_in_exactly_its_version(persisted: &dyn Persisted, inode: &ArchivedInode) {
    let asked = |chunks, xid| persisted.is_persisted(inode.ino, chunks, xid).unwrap();
    let range = |start, end| ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end));
    for extent in &inode.extents {
        let (start, end) = (extent.chunks.start().get(), extent.chunks.end().get());
        for first in start..end {
            for until in first + 1..=end {
                assert!(asked(range(first, until).unwrap(), extent.data_xid), "each part of it");
            }
        }
        let before = Xid::new(extent.data_xid.get() - 1);
        for xid in [before, extent.data_xid.next()] {
            assert!(!asked(extent.chunks, xid), "version {xid} is not archived");
        }
        // One chunk more, in front or behind: of another version, a hole, or not there.
        let wider =
            [start.checked_sub(1).and_then(|first| range(first, end)), range(start, end + 1)];
        for chunks in wider.into_iter().flatten() {
            let others = inode.extents.iter().filter(|other| other.data_xid == extent.data_xid);
            let covered: u64 = others
                .filter_map(|other| other.chunks.intersection(chunks))
                .map(ChunkRange::len)
                .sum();
            assert_eq!(asked(chunks, extent.data_xid), covered == chunks.len(), "{chunks}");
        }
    }
}

fn metadata_counts_in_exactly_its_version(persisted: &dyn Persisted, inode: &ArchivedInode) {
    let snapshot = |xid| persisted.snapshot_of(inode.ino, xid).unwrap();
    assert_eq!(snapshot(inode.xid), Some(inode.snapshot), "the snapshot that holds its metadata");
    for xid in [Xid::new(inode.xid.get() - 1), inode.xid.next()] {
        assert_eq!(snapshot(xid), None, "no snapshot holds the metadata of xid {xid}");
    }
}
