//! The eviction mechanism: evicting some inodes, once it is decided.
//!
//! The eviction gate lies here, and nowhere else. For each resident extent the archive is asked
//! about exactly its inode, its chunks and its data xid, and answers part by part; only after a yes
//! for a part is the filesystem asked to evict it, and it is handed the same chunks and the same
//! data xid. A write that commits between the two gives its chunks another data xid, so that the
//! filesystem skips what is not archived: no lock is held across the two questions, and none is
//! needed.
//!
//! Inodes are worked on together, because a question costs a filesystem less that way, and so does
//! an eviction: first the resident extents of all of them, as many as a page of each holds, then
//! the gate, then what it let go. Those with more extents than a page go on to the next round.

use std::collections::VecDeque;

use tier_types::{
    ChunkNo, ChunkPlace, ErrorKind, EvictOutcome, Ino, MountedInstance, Persisted, PersistedPart,
    PortError, ResidentExtent, persisted_parts,
};

use crate::EvictError;
use crate::answers::answered;

/// Extents of an inode that are asked for at a time: a file may have more than memory should be
/// taken for.
const N_EXTENTS_MAX: usize = 64;

/// About so many chunks are evicted in one call, which is not stopped half way.
const N_CHUNKS_CALL: u64 = 1024;

/// What became of an inode.
#[derive(Debug)]
pub(crate) struct Evicted {
    pub(crate) ino: Ino,
    pub(crate) bytes: u64,
    /// Some data is not persisted, or changed meanwhile: the inode comes up again.
    pub(crate) something_stays: bool,
    /// What the filesystem has of it is damaged, and the rest of it stays.
    pub(crate) damage: Option<PortError>,
    /// From where on there is more to look at.
    next: Option<ChunkNo>,
    /// What the gate let go and the filesystem is yet to be asked for.
    going: VecDeque<ResidentExtent>,
}

impl Evicted {
    fn new(ino: Ino) -> Self {
        Self {
            ino,
            bytes: 0,
            something_stays: false,
            damage: None,
            next: Some(ChunkNo::new(0)),
            going: VecDeque::new(),
        }
    }

    fn place(&self) -> Option<ChunkPlace> {
        self.next.map(|chunk| ChunkPlace { ino: self.ino, chunk })
    }

    /// Takes what of a page of resident extents, from a chunk on, is persisted: a chunk that the
    /// archive lacks keeps no other one.
    fn gate(
        &mut self,
        from: ChunkNo,
        page: Result<Vec<ResidentExtent>, PortError>,
        persisted: &dyn Persisted,
    ) -> Result<(), PortError> {
        self.next = None;
        let extents = match page {
            Ok(extents) => extents,
            Err(damage) => {
                self.damage = Some(damage);
                return Ok(());
            }
        };
        check_extents(&extents, self.ino, from)?;
        for extent in &extents {
            let ResidentExtent { ino, chunks, data_xid } = *extent;
            for part in persisted_parts(persisted, ino, chunks, data_xid) {
                let PersistedPart { chunks, is_persisted } = part?;
                if is_persisted {
                    self.going.push_back(ResidentExtent { chunks, ..*extent });
                } else {
                    tracing::debug!(%ino, %chunks, %data_xid, "not evicted: this version is not safe");
                    self.something_stays = true;
                }
            }
        }
        // From the end of the last one, whether it goes or stays: each is considered once. A page
        // that is not full was the last.
        let is_full = extents.len() >= N_EXTENTS_MAX;
        self.next = extents.last().filter(|_| is_full).map(|extent| extent.chunks.end());
        Ok(())
    }

    fn add(&mut self, outcome: Result<EvictOutcome, PortError>) {
        match outcome {
            Ok(EvictOutcome::Evicted { bytes }) => self.bytes += bytes,
            Ok(EvictOutcome::Skipped) => self.something_stays = true,
            // Of this extent alone: the others may be whole.
            Err(damage) => self.damage = Some(damage),
        }
    }
}

/// Evicts all data of which exactly the resident version is persisted. Damage of an inode is told
/// in what became of it; an error is of the filesystem or the archive as a whole, or says that it
/// was stopped: what is not evicted by then is left as it is.
pub(crate) fn evict_inodes(
    instance: &dyn MountedInstance,
    persisted: &dyn Persisted,
    inodes: &[Ino],
    is_stopped: &dyn Fn() -> bool,
) -> Result<Vec<Evicted>, EvictError> {
    let mut evicted: Vec<_> = inodes.iter().copied().map(Evicted::new).collect();
    loop {
        let mut open: Vec<_> = evicted.iter_mut().filter(|inode| inode.next.is_some()).collect();
        let places: Vec<_> = open.iter().filter_map(|inode| inode.place()).collect();
        if places.is_empty() {
            return Ok(evicted);
        }
        let pages = answered(places.len(), instance.resident_extents(&places, N_EXTENTS_MAX))?;
        for ((inode, place), page) in open.iter_mut().zip(&places).zip(pages) {
            inode.gate(place.chunk, page, persisted)?;
        }
        while open.iter().any(|inode| !inode.going.is_empty()) {
            // Before each call: what the archive turns out to have damaged must not go any more.
            if is_stopped() {
                return Err(EvictError::Cancelled);
            }
            evict_some(instance, &mut open)?;
        }
    }
}

/// Evicts the first extent of each inode that the gate let go, as many of them as make one call.
/// One of each, because a filesystem can evict extents of several inodes together.
fn evict_some(instance: &dyn MountedInstance, open: &mut [&mut Evicted]) -> Result<(), EvictError> {
    let (mut asked, mut going, mut n_chunks) = (Vec::new(), Vec::new(), 0_u64);
    for inode in open.iter_mut().filter(|inode| !inode.going.is_empty()) {
        if n_chunks >= N_CHUNKS_CALL {
            break;
        }
        if let Some(extent) = inode.going.pop_front() {
            n_chunks = n_chunks.saturating_add(extent.chunks.len());
            going.push(extent);
            asked.push(inode);
        }
    }
    // The filesystem compares the data xids once more, in one step with the eviction.
    let outcomes = answered(going.len(), instance.evict_extents(&going))?;
    for (inode, outcome) in asked.into_iter().zip(outcomes) {
        inode.add(outcome);
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
