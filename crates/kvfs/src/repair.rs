//! Putting right what contradicts itself.
//!
//! Names are put right first, for everything else is counted from them. Nothing is invented, and
//! nothing that somebody can reach is deleted: what has lost its name gets one in `/lost+found`, and
//! data that is lost here and archived becomes evicted data.

use std::sync::atomic::AtomicBool;

use tier_types::{ChunkNo, ChunkRange, FileName, Ino, Link, Persisted, Xid};

use crate::counters::Counters;
use crate::fs::Kvfs;
use crate::mend::Mender;
use crate::schema::Table;
use crate::{Finding, FsError, FsckReport};

/// A repair may bring to light what the next round puts right.
const N_ROUNDS_MAX: usize = 3;

/// What puts one contradiction right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Repair {
    /// An inode that cannot be read, but whose rows tell enough, gets new attributes.
    Attributes { ino: Ino },
    /// Rows of an inode that does not exist: it gets attributes, or they go.
    Unowned { table: Table, ino: Ino },
    /// An entry leads nowhere.
    DropEntry { dir: Ino, name: Vec<u8> },
    /// An inode says that it has a name, and its directory does not.
    MissingEntry { ino: Ino, link: Link },
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
    /// A chunk that its map does not want.
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Inodes,
    Names,
    Tree,
    Counts,
    Totals,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Inodes, Self::Names, Self::Tree, Self::Counts, Self::Totals];
}

impl Repair {
    fn stage(&self) -> Stage {
        match self {
            Self::Attributes { .. } | Self::Unowned { .. } => Stage::Inodes,
            Self::DropEntry { .. }
            | Self::MissingEntry { .. }
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
    /// filesystem meanwhile.
    pub fn repair(
        &self,
        archive: &dyn Persisted,
        found: &mut dyn FnMut(Finding),
        stop: &AtomicBool,
    ) -> Result<FsckReport, FsError> {
        let mut n_repaired = 0;
        for _ in 0..N_ROUNDS_MAX {
            let before = n_repaired;
            for stage in Stage::ALL {
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
                if self.check(archive, &mut put_right, stop)?.n_findings == 0 {
                    break;
                }
            }
            if n_repaired == before {
                break;
            }
        }
        self.fsync()?;
        Ok(FsckReport { n_repaired, ..self.fsck(archive, found, stop)? })
    }
}
