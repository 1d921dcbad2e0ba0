//! The reaper: it deletes what operations left behind, in bounded steps.
//!
//! Three kinds of work come to it, and each waits in a table of its own, so that a crash loses none
//! of it:
//!
//! - **Orphans**: inodes without a name to which nothing refers any more. Those that the kernel
//!   forgets are told to the reaper; those that a crash or a restore left are looked for once after
//!   opening. Many are deleted in one commit.
//! - **Dying inodes**: deleted, with more rows than the deletion's own transaction should have. A
//!   step reads the first rows that are left of them and deletes each by its key, those of many
//!   inodes in one commit, and writes how far it came. When nothing is left the inode leaves the
//!   table, in the same batch.
//! - **Cut marks**: runs that are dead and still stored. A step goes so far from the start of a
//!   mark, puts what readers see in place of what is stored, deletes the chunks of dead runs, and
//!   takes that part out of the mark, all in one batch under the inode's lock.
//!
//! # Crash windows
//! Every step is one batch for each inode: a crash leaves the inode as it was before the step or
//! after it, and both are states that the next step goes on from. Nothing that readers see changes
//! by a step: of a dying inode they see nothing, and of a cut inode the same runs. So a step is no
//! operation, and snapshots that were taken before it show the same as those taken after it.
//!
//! # Order against others
//! Nothing but the reaper touches the rows of a dying inode: its attributes are gone, which every
//! operation looks for under the inode's lock, and its number is never used again. So these steps
//! take no lock. A step for a cut inode takes its lock, as every change of its map does.
//!
//! A step makes room, and so it never waits for any. Its thread yields while requests come in,
//! unless space is low: a step holds up no commit for longer than its batch takes to be written,
//! and between two steps the thread waits a moment. While a repair is unfinished there are no
//! steps: the tables may be wrong.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tier_types::{Ino, to_u64, with_causes};

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::ops::{ROW_BYTES, Settled};
use crate::reaping::Rounds;
use crate::space::Purpose;
use crate::store::{Dying, Leftovers};

/// Rows that a step of the thread deletes.
const N_ROWS_STEP: usize = 1000;

/// Inodes of a table that a step looks at.
const N_INODES_STEP: usize = 100;

/// After an error, until the next attempt.
const RETRY: Duration = Duration::from_secs(10);

/// Between two steps while the filesystem is in use. Not shorter: a cut takes the place of those
/// behind it that were not settled yet, so that waiting saves work, and on a machine of few
/// processors each step takes one from the operations.
const PAUSE: Duration = Duration::from_millis(20);

/// The thread of the reaper. Dropped, it stops the thread and waits for the end of its step; the
/// work that is left is gone on with when the next reaper is started, on this or another opening.
#[derive(Debug)]
pub struct Reaper {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread, once for a filesystem.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use kvfs::{Core, KvfsOptions, Reaper};
    /// use tier_types::SystemClock;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let core = Core::create(dir.path(), &KvfsOptions::default(), Arc::new(SystemClock))?;
    /// let core = Arc::new(core);
    /// let reaper = Reaper::start(&core)?;
    /// // Files are made, cut and removed; what is left of them goes meanwhile.
    /// drop(reaper);
    /// // A step can be made without the thread, too.
    /// assert!(!core.reap(1000)?, "nothing is left to do");
    /// # Ok(())
    /// # }
    /// ```
    pub fn start(core: &Arc<Core>) -> io::Result<Self> {
        // Before the thread is there: made by the thread, this could undo a stop that came first,
        // and the join would wait for ever.
        core.reaping.start();
        let core = Arc::clone(core);
        let reaped = Arc::clone(&core);
        let builder = thread::Builder::new().name("kvfs-reaper".into());
        let thread = builder.spawn(move || run(&reaped))?;
        Ok(Self { core, thread: Some(thread) })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.core.reaping.stop();
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(core: &Core) {
    let mut retry = None;
    while core.reaping.wait(retry.take()) {
        loop {
            match core.reap(N_ROWS_STEP) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // Nothing is lost: the tables say what is to be done.
                    tracing::warn!(error = %with_causes(&error), "the reaper could not go on");
                    retry = Some(RETRY);
                    break;
                }
            }
            // On an idle filesystem no operation comes that would give back what the steps freed.
            core.bound_backlogs();
            let pause = if core.activity.is_foreground() { PAUSE } else { Duration::ZERO };
            if !core.reaping.pause(pause) {
                return;
            }
        }
    }
}

