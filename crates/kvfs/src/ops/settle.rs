//! Settling: what readers see of a cut file takes the place of what is stored, piece by piece.
//!
//! The reaper does it in the background. An operation does it by itself when the file has as many
//! cut marks as it can have: rising cuts and separate holes leave one each, and a file that is cut
//! faster than the reaper comes after is held up here, by the steps of its own marks.

use tier_types::{ChunkRange, ChunkRun, Ino};

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;
use crate::tx::MapWindow;

/// Rows that a step replaces if an operation waits for it.
const N_ROWS_STEP: u64 = 1000;

/// What the deletion of a row takes, with that of what it refers to.
pub(crate) const ROW_BYTES: u64 = 128;

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    /// There is no cut inode.
    Nothing,
    /// A part of a mark; others are left.
    Part,
    /// The last part of the last mark.
    All,
}

impl Core {
    /// Settles the start of an inode's first cut mark, as far as `n_rows` rows and chunks reach.
    pub(crate) fn settle_step(&self, ino: Ino, n_rows: u64) -> Result<Settled, FsError> {
        let permit = self.admit(Purpose::Reclaim, ROWS_BYTES + n_rows * ROW_BYTES)?;
        let guard = self.locks.lock(&[ino]);
        let reader = self.db.reader();
        let Some(attr) = reader.find_attr(ino)? else { return Ok(Settled::Nothing) };
        let marks = reader.cut_marks(ino)?;
        let Some(mark) = marks.marks().first().copied() else { return Ok(Settled::Nothing) };
        // Only the chunks of dead runs are deleted.
        let is_dead = |run: &ChunkRun| run.data_xid < mark.xid && run.state.is_resident();
        let reach = reader.reach(ino, mark.chunks, n_rows, is_dead)?;
        let Some(chunks) = ChunkRange::new(mark.chunks.start(), reach) else {
            return Ok(Settled::Nothing);
        };
        let is_last = marks.marks().len() == 1 && reach == mark.chunks.end();
        let window = MapWindow::load(reader, ino, chunks, self.size_of(&attr))?;
        self.committer.commit(permit, 0, move |draft| {
            window.settle(draft);
            window.put_sums(draft);
        })?;
        tracing::debug!(%ino, %chunks, cut = %mark.xid, "settled what was cut");
        // The listener may ask for the inode's attributes.
        drop(guard);
        self.residency_changed(ino);
        Ok(if is_last { Settled::All } else { Settled::Part })
    }

    /// Settles marks of an inode until there is room for one more.
    pub(super) fn make_room_for_mark(&self, ino: Ino) -> Result<(), FsError> {
        // The reaper may be at the same marks. Each step looks anew under the lock, so that no
        // piece is settled twice; an inode that is gone has no marks and ends the loop.
        while self.db.reader().cut_marks(ino)?.are_full() {
            self.settle_step(ino, N_ROWS_STEP)?;
        }
        Ok(())
    }
}
