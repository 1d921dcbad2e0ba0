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
//! detour; a chunk with neither is damage, and read as an error and never as zeros. A batch takes
//! extents of many inodes, each once, because a second one would go by what the first one changes;
//! their locks are held together, for as long as it takes to read their maps and to write the
//! batch. An extent of very many chunks goes in several batches, each under the lock and under the
//! same condition. The bytes of evicted chunks are deleted without being read. The disk gets the
//! space back from [`freed`], and that of small chunks when RocksDB rewrites its files; `reclaim`
//! asks for both.
//!
//! [`freed`]: crate::freed

use std::collections::{BTreeSet, VecDeque};

use tier_types::{
    ChunkPlace, ChunkRange, ChunkRun, ChunkState, EvictOutcome, Ino, ResidentExtent, to_u64,
};

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;
use crate::store::extents::ChunkExtent;
use crate::store::{KvsSnapshot, OrderedTables, StoreReader};
use crate::tx::{Draft, MapWindow};

/// Rows and chunks that are evicted in one batch: an extent may have any number of them.
const N_ROWS_BATCH: u64 = 1024;

/// Inodes of one batch: an operation on any of them waits until the batch is written.
const N_INODES_BATCH: usize = 256;

/// Extents that are to be evicted, and what became of each.
struct Evictions {
    /// What is left of them, in order.
    rest: VecDeque<Asked>,
    outcomes: Vec<Result<EvictOutcome, FsError>>,
}

/// An extent, or the rest of one.
#[derive(Clone, Copy)]
struct Asked {
    /// The place of its outcome.
    number: usize,
    extent: ResidentExtent,
}

/// What of an extent goes in one batch.
struct Part {
    asked: Asked,
    window: MapWindow,
    going: Vec<ChunkRun>,
    file_extents: Vec<ChunkExtent>,
    bytes: u64,
}

/// What was found of an extent.
struct Found {
    /// None if it is there in no version, or another one.
    part: Option<Part>,
    /// What of it is left to be looked at.
    rest: Option<ChunkRange>,
}

impl Evictions {
    fn new(extents: &[ResidentExtent]) -> Self {
        let asked = extents.iter().enumerate();
        let rest = asked.map(|(number, extent)| Asked { number, extent: *extent }).collect();
        Self { rest, outcomes: extents.iter().map(|_| Ok(EvictOutcome::Skipped)).collect() }
    }

    /// The next extents, each of another inode, as many as a batch has rows for.
    fn next_batch(&mut self) -> Vec<Asked> {
        let mut inodes = BTreeSet::new();
        let mut batch = Vec::new();
        let mut n_rows = 0_u64;
        while let Some(next) = self.rest.front()
            && batch.len() < N_INODES_BATCH
            && n_rows < N_ROWS_BATCH
            && inodes.insert(next.extent.ino)
        {
            n_rows = n_rows.saturating_add(next.extent.chunks.len()).saturating_add(1);
            batch.extend(self.rest.pop_front());
        }
        batch
    }

    fn add_evicted(&mut self, number: usize, bytes: u64) {
        if let Some(Ok(outcome)) = self.outcomes.get_mut(number) {
            let before = match outcome {
                EvictOutcome::Evicted { bytes } => *bytes,
                EvictOutcome::Skipped => 0,
            };
            *outcome = EvictOutcome::Evicted { bytes: before + bytes };
        }
    }

    /// The others of its batch, and those behind, are as they would be without it. What of it went
    /// before is not told: the sums of the filesystem have it.
    fn add_damaged(&mut self, number: usize, error: FsError) {
        if let Some(outcome) = self.outcomes.get_mut(number) {
            *outcome = Err(error);
        }
    }

    /// The end, with an error that is of the filesystem as a whole.
    fn failed(mut self, number: usize, error: FsError) -> Vec<Result<EvictOutcome, FsError>> {
        self.outcomes.truncate(number);
        self.outcomes.push(Err(error));
        self.outcomes
    }
}

impl Asked {
    /// Whether a run is in the version that was asked for, and resident.
    fn goes(self) -> impl Fn(&ChunkRun) -> bool + Copy {
        move |run| run.data_xid == self.extent.data_xid && run.state.is_resident()
    }
}

impl Part {
    fn evict(&self, draft: &mut Draft) {
        draft.free(&self.file_extents);
        for run in &self.going {
            draft.delete_chunks(self.window.ino(), run.chunks, &[]);
        }
        self.window.set_state(self.asked.goes(), ChunkState::Cold, draft);
        self.window.put_sums(draft);
    }
}