/// A dying inode, and what of it goes.
struct Reaped {
    ino: Ino,
    before: Dying,
    left: Leftovers,
}

impl Core {
    /// Deletes about `n_rows` rows, two at least, of what deleted inodes and cuts left behind.
    /// Whether there may be more.
    pub fn reap(&self, n_rows: usize) -> Result<bool, FsError> {
        assert!(n_rows > 1, "a step deletes a row and a chunk at least");
        let mut rounds = self.reaping.turn();
        if !self.may_reap()? {
            return Ok(false);
        }
        // In this order, because a large orphan is deleted by becoming a dying inode; and one kind
        // of work at a time, so that a step stays as small as was asked.
        Ok(self.reap_forgotten(&mut rounds)?
            || self.reap_orphans(&mut rounds)?
            || self.reap_dying(&mut rounds, n_rows)?
            || self.reap_cuts(&mut rounds, n_rows)?)
    }

    /// Nothing is done in a filesystem that is behind its own archive, nor under repair.
    fn may_reap(&self) -> Result<bool, FsError> {
        Ok(self.committer.check_writable().is_ok() && !self.db.reader().is_repairing()?)
    }

    /// Bytes of deleted inodes that the reaper has yet to delete: space that is coming.
    pub fn dying_bytes(&self) -> u64 {
        self.committer.counters().dying_bytes()
    }

    /// Deletes all orphans whose last reference went before this.
    pub(crate) fn reap_all_forgotten(&self) -> Result<(), FsError> {
        let mut rounds = self.reaping.turn();
        while self.may_reap()? && self.reap_forgotten(&mut rounds)? {}
        Ok(())
    }

    fn reap_forgotten(&self, rounds: &mut Rounds) -> Result<bool, FsError> {
        let orphans = self.reaping.next_orphans(rounds, N_INODES_STEP);
        // They are tried again: one that is not deleted keeps its room until the next opening.
        self.delete_orphans(&orphans).inspect_err(|_| self.reaping.put_back_orphans(&orphans))?;
        Ok(!orphans.is_empty())
    }

    fn reap_orphans(&self, rounds: &mut Rounds) -> Result<bool, FsError> {
        if rounds.orphans_are_done {
            return Ok(false);
        }
        let orphans = self.db.reader().listed_orphans(rounds.orphans, N_INODES_STEP)?;
        // One that is referred to is passed over for good: its last reference tells of it.
        self.delete_orphans(&orphans)?;
        match orphans.last() {
            Some(last) => rounds.orphans = *last,
            None => rounds.orphans_are_done = true,
        }
        Ok(!orphans.is_empty())
    }

