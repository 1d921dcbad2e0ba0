//! The key-value store is opened again in its place, after an error that poisoned the committer.
//!
//! The leader is held meanwhile: no batch is written, and ids go on behind the last transaction
//! that the store has. All that was committed must be in it, because the kernel knows inodes by
//! numbers that would be given out again.

use std::time::Instant;

use tier_types::Xid;

use super::health::{Health, Reopening};
use super::{Committer, Leader, REOPEN_INTERVAL};
use crate::FsError;
use crate::store::Db;

impl Leader {
    /// What an operation is told that was decided before the key-value store was opened again: if a
    /// full disk was the reason, that.
    pub(super) fn overtaken(&self) -> FsError {
        let error = FsError::Reopened;
        match self.reopened {
            Some(Reopening { after, .. }) => after.refusal_instead_of(error),
            None => error,
        }
    }
}

impl Committer {
    /// What an operation is told while the key-value store must be opened again.
    pub(crate) fn refusal(&self) -> Option<FsError> {
        self.group.leader().health.refusal()
    }

    /// Opens the key-value store again, which `reopen` does, if an error of it made that necessary.
    /// It says which transaction is the last one in it. If one is missing that was committed, the
    /// committer stays poisoned: inodes that the kernel knows would not be there, and their numbers
    /// would be given out again.
    pub(crate) fn reopen(
        &self,
        reopen: impl FnOnce(&Db) -> Result<Xid, FsError>,
    ) -> Result<(), FsError> {
        let mut leader = self.group.leader();
        let Some(refusal) = leader.health.refusal() else { return Ok(()) };
        // A disk that stays broken would be asked with every operation.
        if leader.reopened.is_some_and(|last| last.at.elapsed() < REOPEN_INTERVAL) {
            return Err(refusal);
        }
        leader.reopened = Some(Reopening { at: Instant::now(), after: leader.health });
        // Not now, if the store is read from, or the disk does not even take an opening.
        let reopened = reopen(&self.db);
        // What is decided from now on goes by the new database, what was before must not follow.
        leader.room.note_reopening();
        let last = reopened.map_err(|error| leader.health.refusal_instead_of(error))?;
        let committed = leader.last_xid();
        if last < committed {
            tracing::error!(%last, %committed, "an error of the disk took what was not synced");
            return Err(FsError::Poisoned);
        }
        // From the store and not from memory: a batch that was reported as failed may be in the
        // write-ahead log all the same, and its totals and ids count from now on.
        leader.counters = self.db.reader().counters()?.ok_or(FsError::Poisoned)?;
        leader.next_xid = last.next();
        leader.set_health(Health::Well);
        tracing::warn!(%last, "the key-value store was opened again after an error of the disk");
        Ok(())
    }

    /// As after an error of the disk.
    #[cfg(test)]
    pub(crate) fn poison(&self) {
        self.group.leader().set_health(Health::Poisoned);
    }

    /// The last attempt to open the key-value store again was a moment ago, however slow the test
    /// is.
    #[cfg(test)]
    pub(crate) fn defer_reopening(&self) {
        if let Some(last) = &mut self.group.leader().reopened {
            last.at = Instant::now() + REOPEN_INTERVAL * 1000;
        }
    }

    /// The next attempt to open the key-value store again need not wait.
    #[cfg(test)]
    pub(crate) fn forget_reopening(&self) {
        self.group.leader().reopened = None;
    }
}
