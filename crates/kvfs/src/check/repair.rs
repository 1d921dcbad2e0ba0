//! Putting right what contradicts itself.
//!
//! Names are put right first, for everything else is counted from them; what an inode says of its
//! names counts for more than what a directory says. Nothing is invented, and no data is deleted that
//! may be somebody's: what has lost its name gets one in `/lost+found`, data that is lost here and
//! archived becomes evicted data, and what cannot be told stays as it is (`docs/adr/0014`).

use std::sync::atomic::AtomicBool;

use tier_types::{ChunkNo, ChunkRange, FileName, Ino, Link, Persisted, Xid};

use crate::counters::Counters;
use crate::db::Changes;
use crate::fs::Kvfs;
use crate::mend::Mender;
use crate::schema::{META_REPAIRING, Table};
use crate::{Finding, FsError, FsckReport};

/// A repair may bring to light what the next round puts right.
const N_ROUNDS_MAX: usize = 3;

/// What puts one contradiction right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Repair {
    /// What must be a directory has no attributes that can be read.
    Directory { ino: Ino },
    /// Rows of an inode that does not exist.
    Unowned { table: Table, ino: Ino },
    /// The root has a name.
    RootName { link: Link },
    /// An inode says that it has a name, and its directory does not.
    MissingEntry { ino: Ino, link: Link },
    /// An entry leads nowhere.
    DropEntry { dir: Ino, name: Vec<u8> },
    /// A directory says that an inode has a name, and the inode does not.
    MissingLink { ino: Ino, link: Link },
    /// An entry is not found by its cookie.
    Relist { dir: Ino, name: FileName },
    /// A directory lists names that it does not have.
    SweepCookies { dir: Ino },
    /// An inode cannot be reached.
    Home { ino: Ino },
    /// An inode is listed as an orphan and is none.
    NoOrphan { ino: Ino },
    /// A wrong link count.
    LinkCount { ino: Ino, n_links: u64 },
    /// A chunk beyond the end of its file.
    DropChunk { ino: Ino, chunk: ChunkNo },
    /// Lost chunks that the archive has.
    MakeCold { ino: Ino, chunks: ChunkRange, data_xid: Xid },
    /// A wrong sum of local bytes.
    Resident { ino: Ino },
    /// An inode with recalled data is not listed.
    Warm { ino: Ino },
    /// Wrong totals.
    Totals { counted: Counters },
}

/// What is put right together: each stage counts on those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    Inodes,
    Links,
    Names,
    Tree,
    Counts,
    Totals,
}

impl Stage {
    const ALL: [Self; 6] =
        [Self::Inodes, Self::Links, Self::Names, Self::Tree, Self::Counts, Self::Totals];
}

impl Repair {
    fn stage(&self) -> Stage {
        match self {
            Self::Directory { .. } | Self::Unowned { .. } => Stage::Inodes,
            Self::RootName { .. } | Self::MissingEntry { .. } => Stage::Links,
            Self::DropEntry { .. }
            | Self::MissingLink { .. }
            | Self::Relist { .. }
            | Self::SweepCookies { .. } => Stage::Names,
            Self::Home { .. } => Stage::Tree,
            Self::NoOrphan { .. }
            | Self::LinkCount { .. }
            | Self::DropChunk { .. }
            | Self::MakeCold { .. }
            | Self::Resident { .. }
            | Self::Warm { .. } => Stage::Counts,
            Self::Totals { .. } => Stage::Totals,
        }
    }
}

impl Kvfs {
    /// Checks as [`fsck`](Self::fsck) does, and puts right what can be. `found` hears of everything
    /// that was, and then of everything that is left, which the report counts. Nobody else uses the
    /// filesystem meanwhile, or afterwards if it does not come to its end: link counts may be wrong
    /// until then, see [`repair_is_unfinished`](Self::repair_is_unfinished).
    pub fn repair(
        &self,
        archive: &dyn Persisted,
        found: &mut dyn FnMut(Finding),
        stop: &AtomicBool,
    ) -> Result<FsckReport, FsError> {
        let (mut n_repaired, mut clean) = (0, None);
        for _ in 0..N_ROUNDS_MAX {
            let (first, report) = self.first_stage(archive, stop)?;
            clean = (report.n_findings == 0).then_some(report);
            let Some(first) = first else { break };
            self.set_repairing(true)?;
            let before = n_repaired;
            for stage in Stage::ALL.into_iter().filter(|stage| *stage >= first) {
                let mut put_right = |finding: Finding, repair: Option<Repair>| {
                    let repair = repair.filter(|repair| repair.stage() == stage);
                    if let Some(repair) = repair
                        && Mender(self).carry_out(repair)?
                    {
                        n_repaired += 1;
                        found(Finding { repaired: true, ..finding });
                    }
                    Ok(())
                };
                self.check(archive, &mut put_right, stop)?;
            }
            if n_repaired == before {
                break;
            }
        }
        let left = match clean {
            Some(report) => report,
            None => self.fsck(archive, found, stop)?,
        };
        self.set_repairing(false)?;
        Ok(FsckReport { n_repaired, ..left })
    }

    /// Whether a repair was begun that did not come to its end: then names and counts may disagree,
    /// and only the next repair should change anything.
    pub fn repair_is_unfinished(&self) -> Result<bool, FsError> {
        Ok(self.live().0.get(Table::Meta, META_REPAIRING)?.is_some())
    }

    /// The first stage in which there is something to do, and what was looked at.
    fn first_stage(
        &self,
        archive: &dyn Persisted,
        stop: &AtomicBool,
    ) -> Result<(Option<Stage>, FsckReport), FsError> {
        let mut first: Option<Stage> = None;
        let mut look = |_, repair: Option<Repair>| {
            let stage = repair.map(|repair| repair.stage());
            first = first.into_iter().chain(stage).min();
            Ok(())
        };
        let report = self.check(archive, &mut look, stop)?;
        Ok((first, report))
    }

    fn set_repairing(&self, is_repairing: bool) -> Result<(), FsError> {
        let mut changes = Changes::default();
        match is_repairing {
            true => changes.put(Table::Meta, META_REPAIRING, Vec::new()),
            // What was repaired is durable before.
            false => {
                self.fsync()?;
                changes.delete(Table::Meta, META_REPAIRING);
            }
        }
        self.db.write(changes)?;
        self.db.sync()
    }
}