    fn reap_dying(&self, rounds: &mut Rounds, n_rows: usize) -> Result<bool, FsError> {
        // From where the round is, and then from the start.
        for start in [rounds.dying, Ino::default()] {
            rounds.dying = start;
            // Taken before the rows are read: if the store is opened again in between, the commit
            // is refused, and nothing is deleted by what the old database said.
            let epoch = self.room.epoch();
            let reaped = self.leftovers_of_dying(rounds, n_rows)?;
            if !reaped.is_empty() {
                self.delete_reaped(reaped, epoch)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a step deletes of the dying inodes that come next.
    fn leftovers_of_dying(
        &self,
        rounds: &mut Rounds,
        n_rows: usize,
    ) -> Result<Vec<Reaped>, FsError> {
        let reader = self.db.reader();
        let mut reaped = Vec::new();
        let mut n_left = n_rows;
        for ino in reader.dying_inodes(rounds.dying, N_INODES_STEP)? {
            // A row that cannot be read is found by the check, and so is one of an inode that
            // exists: nothing of that is deleted because a list says so.
            if let Some(before) = reader.dying(ino)?
                && !reader.has_inode(ino)?
            {
                let left = match reader.leftovers(ino, before.next, n_left) {
                    Ok(left) => left,
                    // The check names what cannot be read; the others go.
                    Err(error) if error.is_damage() => {
                        rounds.dying = ino;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let is_complete = left.is_complete;
                // The row in the table of the dying is one, too.
                n_left = n_left.saturating_sub(left.n_rows() + 1);
                reaped.push(Reaped { ino, before, left });
                if !is_complete {
                    // The next step goes on with this one.
                    break;
                }
            }
            rounds.dying = ino;
            if n_left == 0 {
                break;
            }
        }
        Ok(reaped)
    }

    fn delete_reaped(&self, reaped: Vec<Reaped>, epoch: u64) -> Result<(), FsError> {
        let n_inodes = reaped.len();
        let n_rows: usize = reaped.iter().map(|reaped| reaped.left.n_rows()).sum();
        let chunk_bytes = u64::from(self.chunk_bytes);
        let bytes = ROWS_BYTES + to_u64(n_rows + n_inodes) * ROW_BYTES;
        let permit = self.admit_since(epoch, Purpose::Reclaim, bytes)?;
        self.committer.commit(permit, 0, move |draft| {
            for Reaped { ino, before, left } in &reaped {
                draft.delete_leftovers(*ino, left);
                // The last chunk of a file may have fewer bytes than a chunk.
                let bytes = chunk_bytes.saturating_mul(to_u64(left.chunks.len()));
                let left_bytes = before.resident_bytes.saturating_sub(bytes);
                // The last step takes what the row still says, because the steps before it counted
                // every chunk as a full one.
                if left.is_complete {
                    draft.counters.lose_dying(before.resident_bytes);
                    draft.delete_dying(*ino);
                } else {
                    draft.counters.lose_dying(before.resident_bytes - left_bytes);
                    let next = left.next(before.next);
                    draft.put_dying(*ino, Dying { next, resident_bytes: left_bytes });
                }
            }
        })?;
        tracing::debug!(n_inodes, n_rows, "deleted what was left of inodes");
        Ok(())
    }

    fn reap_cuts(&self, rounds: &mut Rounds, n_rows: usize) -> Result<bool, FsError> {
        for start in [rounds.cut, Ino::default()] {
            for ino in self.db.reader().cut_inodes(start, N_INODES_STEP)? {
                let settled = match self.settle_step(ino, to_u64(n_rows)) {
                    // The check finds it; the others go.
                    Err(error) if error.is_damage() => Settled::Nothing,
                    settled => settled?,
                };
                // One that has more is the next again.
                if settled == Settled::Part {
                    return Ok(true);
                }
                rounds.cut = ino;
                if settled == Settled::All {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use tier_types::{ChunkNo, ChunkState, FileKind, Xid};

    use super::*;
    use crate::Kvfs;
    use crate::space::Permit;
    use crate::store::{DataSums, RunState, Table};
    use crate::testing::{CHUNK, filesystem, name, node};

    const TIB: u64 = 1 << 40;

    /// A file of 1 TiB with `n_runs` chunks of data in it, and a name.
    fn sparse(fs: &Kvfs, n_runs: u64) -> Ino {
        let ino = fs.create_node(Ino::ROOT, &name("f"), &node(FileKind::Regular)).unwrap().ino;
        fs.truncate(ino, TIB).unwrap();
        let distance = TIB / u64::from(CHUNK) / n_runs;
        fs.committer
            .commit(Permit::unchecked(), 0, move |draft| {
                let data_xid = Xid::new(ino.get());
                let hot = RunState { state: ChunkState::Hot, data_xid };
                for number in 0..n_runs {
                    let chunk = ChunkNo::new(number * distance);
                    draft.put_chunk(ino, chunk, &[1; 16]);
                    draft.put_run(ino, chunk, hot);
                    draft.put_run(ino, chunk.next(), RunState { state: ChunkState::Hole, ..hot });
                    draft.counters.gain(ChunkState::Hot, u64::from(CHUNK));
                }
                draft.put_sums(ino, DataSums::default().changed_by(&draft.counters));
            })
            .unwrap();
        ino
    }

    /// Rows that an operation writes and deletes.
    fn n_rows_of(fs: &Kvfs, operation: impl FnOnce(&Kvfs)) -> u64 {
        let before = fs.db.n_writes().unwrap();
        operation(fs);
        fs.db.n_writes().unwrap() - before
    }

    /// The rows of an operation on files of few and of many runs; nothing of it is left in the end.
    fn rows_by_size(operation: impl Fn(&Kvfs, Ino)) -> [u64; 3] {
        [100, 1_000, 10_000].map(|n_runs| {
            let (_dir, fs) = filesystem();
            let ino = sparse(&fs, n_runs);
            let n_rows = n_rows_of(&fs, |fs| operation(fs, ino));
            while fs.reap(500).unwrap() {}
            assert!(
                fs.db.reader().chunk_rows(ino, tier_types::ChunkRange::ALL).unwrap().count() < 3
            );
            assert_eq!(fs.dying_bytes(), 0);
            for table in [Table::Cuts, Table::Dying] {
                assert!(!fs.db.reader().has_rows(table, ino).unwrap(), "{table:?}");
            }
            n_rows
        })
    }

    #[test]
    fn what_an_unlink_writes_does_not_grow_with_the_file() {
        let rows = rows_by_size(|fs, _| {
            fs.unlink(Ino::ROOT, &name("f")).unwrap();
            assert!(fs.dying_bytes() > 0);
            assert_eq!(fs.committer.counters().resident_bytes(), 0, "it counts no more");
        });
        assert!(rows[0] < 20 && rows[0] == rows[1] && rows[1] == rows[2], "{rows:?}");
    }

    #[test]
    fn what_a_last_handle_writes_does_not_grow_with_the_file() {
        let rows = rows_by_size(|fs, ino| {
            let handle = fs.open_handle(ino).unwrap();
            fs.unlink(Ino::ROOT, &name("f")).unwrap();
            assert_eq!(fs.read(ino, 0, 16).unwrap(), [1; 16]);
            drop(handle);
        });
        assert!(rows[0] < 30 && rows[0] == rows[1] && rows[1] == rows[2], "{rows:?}");
    }

    #[test]
    fn what_a_cut_writes_does_not_grow_with_the_file() {
        let rows = rows_by_size(|fs, ino| {
            fs.truncate(ino, 100).unwrap();
            fs.truncate(ino, TIB).unwrap();
            assert_eq!(fs.next_data(ino, 512).unwrap(), None);
        });
        assert!(rows[0] < 20 && rows[0] == rows[1] && rows[1] == rows[2], "{rows:?}");
    }

    #[test]
    fn what_a_hole_writes_does_not_grow_with_the_file() {
        let rows = rows_by_size(|fs, ino| {
            fs.punch_hole(ino, 100, TIB - 200).unwrap();
            assert_eq!(fs.next_data(ino, 512).unwrap(), None);
        });
        assert!(rows[0] < 30 && rows[0] == rows[1] && rows[1] == rows[2], "{rows:?}");
    }

    #[test]
    fn small_files_leave_nothing_to_the_reaper() {
        let (_dir, fs) = filesystem();
        let ino = fs.create_node(Ino::ROOT, &name("f"), &node(FileKind::Regular)).unwrap().ino;
        fs.write(ino, 0, &[1; 3000]).unwrap();
        fs.truncate(ino, 1000).unwrap();
        assert!(!fs.db.reader().has_rows(Table::Cuts, ino).unwrap());
        fs.unlink(Ino::ROOT, &name("f")).unwrap();
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
            let is_log = table == Table::Log;
            assert_eq!(fs.db.reader().has_rows(table, ino).unwrap(), is_log, "{table:?}");
        }
    }

    #[test]
    fn an_inode_that_exists_is_not_reaped_whatever_a_list_says() {
        let (_dir, fs) = filesystem();
        let ino = sparse(&fs, 100);
        let dying = Dying { next: ChunkNo::new(0), resident_bytes: 7 };
        fs.committer
            .commit(Permit::unchecked(), 0, move |draft| draft.put_dying(ino, dying))
            .unwrap();
        assert!(!fs.reap(10).unwrap());
        assert_eq!(fs.read(ino, 0, 16).unwrap(), [1; 16]);
    }
}
