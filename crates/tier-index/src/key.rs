//! Keys of the tables.
//!
//! They are big-endian, so that the database's order is numeric order: the one place where that is
//! right. An extent's key holds its *last* chunk. The extent of a chunk, if there is one, is then
//! the first at or after (ino, chunk), found by one forward seek; keyed by the first chunk it would
//! be the last one before, a backward seek, which the database does far more slowly.

use tier_types::{ChunkNo, Epoch, Ino, SnapshotId};

use crate::TarballId;

/// Extents are keyed by their last chunk, so that one forward seek finds the extent of a chunk.
pub(crate) fn extent(ino: Ino, last: ChunkNo) -> [u8; 16] {
    let mut key = [0; 16];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&ino.get().to_be_bytes());
    tail.copy_from_slice(&last.get().to_be_bytes());
    key
}

pub(crate) fn parse_extent(key: &[u8]) -> Option<(Ino, ChunkNo)> {
    let (ino, rest) = key.split_first_chunk::<8>()?;
    // A key that is too long fails here as well.
    let last: [u8; 8] = rest.try_into().ok()?;
    Some((Ino::new(u64::from_be_bytes(*ino)), ChunkNo::new(u64::from_be_bytes(last))))
}

pub(crate) fn inode(ino: Ino) -> [u8; 8] {
    ino.get().to_be_bytes()
}

pub(crate) fn parse_inode(key: &[u8]) -> Option<Ino> {
    Some(Ino::new(u64::from_be_bytes(key.try_into().ok()?)))
}

pub(crate) fn chain(snapshot: SnapshotId) -> [u8; 8] {
    snapshot.get().to_be_bytes()
}

pub(crate) fn tarball(id: TarballId) -> [u8; 20] {
    let mut key = [0; 20];
    let (epoch, rest) = key.split_at_mut(8);
    let (snapshot, part) = rest.split_at_mut(8);
    // In the order of `TarballId`: a scan gives the tarballs as they were written.
    epoch.copy_from_slice(&id.epoch.get().to_be_bytes());
    snapshot.copy_from_slice(&id.snapshot.get().to_be_bytes());
    part.copy_from_slice(&id.part.to_be_bytes());
    key
}

pub(crate) fn parse_tarball(key: &[u8]) -> Option<TarballId> {
    let (epoch, rest) = key.split_first_chunk::<8>()?;
    let (snapshot, part) = rest.split_first_chunk::<8>()?;
    Some(TarballId {
        epoch: Epoch::new(u64::from_be_bytes(*epoch)),
        snapshot: SnapshotId::new(u64::from_be_bytes(*snapshot)),
        part: u32::from_be_bytes(part.try_into().ok()?),
    })
}
