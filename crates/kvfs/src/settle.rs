//! Opening a store: chunk data that no sync covered.
//!
//! After a loss of power rows may be there whose bytes in the extent files are not (see
//! `store::extents`). They are all named by the table `unsynced`. This goes through it from the
//! newest place to the oldest and compares each checksum. A chunk whose bytes did not survive
//! becomes what it was before: it gets the row that it had, which may lead to the next older place
//! and its check, or the hole or the detour comes back. What was written since the last sync is
//! gone then, as it may be; nothing that a sync covered is, because its extents are not given back
//! before the sync that follows their replacement. The rows of the table outlast the sync by a
//! batch; a chunk whose transaction the witness knows as synced is damaged and stays so, because
//! going back would silently change what an application was told to be durable.
//!
//! The bytes are compared as the disk has them: files are synced first, and forgotten by the system's
//! cache, which after a failed sync holds bytes that never reached the disk.
//!
//! After that, space in the files is free that lies behind the floor of the last sync and that no
//! row of the table names: it was given out, and its rows never came.

use tier_types::{ChunkRange, ChunkRun, Xid, to_u64};

use crate::FsError;
use crate::space::Room;
use crate::store::extents::{ChunkExtent, Content, Place};
use crate::store::{ChunkBefore, Db, Unsynced};
use crate::tx::{Committer, FileSize, MapWindow, patch};

/// What the rows of one chunk take at most.
const ROWS_BYTES: u64 = 4096;

/// Brings chunk data into a state in which every row refers to bytes that are there, as far as no
/// sync covered it, and makes that durable.
pub(crate) fn settle_extents(
    db: &Db,
    room: &Room,
    committer: &Committer,
    chunk_bytes: u32,
    synced: Xid,
) -> Result<(), FsError> {
    Settle { db, room, committer, chunk_bytes, synced }.run()
}

struct Settle<'a> {
    db: &'a Db,
    room: &'a Room,
    committer: &'a Committer,
    chunk_bytes: u32,
    /// Everything up to it was synced.
    synced: Xid,
}

impl Settle<'_> {
    fn run(&self) -> Result<(), FsError> {
        let unsynced = self.db.reader().unsynced()?;
        if unsynced.is_empty() {
            return self.free_unnamed(&unsynced);
        }
        let floor = self.db.reader().extents_floor()?;
        self.db.extent_files().sync_earlier(floor.file)?;
        let mut n_undone = 0_u64;
        for (place, row) in unsynced.iter().rev() {
            n_undone += u64::from(self.undo_if_lost(*place, row)?);
        }
        if n_undone > 0 {
            tracing::warn!(n_undone, "chunks that were not synced are what they were before");
        }
        self.free_unnamed(&unsynced)?;
        self.db.settle_extents()
    }

    /// Whether a chunk whose row refers to this place had to become what it was before.
    fn undo_if_lost(&self, place: Place, unsynced: &Unsynced) -> Result<bool, FsError> {
        let Unsynced { ino, chunk, before, .. } = unsynced;
        let Some(only) = ChunkRange::one(*chunk) else { return Ok(false) };
        // By its key: a scan would meet what is damaged beside it.
        let Some(row) = self.db.reader().chunk_row(*ino, *chunk)? else { return Ok(false) };
        let Some(Content::InFile(extent, patches)) = Content::from_bytes(&row) else {
            return Ok(false);
        };
        if extent.place != place || self.db.reader().is_whole(extent)? {
            return Ok(false);
        }
        let runs = self.db.reader().runs(*ino, *chunk, 1)?;
        let Some(ChunkRun { data_xid, .. }) = runs.first().copied() else { return Ok(false) };
        // What was recalled keeps its transaction, and its detour is as good as it was.
        let was_recalled = matches!(before, ChunkBefore::Away(run) if run.data_xid == data_xid);
        if data_xid <= self.synced && !was_recalled {
            tracing::error!(%ino, %chunk, ?place, "synced chunk data is damaged");
            return Ok(false);
        }
        let lost = ChunkExtent { ino: *ino, chunk: *chunk, extent };
        tracing::debug!(%ino, %chunk, ?place, "chunk data did not survive");
        match before {
            ChunkBefore::Row(before) => {
                let patched: Vec<_> =
                    patches.iter().map(|(within, bytes)| patch(to_u64(within), bytes)).collect();
                let (ino, chunk, before) = (*ino, *chunk, before.clone());
                self.committer.commit(
                    self.room.admit_at_opening(ROWS_BYTES)?,
                    0,
                    move |draft| {
                        draft.free(&[lost]);
                        draft.put_row_back(ino, chunk, &before);
                        for patch in patched {
                            draft.patch_chunk(ino, chunk, patch);
                        }
                    },
                )?;
            }
            ChunkBefore::Away(run) => {
                let Some(attr) = self.db.reader().find_attr(*ino)? else { return Ok(false) };
                let size = FileSize { bytes: attr.size_bytes, chunk_bytes: self.chunk_bytes };
                let window = MapWindow::load(self.db.reader(), *ino, only, size)?;
                let run = ChunkRun { chunks: only, state: run.state, data_xid: run.data_xid };
                let ino = *ino;
                self.committer.commit(
                    self.room.admit_at_opening(ROWS_BYTES)?,
                    0,
                    move |draft| {
                        draft.delete_chunks(ino, only, &[lost]);
                        window.replace(&[run], attr.size_bytes, draft);
                        window.put_sums(draft);
                    },
                )?;
            }
        }
        Ok(true)
    }

    /// Gives space behind the floor back that no row names.
    fn free_unnamed(&self, unsynced: &[(Place, Unsynced)]) -> Result<(), FsError> {
        let floor = self.db.reader().extents_floor()?;
        let files = self.db.extent_files();
        for (file, file_len) in files.lengths_from(floor.file)? {
            let mut at = if file == floor.file { floor.offset } else { 0 };
            let of_file = unsynced.iter().filter(|(place, _)| place.file == file);
            for (place, Unsynced { len, .. }) in of_file.filter(|(place, _)| *place >= floor) {
                self.punch_between(file, at, place.offset)?;
                at = at.max(files.aligned(place.offset + u64::from(*len)));
            }
            self.punch_between(file, at, file_len)?;
        }
        Ok(())
    }

    fn punch_between(&self, file: u32, start: u64, end: u64) -> Result<(), FsError> {
        match end.checked_sub(start) {
            None | Some(0) => Ok(()),
            Some(len) => self.db.extent_files().punch(Place { file, offset: start }, len),
        }
    }
}
