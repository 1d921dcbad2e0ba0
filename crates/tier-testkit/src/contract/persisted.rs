//! The contract of [`Persisted`].
//!
//! The answer is yes for each part of what is archived, in exactly its version, and no for the
//! version before and after it, for a hole, and for another inode. Of a range of which some is
//! archived in that version the answer is exactly that, run by run. Metadata is in the snapshot
//! that holds it as exactly this transaction left it, or in none. A yes that should be a no would
//! let the only copy of data be evicted.

use tier_types::{ChunkNo, ChunkRange, Ino, Persisted, Xid, persisted_parts};

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
        of_a_wider_range_exactly_what_is_archived_counts(persisted, inode);
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
            let found = persisted.first_persisted(inode.ino, extent.chunks, xid).unwrap();
            assert_eq!(found, None, "version {xid} is not archived");
        }
    }
}

/// The rest of the range has another version, is a hole, or is not there.
fn of_a_wider_range_exactly_what_is_archived_counts(
    persisted: &dyn Persisted,
    inode: &ArchivedInode,
) {
    let end = inode.extents.iter().map(|extent| extent.chunks.end().get()).max().unwrap_or(0);
    let wider = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(end + 2)).unwrap();
    for extent in &inode.extents {
        let version = extent.data_xid;
        let mut before = None;
        for part in persisted_parts(persisted, inode.ino, wider, version) {
            let part = part.unwrap();
            let was = before.replace(part.is_persisted);
            assert_ne!(was, Some(part.is_persisted), "a run of version {version} is one answer");
            for number in part.chunks.start().get()..part.chunks.end().get() {
                let chunk = ChunkNo::new(number);
                let mut same_version = inode.extents.iter().filter(|e| e.data_xid == version);
                let is_archived = same_version.any(|extent| extent.chunks.contains(chunk));
                assert_eq!(part.is_persisted, is_archived, "chunk {chunk} of version {version}");
            }
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
