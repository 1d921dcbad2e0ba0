//! Admission: how an operation comes by the permission to commit, and what it does when there is no
//! room.
//!
//! What waits for room never holds a lock, and what makes room never waits for any. An operation
//! that finds no room is refused at once; a caller that may wait does it again as a whole
//! ([`Core::do_when_possible`]). What was deleted a moment ago is room that comes: it is worked off
//! first.

use std::thread;
use std::time::{Duration, Instant};

use tier_types::ErrorKind;

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::{Permit, Purpose};

/// Rows that are deleted between two looks whether there is room.
const REAP_ROWS_STEP: usize = 4000;

/// How long what finds no room works off what was deleted before it is refused, where other
/// operations wait for the same thread.
const REAP_BRIEF: Duration = Duration::from_secs(1);

/// Between two attempts of what waits for room. It may come from outside of this process as well,
/// of which nothing tells.
const ROOM_INTERVAL: Duration = Duration::from_millis(50);
/// Between two attempts of what waits for an archive that is away.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);

impl Core {
    /// Asks for room for a mutation, and waits for nothing. No lock may be held: what makes room
    /// must not wait for an operation that waits for room.
    pub(crate) fn admit(&self, purpose: Purpose, bytes: u64) -> Result<Permit<'_>, FsError> {
        self.recover()?;
        match self.room.admit(purpose, bytes) {
            // What was removed or replaced a moment ago may be all that is missing.
            Err(FsError::NoSpace(_)) if self.freed.give_back_for_room(&self.committer) => {
                self.room.forget_look();
                self.room.admit(purpose, bytes)
            }
            admitted => admitted,
        }
    }

    /// Asks for room for a change that was decided by what was read since an epoch of the room.
    pub(crate) fn admit_since(
        &self,
        epoch: u64,
        purpose: Purpose,
        bytes: u64,
    ) -> Result<Permit<'_>, FsError> {
        let permit = self.admit(purpose, bytes)?;
        // The question itself may have opened the key-value store again. Its permit is of the new
        // epoch then, so that the committer would take a change that was decided by the old
        // database.
        if permit.epoch() == Some(epoch) { Ok(permit) } else { Err(FsError::Reopened) }
    }

    /// Asks for room for what stays. If there is none, what was deleted and cut is worked off
    /// first, as far as that goes within a moment: space of the dying is space that comes.
    pub(crate) fn admit_growth(&self, bytes: u64) -> Result<Permit<'_>, FsError> {
        self.admit_growth_within(REAP_BRIEF, bytes)
    }

    /// The same with a time.
    pub(crate) fn admit_growth_within(
        &self,
        at_most: Duration,
        bytes: u64,
    ) -> Result<Permit<'_>, FsError> {
        let begin = Instant::now();
        loop {
            let refused = match self.admit(Purpose::Growth, bytes) {
                Err(refused @ FsError::NoSpace(_)) => refused,
                admitted => return admitted,
            };
            if !self.reap_for_room() || begin.elapsed() >= at_most {
                return Err(refused);
            }
        }
    }

    /// Works off a part of what was deleted. Whether there was any.
    fn reap_for_room(&self) -> bool {
        match self.reap(REAP_ROWS_STEP) {
            Ok(is_reaped) => {
                if is_reaped {
                    self.room.forget_look();
                }
                is_reaped
            }
            // That is no answer to the question: there is no room, and the caller says so.
            Err(error) => {
                tracing::debug!(%error, "no space comes back");
                false
            }
        }
    }

    /// An error if there is no room for a few rows.
    pub(crate) fn check_growth(&self) -> Result<(), FsError> {
        self.admit_growth(ROWS_BYTES).map(drop)
    }

    /// Whether an operation that found no room may find some later.
    pub fn room_may_come(&self) -> bool {
        self.room.is_expected() || self.dying_bytes() > 0 || self.reaping.has_orphans()
    }

    /// Does an operation, and does it again for as long as it finds no room and some may come, or
    /// evicted data whose archive is away, for a time that counts from `since`, unless it is not
    /// wanted any more for what it failed of. What was deleted is worked off meanwhile. No lock may
    /// be held.
    pub fn do_when_possible<T>(
        &self,
        since: Instant,
        is_wanted: &dyn Fn(&FsError) -> bool,
        operation: &mut dyn FnMut() -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        // What makes room goes by how many operations wait for it, and for nothing else.
        let mut waiting = None;
        loop {
            let failed = match operation() {
                Err(failed) => failed,
                done => return done,
            };
            let wants_room = matches!(failed, FsError::NoSpace(_)) && self.room_may_come();
            let away_for = away_for(&failed);
            let time_left = self.room.wait_max().saturating_sub(since.elapsed());
            if !(wants_room || away_for.is_some()) || !is_wanted(&failed) || time_left.is_zero() {
                return Err(failed);
            }
            if let Some(rest) = away_for {
                waiting = None;
                thread::park_timeout(rest.min(time_left));
                continue;
            }
            waiting.get_or_insert_with(|| self.room.begin_waiting());
            if !self.reap_for_room() {
                self.room.pause(ROOM_INTERVAL);
            }
        }
    }
}

/// How long an archive is left alone that is away, so that evicted data did not come; `None` for
/// any other error. Nothing tells of its return.
fn away_for(error: &FsError) -> Option<Duration> {
    let FsError::Recall { source, .. } = error else { return None };
    let kind = source.kind();
    let asked = if let ErrorKind::Throttled { after } = kind { after } else { None };
    kind.may_pass().then(|| asked.unwrap_or_default().max(AWAY_INTERVAL))
}
