//! The check of a filesystem against itself and its archive, and its repair.
//!
//! A `scan` goes through a KVS snapshot and reports each contradiction as a `problem`, with the
//! facts that were seen of it. `repair` is a pure function: a problem's facts give a repair and its
//! stage, or nothing. `apply` carries one repair out on the live filesystem. Each of the three
//! knows only those before it, and this module runs them.
//!
//! # Stages
//! Much of what is stored is said twice: names by directories and by inodes, sums by what they sum
//! up, totals by the sums; and some is in the archive as well. A repair makes the two agree, and
//! which of them is right can be told only if what both are about is right already. So repairs go
//! in stages, and each stage scans anew, to see what the ones before it made:
//!
//! 1. **Inodes.** A directory of which only the attributes are lost gets new ones, of root alone;
//!    rows of inodes of which there is neither name nor data go. Now every name has two ends, or
//!    one.
//! 2. **Links.** A name that an inode has comes into its directory, unless an inode that exists has
//!    it with more right. The inode's word comes first, because it is what the archive holds.
//! 3. **Names.** Entries that lead nowhere go; a name that only a directory has comes to its inode
//!    if that misses one by its link count, and goes otherwise; listings are made from entries.
//! 4. **Tree.** What has no name, or from where no way leads up to the root, comes into
//!    `/lost+found` with all that lies below it. Now every inode is reachable by the names that it
//!    has.
//! 5. **Counts.** Link counts, local bytes and lists are made from the names and maps; a lost chunk
//!    that the archive has in exactly its version becomes an evicted one.
//! 6. **Totals**, from the counts.
//!
//! A repair can bring to light what only the next round can repair (a directory that came back has
//! entries that nothing looked at before), so there are up to `N_ROUNDS_MAX` rounds; a round that
//! repairs nothing is the last.
//!
//! # What the key-value store cannot read
//! A block of a table file whose checksum does not fit takes the rows in it along, and nothing
//! else. The scan says what it could not read, with the inode and the file, and goes on: behind the
//! block, and row by row where other tables name the inodes that may lie in it. A chunk that cannot
//! be read is repaired as a lost one is; a name is, if its inode knows it, by a new row, which is
//! read before the old one. The block stays where it is, so that the check goes on naming it.
//!
//! # A repair that is cut off
//! Between the second stage and the fifth link counts are wrong, and a removal that goes by one
//! would delete data that has another name. So a mark in the store says that a repair is under way;
//! it is durable before the first change, and goes after everything that was repaired is durable.
//! While it is there orphans are not deleted at opening, and the program refuses to use the
//! filesystem for anything but the next repair, which starts from the first stage and finishes the
//! work: every repair looks again at what it is about before it changes it, so that it can be done
//! twice.

mod apply;
mod problem;
mod repair;
mod scan;

use std::sync::atomic::AtomicBool;

use tier_types::Persisted;

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;
use apply::Apply;
use repair::{Repair, Stage};

pub use problem::{Finding, FsckReport, Problem};

/// A repair may bring to light what the next round repairs.
const N_ROUNDS_MAX: usize = 3;

