//! Eviction: chunks leave the store, and detours take their place.
//!
//! An eviction names an extent and its data xid, the version that is known to be safe in the
//! archive. It is ordered against everything else by that one number, under the inode's lock:
//!
//! - **Against a writer.** A write gives the chunks that it touches its own transaction as data
//!   xid. Runs of the extent whose data xid is another one are left as they are, whether they are
//!   newer (written since) or older (the extent was guessed): the eviction is skipped there, not an
//!   error.
//! - **Against a reader.** A read takes a KVS snapshot before it looks at the map, and so finds the
//!   chunk data that the map promises, whatever is evicted meanwhile. No eviction waits for
//!   readers, and no reader for evictions.
//! - **Against a recall.** A recall runs without locks, for as long as the archive takes. What it
//!   brings is stored only where a detour still stands for exactly the version that was asked for,
//!   in one batch with the change of the map from cold to warm, under the lock. Whatever happened
//!   meanwhile (a write, a cut, a deletion, another recall of the same extent) has changed the data
//!   xid or the state, and the answer is used for its reader and not stored. Evicting an extent
//!   just while it is being recalled is possible and harmless: it is cold either way, and the bytes
//!   that come are those of its version.
//! - **Against a publication.** An eviction is no operation: it has no transaction id and no log
//!   record, because the content of the filesystem stays what it is. A KVS snapshot that was taken
//!   before still has the data; one taken after shows a cold run, which the persister knows to be
//!   in the archive already.
//!
//! Chunk rows and map rows change in one batch, so that a crash leaves either the data or the
//! detour; a chunk with neither is damage, and read as an error and never as zeros. An extent of very
//! many chunks goes in several batches, each under the lock and under the same condition. The bytes
//! of evicted chunks are deleted without being read. The disk gets the space back from [`freed`],
//! and that of small chunks when RocksDB rewrites its files; `reclaim` asks for both.
//!
//! [`freed`]: crate::freed

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, EvictOutcome, Ino, ResidentExtent};

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;
use crate::tx::MapWindow;

/// Rows and chunks that are evicted in one batch: an extent may have any number of them.
const N_ROWS_BATCH: u64 = 1024;

/// What became of the first part of an extent.
struct PartEvicted {
    bytes: Option<u64>,
    /// What of the extent is left to be looked at.
    rest: Option<ChunkRange>,
}

impl Core {
    /// Evicts those chunks of an extent that are resident in exactly its version.
    pub(super) fn evict(&self, extent: &ResidentExtent) -> Result<EvictOutcome, FsError> {
        let mut outcome = EvictOutcome::Skipped;
        let mut rest = Some(extent.chunks);
        while let Some(chunks) = rest {
            let part = self.evict_part(&ResidentExtent { chunks, ..*extent })?;
            rest = part.rest;
            if let Some(bytes) = part.bytes {
                let before = match outcome {
                    EvictOutcome::Evicted { bytes } => bytes,
                    EvictOutcome::Skipped => 0,
                };
                outcome = EvictOutcome::Evicted { bytes: before + bytes };
                // Without the lock: the listener may ask for the inode's attributes.
                self.residency_changed(extent.ino);
            }
        }
        Ok(outcome)
    }

    fn evict_part(&self, extent: &ResidentExtent) -> Result<PartEvicted, FsError> {
        let ResidentExtent { ino, chunks, data_xid } = *extent;
        let permit = self.admit(Purpose::Reclaim, ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino]);
        let Some(attr) = self.reader().find_attr(ino)? else {
            return Ok(PartEvicted { bytes: None, rest: None });
        };
        let goes = move |run: &ChunkRun| run.data_xid == data_xid && run.state.is_resident();
        // Those of cut runs as well, which go with it.
        let has_chunks = |run: &ChunkRun| run.state.is_resident();
        let reach = self.reader().reach(ino, chunks, N_ROWS_BATCH, has_chunks)?;
        let rest = ChunkRange::new(reach, chunks.end());
        let chunks = ChunkRange::new(chunks.start(), reach).unwrap_or(chunks);
        let window = MapWindow::load(self.reader(), ino, chunks, self.size_of(&attr))?;
        let going: Vec<_> = window.runs().iter().filter(|run| goes(run)).copied().collect();
        if going.is_empty() {
            tracing::debug!(%ino, %chunks, xid = %data_xid, "not evicted: another version");
            return Ok(PartEvicted { bytes: None, rest });
        }
        assert!(going.iter().all(|run| chunks.covers(run.chunks)), "no more than was asked for");
        let len_bytes = |run: &ChunkRun| run.chunks.len_bytes(self.chunk_bytes, attr.size_bytes);
        let bytes = going.iter().map(len_bytes).sum();
        let reader = self.reader();
        let extents = going
            .iter()
            .map(|run| reader.file_extents(ino, run.chunks))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        // An eviction is no operation: the filesystem's content stays what it is.
        self.committer.commit(permit, 0, move |draft| {
            draft.free(&extents);
            for run in &going {
                draft.delete_chunks(ino, run.chunks, &[]);
            }
            window.set_state(goes, ChunkState::Cold, draft);
            window.put_sums(draft);
        })?;
        tracing::debug!(%ino, %chunks, xid = %data_xid, bytes, "evicted");
        Ok(PartEvicted { bytes: Some(bytes), rest })
    }

    /// The runs of an inode's data that are in the store, from `from` on, at most `n_max`.
    pub(super) fn resident(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ResidentExtent>, FsError> {
        // Without a lock or a snapshot: an extent that has changed by the time of its eviction
        // costs no more than a skip, because it is evicted only in the version that is listed here.
        let mut extents = Vec::new();
        for run in self.reader().all_runs(ino, from) {
            let ChunkRun { chunks, state, data_xid } = run?;
            if state.is_resident() {
                extents.push(ResidentExtent { ino, chunks, data_xid });
                if extents.len() >= n_max {
                    break;
                }
            }
        }
        Ok(extents)
    }
}
