//! Evicting one inode, once it is decided.

use tier_types::{ChunkNo, EvictOutcome, Ino, MountedInstance, Persisted, PortError};

const N_EXTENTS: usize = 256;

/// What became of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Evicted {
    pub(crate) bytes: u64,
    /// Some data is not persisted, or changed meanwhile: the inode comes up again.
    pub(crate) something_stays: bool,
}

/// Evicts every extent of which exactly the resident version is persisted.
pub(crate) fn evict_inode(
    instance: &dyn MountedInstance,
    persisted: &dyn Persisted,
    ino: Ino,
) -> Result<Evicted, PortError> {
    let mut evicted = Evicted::default();
    let mut at = Some(ChunkNo::new(0));
    while let Some(from) = at {
        let extents = instance.resident_extents(ino, from, N_EXTENTS)?;
        for extent in &extents {
            if !persisted.is_persisted(ino, extent.chunks, extent.data_xid)? {
                evicted.something_stays = true;
                continue;
            }
            match instance.evict_extent(extent)? {
                EvictOutcome::Evicted { bytes } => evicted.bytes += bytes,
                EvictOutcome::Skipped => evicted.something_stays = true,
            }
        }
        at = extents.last().map(|extent| extent.chunks.end());
    }
    Ok(evicted)
}
