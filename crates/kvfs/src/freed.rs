//! Space of chunk data that nothing refers to any more, on its way back to the disk.
//!
//! An extent is free from the batch on that takes its row away, and may still be needed for two
//! reasons: a KVS snapshot that was taken before can see the row, and until the next sync a loss of
//! power brings it back. Both end for a whole *generation* at once: [`FreedSpace::give_back`] ends
//! the generation of the moment, notes the number that the next snapshot will get, and syncs. When
//! no snapshot with a smaller number lives, all extents of that generation and of those before are
//! holes to be punched. The rows that name them go after that, so that a crash at any moment leaves
//! rows for work that is done twice at worst.
//!
//! Each call does a bounded number of steps, so that what a persister's snapshot held up for an
//! hour does not come back in one long stall. It is called after evictions, and by operations that
//! freed much.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::FsError;
use crate::store::Db;
use crate::store::extents::Place;
use crate::tx::Committer;

/// Extents that are given back at a time, between two looks at whether to go on.
const N_EXTENTS_STEP: usize = 1000;
/// Steps of one call where a user waits for it.
const N_STEPS_BRIEF: usize = 4;
/// Bytes that were freed since a generation began, from which on an operation gives back.
const FREED_BYTES_DUE: u64 = 64 << 20;
/// And from which on it does if it finds no room otherwise.
const FREED_BYTES_WORTH: u64 = 64 << 10;

/// Generations that have ended and are not given back.
#[derive(Debug)]
pub(crate) struct FreedSpace {
    db: Arc<Db>,
    ended: Mutex<Ended>,
}

#[derive(Debug)]
struct Ended {
    generations: VecDeque<Generation>,
    /// The key of the first row that is not worked off: what lies before are deleted rows, which a
    /// scan would step over one by one.
    from: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Generation {
    number: u64,
    /// Bytes that were freed in it, about.
    bytes: u64,
    /// Snapshots with smaller numbers may need what was freed in it.
    next_snapshot: u64,
}

/// Free extents that lie one behind the other.
struct Hole {
    place: Place,
    bytes: u64,
}

impl Hole {
    fn ends_at(&self, place: Place) -> bool {
        self.place.file == place.file && self.place.offset + self.bytes == place.offset
    }
}

impl FreedSpace {
    /// What an earlier process left up to `last` can go at once: no snapshot of its lives.
    pub(crate) fn new(db: Arc<Db>, last: Option<u64>) -> Self {
        let left = last.map(|number| Generation { number, bytes: 0, next_snapshot: 0 });
        let ended = Ended { generations: left.into_iter().collect(), from: Vec::new() };
        Self { db, ended: Mutex::new(ended) }
    }

    /// Gives everything back that is free by now and that no snapshot needs. Makes all changes
    /// durable.
    pub(crate) fn give_back(&self, committer: &Committer) -> Result<(), FsError> {
        self.give_back_steps(committer, self.ended.lock(), usize::MAX)
    }

    /// Bytes of what is free and not given back, because a snapshot needs it.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.ended.lock().generations.iter().map(|generation| generation.bytes).sum()
    }

    /// The same, but only if it is worth a sync, only a part of it, and not if another thread is at
    /// it. What fails is tried again the next time.
    pub(crate) fn give_back_if_due(&self, committer: &Committer) {
        if committer.freed_bytes() < FREED_BYTES_DUE {
            return;
        }
        // Not waited for: the thread that holds it may be giving back all there is.
        let Some(ended) = self.ended.try_lock() else { return };
        if let Err(error) = self.give_back_steps(committer, ended, N_STEPS_BRIEF) {
            tracing::warn!("space of what was replaced or removed does not come back: {error}");
        }
    }

    /// The same when a snapshot was let go of, if something waits for that.
    pub(crate) fn give_back_if_unpinned(&self, committer: &Committer) {
        let Some(ended) = self.ended.try_lock() else { return };
        let waits = |first: &Generation| !self.db.has_snapshot_before(first.next_snapshot);
        if !ended.generations.front().is_some_and(waits) {
            return;
        }
        if let Err(error) = self.give_back_steps(committer, ended, usize::MAX) {
            tracing::warn!("space that a snapshot held does not come back: {error}");
        }
    }

    /// The same for an operation that was refused for want of room. Whether anything may have come
    /// back.
    pub(crate) fn give_back_for_room(&self, committer: &Committer) -> bool {
        if committer.freed_bytes() < FREED_BYTES_WORTH {
            return false;
        }
        let Some(ended) = self.ended.try_lock() else { return false };
        let given = self.give_back_steps(committer, ended, N_STEPS_BRIEF);
        given.inspect_err(|error| tracing::debug!(%error, "no space comes back")).is_ok()
    }

    /// One thread at a time: the others would punch the same holes.
    fn give_back_steps(
        &self,
        committer: &Committer,
        mut ended: MutexGuard<'_, Ended>,
        n_steps_max: usize,
    ) -> Result<(), FsError> {
        // In this order: a snapshot that gets a smaller number may have been taken before the
        // generation's last batch, one that gets this number or a higher one was taken after it.
        let bytes = committer.freed_bytes();
        let number = committer.end_generation();
        let next_snapshot = self.db.next_snapshot();
        // Until this sync a loss of power would bring back rows whose bytes a hole had taken. If it
        // fails, nothing is lost: the next generation that ends takes the rows of this one along.
        committer.sync()?;
        ended.generations.push_back(Generation { number, bytes, next_snapshot });
        let mut n_steps = 0;
        while let Some(first) = ended.generations.front().copied() {
            // The numbers rise from generation to generation: what a snapshot needs of this one it
            // may need of all that follow.
            if self.db.has_snapshot_before(first.next_snapshot) || n_steps >= n_steps_max {
                break;
            }
            if self.give_back_step(committer, &mut ended.from, first.number)? {
                ended.generations.pop_front();
            }
            n_steps += 1;
        }
        self.db.extent_files().remove_empty()
    }

    /// Gives a page of extents back, up to those of generation `last`. Returns whether those were
    /// all.
    fn give_back_step(
        &self,
        committer: &Committer,
        from: &mut Vec<u8>,
        last: u64,
    ) -> Result<bool, FsError> {
        let page = self.db.reader().freed(from, last, N_EXTENTS_STEP)?;
        let files = self.db.extent_files();
        // They come in the order of their places: neighbours make one hole, which costs the
        // filesystem below what each of them would.
        let mut hole: Option<Hole> = None;
        for freed in &page.extents {
            // No row of a chunk refers to what is free, as far as all rows are right.
            if self.db.reader().is_in_use(freed)? {
                continue;
            }
            let bytes = files.aligned(u64::from(freed.len));
            match &mut hole {
                Some(hole) if hole.ends_at(freed.place) => hole.bytes += bytes,
                Some(_) | None => {
                    let before = hole.replace(Hole { place: freed.place, bytes });
                    before.map_or(Ok(()), |hole| files.punch(hole.place, hole.bytes))?;
                }
            }
        }
        hole.map_or(Ok(()), |hole| files.punch(hole.place, hole.bytes))?;
        // The rows go after the holes are there. The other way round a crash in between would leave
        // space that is taken and that no row names any more.
        if page.until != *from {
            committer.write_beside(|db| db.forget_freed(from, &page.until))?;
            tracing::debug!(n_extents = page.extents.len(), last, "space given back");
            *from = page.until;
        }
        Ok(page.is_last)
    }
}