impl Core {
    /// Checks that every entry has its inode and every inode its names, that link counts are right,
    /// that chunk maps and chunks agree, that the archive has what was evicted, and that the totals
    /// are the sums. It looks at one point in time, reads all that is in the store, and changes
    /// nothing. It ends with [`FsError::Interrupted`] when `stop` becomes true.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::AtomicBool;
    /// # use kvfs::{Core, KvfsOptions};
    /// # use tier_types::{ChunkRange, Ino, Persisted, PortError, SnapshotId, SystemClock, Xid};
    /// struct NothingArchived;
    ///
    /// impl Persisted for NothingArchived {
    ///     fn first_persisted(
    ///         &self,
    ///         _: Ino,
    ///         _: ChunkRange,
    ///         _: Xid,
    ///     ) -> Result<Option<ChunkRange>, PortError> {
    ///         Ok(None)
    ///     }
    ///
    ///     fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
    ///         Ok(None)
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let core = Core::create(dir.path(), &KvfsOptions::default(), Arc::new(SystemClock))?;
    /// let mut problems = Vec::new();
    /// let mut found = |finding: kvfs::check::Finding| problems.push(finding.problem.name());
    /// let report = core.fsck(&NothingArchived, &mut found, &AtomicBool::new(false))?;
    /// assert_eq!((report.n_inodes, problems.len()), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fsck(
        &self,
        archive: &dyn Persisted,
        found: &mut dyn FnMut(Finding),
        stop: &AtomicBool,
    ) -> Result<FsckReport, FsError> {
        let mut tell = |finding| {
            found(finding);
            Ok(())
        };
        scan::scan(self, archive, &mut tell, stop)
    }

    /// Checks as [`fsck`](Self::fsck) does, and repairs what can be. `found` hears of everything
    /// that was repaired, and then of everything that is left, which the report counts. Nothing
    /// else may use the filesystem meanwhile, or afterwards if it does not come to its end: link
    /// counts may be wrong until then, see [`repair_is_unfinished`](Self::repair_is_unfinished).
    pub fn repair(
        &self,
        archive: &dyn Persisted,
        found: &mut dyn FnMut(Finding),
        stop: &AtomicBool,
    ) -> Result<FsckReport, FsError> {
        self.check_writable()?;
        let (mut n_repaired, mut clean) = (0, None);
        for round in 1..=N_ROUNDS_MAX {
            // A scan that only looks: where nothing is wrong, nothing is written.
            let (first, report) = self.first_stage(archive, stop)?;
            clean = (report.n_findings == 0).then_some(report);
            let Some(first) = first else { break };
            self.set_repairing(true)?;
            let before = n_repaired;
            for stage in Stage::ALL.into_iter().filter(|stage| *stage >= first) {
                let n_now = self.repair_stage(stage, archive, found, stop)?;
                tracing::info!(round, ?stage, n_repaired = n_now, "repaired a stage");
                n_repaired += n_now;
            }
            // What is left cannot be repaired, or only by what cannot be repaired.
            if n_repaired == before {
                break;
            }
        }
        // The last look found nothing, and nothing was changed since: a second one would read the
        // whole store for the same answer.
        let left = match clean {
            Some(report) => report,
            None => self.fsck(archive, found, stop)?,
        };
        // What was repaired is durable before the mark goes.
        self.fsync()?;
        self.set_repairing(false)?;
        if left.n_unreadable == 0 {
            self.db.compact_if_whole()?;
        }
        Ok(FsckReport { n_repaired, ..left })
    }

    /// Records, durably, whether a repair is under way.
    fn set_repairing(&self, is_repairing: bool) -> Result<(), FsError> {
        let _room = self.admit(Purpose::Removal, ROWS_BYTES)?;
        self.committer.write_beside(|db| db.set_repairing(is_repairing))?;
        self.committer.sync()
    }

    /// Repairs what belongs to one stage, and says how much that was.
    fn repair_stage(
        &self,
        stage: Stage,
        archive: &dyn Persisted,
        found: &mut dyn FnMut(Finding),
        stop: &AtomicBool,
    ) -> Result<u64, FsError> {
        let mut n_repaired = 0;
        let apply = Apply::new(self);
        let mut repair_one = |finding: Finding| {
            let planned = Repair::of(&finding).filter(|repair| repair.stage() == stage);
            // The finding may be older than an earlier repair of this stage, which may have settled
            // it: what is right by then counts as repaired, and is not touched again.
            if let Some(repair) = planned
                && apply.apply(repair)?
            {
                n_repaired += 1;
                found(Finding { repaired: true, ..finding });
            }
            Ok(())
        };
        scan::scan(self, archive, &mut repair_one, stop)?;
        Ok(n_repaired)
    }

    /// Whether a repair was begun that did not come to its end: then names and counts may disagree,
    /// and only the next repair should change anything.
    pub fn repair_is_unfinished(&self) -> Result<bool, FsError> {
        self.reader().is_repairing()
    }

    /// The first stage in which there is something to do, and what was looked at.
    fn first_stage(
        &self,
        archive: &dyn Persisted,
        stop: &AtomicBool,
    ) -> Result<(Option<Stage>, FsckReport), FsError> {
        let mut first: Option<Stage> = None;
        let mut look = |finding| {
            let stage = Repair::of(&finding).map(|repair| repair.stage());
            first = first.into_iter().chain(stage).min();
            Ok(())
        };
        let report = scan::scan(self, archive, &mut look, stop)?;
        Ok((first, report))
    }
}
