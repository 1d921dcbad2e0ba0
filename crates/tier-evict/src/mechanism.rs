//! The eviction mechanism: evicting one inode, once it is decided.
//!
//! The eviction gate lies here, and nowhere else. For each resident extent the archive is asked
//! about exactly its inode, its chunks and its data xid, and answers part by part; only after a yes
//! for a part is the filesystem asked to evict it, and it is handed the same chunks and the same
//! data xid. A write that commits between the two gives its chunks another data xid, so that the
//! filesystem skips what is not archived: no lock is held across the two questions, and none is
//! needed.

use tier_types::{
    ChunkNo, ErrorKind, EvictOutcome, Ino, MountedInstance, Persisted, PersistedPart, PortError,
    ResidentExtent, persisted_parts,
};

/// Extents that are asked for at a time.
const N_EXTENTS_MAX: usize = 256;

/// What became of an inode.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    pub(crate) bytes: u64,
    /// Some data is not persisted, or changed meanwhile: the inode comes up again.
    pub(crate) something_stays: bool,
    /// What the filesystem has of it is damaged, and the rest of it stays.
    pub(crate) damage: Option<PortError>,
}

/// Evicts all data of which exactly the resident version is persisted. Damage of the inode is told
/// in what became of it; an error is of the filesystem or the archive as a whole.
pub(crate) fn evict_inode(
    instance: &dyn MountedInstance,
    persisted: &dyn Persisted,
    ino: Ino,
) -> Result<Evicted, PortError> {
    let mut evicted = Evicted::default();
    let mut at = Some(ChunkNo::new(0));
    while let Some(from) = at {
        // A page at a time: a file may have more extents than memory should be taken for.
        let extents = match instance.resident_extents(ino, from, N_EXTENTS_MAX) {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                evicted.damage = Some(error);
                break;
            }
            extents => extents?,
        };
        check_extents(&extents, ino, from)?;
        for extent in &extents {
            evict_extent(instance, persisted, extent, &mut evicted)?;
        }
        // From the end of the last one, whether it went or stayed: each is considered once.
        at = extents.last().map(|extent| extent.chunks.end());
    }
    Ok(evicted)
}

/// Evicts the parts of an extent that are persisted: a chunk that the archive lacks keeps no other
/// one.
fn evict_extent(
    instance: &dyn MountedInstance,
    persisted: &dyn Persisted,
    extent: &ResidentExtent,
    evicted: &mut Evicted,
) -> Result<(), PortError> {
    let ResidentExtent { ino, chunks, data_xid } = *extent;
    for part in persisted_parts(persisted, ino, chunks, data_xid) {
        let PersistedPart { chunks, is_persisted } = part?;
        if !is_persisted {
            tracing::debug!(%ino, %chunks, %data_xid, "not evicted: this version is not safe");
            evicted.something_stays = true;
            continue;
        }
        // The filesystem compares the data xid once more, in one step with the eviction.
        match instance.evict_extent(&ResidentExtent { chunks, ..*extent }) {
            Ok(EvictOutcome::Evicted { bytes }) => evicted.bytes += bytes,
            Ok(EvictOutcome::Skipped) => evicted.something_stays = true,
            // Of this extent alone: the others may be whole.
            Err(error) if error.kind() == ErrorKind::Damaged => evicted.damage = Some(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Extents of another inode would be evicted unasked, and extents that do not ascend would be asked
/// for again and again.
fn check_extents(extents: &[ResidentExtent], ino: Ino, from: ChunkNo) -> Result<(), PortError> {
    let mut end = from;
    for extent in extents {
        if extent.ino != ino || extent.chunks.start() < end {
            let ResidentExtent { ino: other, chunks, .. } = extent;
            let message = format!(
                "asked for the resident extents of inode {ino} from chunk {end} on, the \
                 filesystem answered with chunks {chunks} of inode {other}"
            );
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        end = extent.chunks.end();
    }
    Ok(())
}
