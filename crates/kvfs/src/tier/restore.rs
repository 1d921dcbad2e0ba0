//! Restoring a lost filesystem, inode by inode.
//!
//! Inodes come in any order, each once, and nothing that is restored is an operation. The rows of
//! an inode may need several batches; its attributes come in the last one, so that an inode that a
//! crash cut off is not there, and the restore can be begun again in an empty filesystem.

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ErrorKind, FileAttr, Ino, InodeState, PortError, to_u64,
};

use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;
use crate::store::{Counters, DataSums, FILE_BYTES_MAX, RunState};
use crate::tx::{Draft, ListKind};

/// What a row of a chunk map takes.
const RUN_BYTES: u64 = 64;
/// Runs that go into one batch.
const N_RUNS_BATCH: usize = 10_000;

impl Core {
    pub(super) fn put_back(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        let ino = inode.attr.ino;
        if self.reader().find_attr(ino)?.is_some() || self.reader().is_dying(ino)? {
            let message = format!("inode {ino} is there already; restore into an empty filesystem");
            return Err(PortError::new(ErrorKind::Failed, message));
        }
        if ino == Ino::new(0) || inode.attr.size_bytes > FILE_BYTES_MAX {
            let message =
                format!("inode {ino} to be restored has a number or a size that none has");
            return Err(PortError::new(ErrorKind::Damaged, message));
        }
        let mut at = ChunkNo::new(0);
        let mut batch = Vec::new();
        let mut sums = Counters::default();
        for run in runs {
            let run = run?;
            if run.chunks.start() < at || run.state.is_resident() {
                let message =
                    format!("the chunk map of inode {ino} to be restored is not in order");
                return Err(PortError::new(ErrorKind::Damaged, message));
            }
            // What no run covers was never written. Runs of the archive leave that out; the map is
            // total and has to say it.
            batch.extend(never_written(at, run.chunks.start()));
            at = run.chunks.end();
            sums.gain(run.state, run.chunks.len_bytes(self.chunk_bytes, inode.attr.size_bytes));
            batch.push(run);
            if batch.len() >= N_RUNS_BATCH {
                self.put_runs(&inode.attr, std::mem::take(&mut batch))?;
            }
        }
        batch.extend(never_written(at, ChunkNo::END));
        tracing::debug!(%ino, n_links = inode.links.len(), "restored");
        self.put_state(inode, batch, DataSums::default().changed_by(&sums))
    }

    fn put_runs(&self, attr: &FileAttr, runs: Vec<ChunkRun>) -> Result<(), PortError> {
        let (ino, file_bytes, chunk_bytes) = (attr.ino, attr.size_bytes, self.chunk_bytes);
        let permit = self.admit(Purpose::Growth, ROWS_BYTES + to_u64(runs.len()) * RUN_BYTES)?;
        self.committer.commit(permit, 0, move |draft| {
            draft_runs(draft, ino, file_bytes, chunk_bytes, runs);
        })?;
        Ok(())
    }

    /// The last runs of an inode, and its attributes.
    ///
    /// The places of restored entries in their listings count from the first one up. There are
    /// never more names than transactions that made them, so that later entries, whose place is by
    /// their transaction, come after them.
    fn put_state(
        &self,
        inode: &InodeState,
        runs: Vec<ChunkRun>,
        sums: DataSums,
    ) -> Result<(), PortError> {
        let permit = self.admit(Purpose::Growth, ROWS_BYTES + to_u64(runs.len()) * RUN_BYTES)?;
        let (inode, chunk_bytes) = (inode.clone(), self.chunk_bytes);
        let first_cookie = {
            let mut last = self.restored_cookies.lock();
            let first = *last + 1;
            *last += to_u64(inode.links.len());
            first
        };
        self.committer.commit(permit, 0, move |draft| {
            let ino = inode.attr.ino;
            draft_runs(draft, ino, inode.attr.size_bytes, chunk_bytes, runs);
            for (link, cookie) in inode.links.iter().zip(first_cookie..) {
                draft.add_name_at(ino, link, cookie);
            }
            for xattr in inode.xattrs {
                draft.put_xattr(ino, &xattr.name, xattr.value);
            }
            // Without a name an inode is kept by handles alone, and none outlives the loss of a
            // filesystem: the reaper finds it on this list, after the next opening at the latest.
            if inode.links.is_empty() && inode.attr.nlink == 0 {
                draft.list(ListKind::Orphans, ino);
            }
            if sums != DataSums::default() {
                draft.put_sums(ino, sums);
            }
            draft.put_new_inode(&inode.attr);
        })?;
        Ok(())
    }
}

fn draft_runs(draft: &mut Draft, ino: Ino, file_bytes: u64, chunk_bytes: u32, runs: Vec<ChunkRun>) {
    for ChunkRun { chunks, state, data_xid } in runs {
        draft.counters.gain(state, chunks.len_bytes(chunk_bytes, file_bytes));
        draft.put_run(ino, chunks.start(), RunState { state, data_xid });
    }
}

fn never_written(from: ChunkNo, until: ChunkNo) -> Option<ChunkRun> {
    let RunState { state, data_xid } = RunState::NEVER_WRITTEN;
    ChunkRange::new(from, until).map(|chunks| ChunkRun { chunks, state, data_xid })
}
