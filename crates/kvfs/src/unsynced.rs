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
//! The bytes are compared as the disk has them: files are synced first, and forgotten by the
//! system's cache, which after a failed sync holds bytes that never reached the disk.
//!
//! After that, space in the files is free that lies behind the floor of the last sync and that no
//! row of the table names: it was given out, and its rows never came.
//!
//! Nothing of this may keep a store from being opened: where it cannot be told what a chunk was, it
//! stays as it is, and reading it is an error. If not even all rows of the table can be read, no
//! space is free because no row names it.

use tier_types::{ChunkRange, ChunkRun, Xid, to_u64};

use crate::FsError;
use crate::space::Room;
use crate::store::extents::{ChunkExtent, Content, Place};
use crate::store::{ChunkBefore, Db, Unsynced};
use crate::tx::{Committer, FileSize, MapWindow, patch};

/// What the rows of one chunk take at most.
const ROWS_BYTES: u64 = 4096;
/// Rows of free extents that are looked at a time.
const N_FREED_PAGE: usize = 1000;

/// Brings chunk data into a state in which every row refers to bytes that are there, as far as no
/// sync covered it, and makes that durable.
pub(crate) fn undo_unsynced(
    db: &Db,
    room: &Room,
    committer: &Committer,
    chunk_bytes: u32,
    synced: Xid,
) -> Result<(), FsError> {
    Undo { db, room, committer, chunk_bytes, synced }.run()
}

struct Undo<'a> {
    db: &'a Db,
    room: &'a Room,
    committer: &'a Committer,
    chunk_bytes: u32,
    /// Everything up to it was synced.
    synced: Xid,
}

impl Undo<'_> {
    fn run(&self) -> Result<(), FsError> {
        let unsynced = self.db.reader().unsynced_places()?;
        let floor = match self.db.reader().extents_floor() {
            Ok(floor) => Some(floor),
            // Without a floor all files are synced anew, and no space counts as free.
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error),
        };
        let is_certain = unsynced.are_all && floor.is_some();
        if !unsynced.places.is_empty() || !is_certain {
            self.sync_earlier(floor);
            self.undo(&unsynced.places)?;
            self.forget_freed_in_use()?;
        }
        let Some(floor) = floor.filter(|_| is_certain) else { return Ok(()) };
        self.free_unnamed(floor, &unsynced.places)?;
        // While no sync is believed the rows stay: they name what the next opening has to look at.
        let is_done = unsynced.places.is_empty() || self.db.extent_files().needs_rewrite();
        if is_done { Ok(()) } else { self.db.forget_unsynced() }
    }

    /// What an earlier process wrote is durable, or no sync is believed.
    fn sync_earlier(&self, floor: Option<Place>) {
        let files = self.db.extent_files();
        if let Err(error) = files.sync_earlier(floor.map_or(0, |floor| floor.file)) {
            tracing::error!(%error, "chunk data of earlier changes cannot be synced");
            files.distrust();
        }
    }

    fn undo(&self, places: &[(Place, u32)]) -> Result<(), FsError> {
        let mut n_undone = 0_u64;
        for (place, _) in places.iter().rev() {
            let undone = match self.db.reader().unsynced(*place) {
                Ok(Some(unsynced)) => self.undo_if_lost(*place, &unsynced),
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            match undone {
                Ok(is_undone) => n_undone += u64::from(is_undone),
                // One chunk that cannot be judged must not keep the others from being undone.
                Err(error) if error.is_damage() || matches!(error, FsError::Extents { .. }) => {
                    tracing::error!(?place, %error, "a chunk that was not synced stays as it is");
                }
                Err(error) => return Err(error),
            }
        }
        if n_undone > 0 {
            tracing::warn!(n_undone, "chunks that were not synced are what they were before");
        }
        Ok(())
    }

    /// What a chunk got back is free no more. Its row in the table of the free is of an earlier
    /// generation than the snapshots to come, so that it would be given back although one of them
    /// shows it.
    fn forget_freed_in_use(&self) -> Result<(), FsError> {
        let reader = self.db.reader();
        let mut from = Vec::new();
        loop {
            let page = match reader.freed(&from, u64::MAX, N_FREED_PAGE) {
                // Nothing of a table that cannot be read is given back either.
                Err(error) if error.is_damage() => return Ok(()),
                page => page?,
            };
            let mut in_use = Vec::new();
            for freed in page.extents {
                if reader.is_in_use(&freed)? {
                    in_use.push((freed.generation, freed.place));
                }
            }
            if !in_use.is_empty() {
                self.db.forget_freed_extents(&in_use)?;
            }
            if page.is_last {
                return Ok(());
            }
            from = page.until;
        }
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
        // A row that refers to another place is judged at that place, or a sync has covered it.
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
                // Patches lie in the row itself, and so they survived: they go on top of the
                // earlier content.
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
                // Chunks without attributes go with a dying inode, or are found by the check.
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
    fn free_unnamed(&self, floor: Place, unsynced: &[(Place, u32)]) -> Result<(), FsError> {
        let files = self.db.extent_files();
        for (file, file_len) in files.lengths_from(floor.file)? {
            let mut at = if file == floor.file { floor.offset } else { 0 };
            let of_file = unsynced.iter().filter(|(place, _)| place.file == file);
            for (place, len) in of_file.filter(|(place, _)| *place >= floor) {
                self.punch_between(file, at, place.offset);
                at = at.max(files.aligned(place.offset + u64::from(*len)));
            }
            self.punch_between(file, at, file_len);
        }
        Ok(())
    }

    fn punch_between(&self, file: u32, start: u64, end: u64) {
        let len = end.saturating_sub(start);
        if len == 0 {
            return;
        }
        // Only space is at stake, and no opening may fail for that.
        if let Err(error) = self.db.extent_files().punch(Place { file, offset: start }, len) {
            tracing::warn!(file, start, len, %error, "space that nothing names stays taken");
        }
    }
}
