//! What the tables hold, as values.

use tier_types::{Epoch, SnapshotId};

use crate::location::{Extent, InodeLocation};

/// The last manifest that an index includes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The writer's term.
    pub epoch: Epoch,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The manifest's digest.
    pub manifest_digest: [u8; 32],
}

/// The row of an inode. The extent of a new inode whose data lies with its metadata is held
/// *inline*: most files are small and written once, and so take one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InodeRow {
    pub(crate) newest: InodeLocation,
    pub(crate) inline: Option<Extent>,
}

/// The row of a tarball.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IndexedTarball {
    /// How many of its chunks are still the newest.
    pub(crate) live_chunks: u64,
    /// What its reader needs, unread here.
    pub(crate) reader_row: Vec<u8>,
}