impl Core {
    /// Evicts, of each extent, the chunks that are resident in exactly its version. Behind an error
    /// that is of the filesystem as a whole there are no outcomes.
    pub(super) fn evict(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, FsError>> {
        let mut evictions = Evictions::new(extents);
        loop {
            let batch = evictions.next_batch();
            let Some(first) = batch.first().map(|asked| asked.number) else { break };
            if let Err(error) = self.evict_batch(batch, &mut evictions) {
                return evictions.failed(first, error);
            }
        }
        evictions.outcomes
    }

    /// Evicts the first parts of some extents, each of another inode.
    fn evict_batch(&self, batch: Vec<Asked>, evictions: &mut Evictions) -> Result<(), FsError> {
        let permit = self.admit(Purpose::Reclaim, ROWS_BYTES * to_u64(batch.len()))?;
        let inodes: Vec<Ino> = batch.iter().map(|asked| asked.extent.ino).collect();
        let guard = self.locks.lock_all(&inodes);
        // Under the locks, and so it shows these inodes as they are.
        let snapshot = KvsSnapshot::take(&self.db)?;
        let tables = OrderedTables::new(&snapshot);
        let mut n_rows_left = N_ROWS_BATCH;
        let mut parts = Vec::new();
        let mut rest = Vec::new();
        for asked in batch {
            let found = match self.find_part(tables.reader(), asked, &mut n_rows_left) {
                Err(error) if error.is_damage() => {
                    evictions.add_damaged(asked.number, error);
                    continue;
                }
                found => found?,
            };
            parts.extend(found.part);
            let of_rest = |chunks| ResidentExtent { chunks, ..asked.extent };
            rest.extend(found.rest.map(|chunks| Asked { extent: of_rest(chunks), ..asked }));
        }
        // They come before those that follow: their places are.
        rest.into_iter().rev().for_each(|asked| evictions.rest.push_front(asked));
        // It would pin what the batch frees.
        drop(tables);
        drop(snapshot);
        if parts.is_empty() {
            return Ok(());
        }
        let evicted: Vec<_> = parts.iter().map(|part| (part.asked, part.bytes)).collect();
        // An eviction is no operation: the filesystem's content stays what it is.
        self.committer.commit(permit, 0, move |draft| {
            for part in parts {
                draft.of_one_file(|draft| part.evict(draft));
            }
        })?;
        // Without the locks: the listener may ask for the inode's attributes.
        drop(guard);
        for (Asked { number, extent }, bytes) in evicted {
            let ResidentExtent { ino, chunks, data_xid } = extent;
            tracing::debug!(%ino, %chunks, xid = %data_xid, bytes, "evicted");
            evictions.add_evicted(number, bytes);
            self.residency_changed(ino);
        }
        Ok(())
    }

    /// What of an extent can go within so many rows.
    fn find_part(
        &self,
        reader: StoreReader<'_>,
        asked: Asked,
        n_rows_left: &mut u64,
    ) -> Result<Found, FsError> {
        let ResidentExtent { ino, chunks, data_xid } = asked.extent;
        // The next batch has more.
        if *n_rows_left < 2 {
            return Ok(Found { part: None, rest: Some(chunks) });
        }
        let Some(attr) = reader.find_attr(ino)? else {
            return Ok(Found { part: None, rest: None });
        };
        // A chunk is a row of its own and starts a run at most: so few of them fit without a look.
        let reach = if chunks.len().saturating_mul(2) <= *n_rows_left {
            chunks.end()
        } else {
            // The chunks of cut runs as well, which go with it.
            reader.reach(ino, chunks, *n_rows_left, |run| run.state.is_resident())?
        };
        let rest = ChunkRange::new(reach, chunks.end());
        let chunks = ChunkRange::new(chunks.start(), reach).unwrap_or(chunks);
        let window = MapWindow::load(reader, ino, chunks, self.size_of(&attr))?;
        let goes = asked.goes();
        let going: Vec<_> = window.runs().iter().filter(|run| goes(run)).copied().collect();
        *n_rows_left = n_rows_left.saturating_sub(chunks.len().saturating_add(1));
        if going.is_empty() {
            tracing::debug!(%ino, %chunks, xid = %data_xid, "not evicted: another version");
            return Ok(Found { part: None, rest });
        }
        assert!(going.iter().all(|run| chunks.covers(run.chunks)), "no more than was asked for");
        let len_bytes = |run: &ChunkRun| run.chunks.len_bytes(self.chunk_bytes, attr.size_bytes);
        let bytes = going.iter().map(len_bytes).sum();
        let mut file_extents = Vec::new();
        for run in &going {
            file_extents.extend(reader.file_extents(ino, run.chunks)?);
        }
        let part = Part { asked, window, going, file_extents, bytes };
        Ok(Found { part: Some(part), rest })
    }

    /// The runs of data from each of these places on that are in the store, at most `n_max` of
    /// each.
    pub(super) fn resident(
        &self,
        from: &[ChunkPlace],
        n_max: usize,
    ) -> Vec<Result<Vec<ResidentExtent>, FsError>> {
        // Without a lock: an extent that has changed by the time of its eviction costs no more than
        // a skip, because it is evicted only in the version that is listed here.
        self.read_each(from, |reader, place| resident_from(reader, *place, n_max))
    }
}

fn resident_from(
    reader: StoreReader<'_>,
    place: ChunkPlace,
    n_max: usize,
) -> Result<Vec<ResidentExtent>, FsError> {
    let ChunkPlace { ino, chunk } = place;
    let resident = reader.all_runs(ino, chunk).filter_map(|run| match run {
        Ok(ChunkRun { chunks, state, data_xid }) => {
            state.is_resident().then_some(Ok(ResidentExtent { ino, chunks, data_xid }))
        }
        Err(error) => Some(Err(error)),
    });
    resident.take(n_max).collect()
}
