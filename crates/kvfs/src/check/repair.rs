//! The plan of a repair: which problem is repaired by what, and in which order. Pure functions.
//!
//! Names are repaired first, for everything else is counted from them; what an inode says of its
//! names counts for more than what a directory says. Nothing is invented, and no data is deleted
//! that may be a file's: what has lost its name gets one in `/lost+found`, data that is lost here
//! and archived becomes evicted data, and what cannot be told stays as it is (`docs/adr/0014`).

use tier_types::{ChunkNo, ChunkRange, FileName, Ino, Link, Xid};

use super::problem::{Finding, Problem};
use crate::store::{Counters, Table};

/// What repairs one contradiction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Repair {
    /// What must be a directory has no attributes that can be read: it gets new ones.
    RecreateDirectory { ino: Ino },
    /// Rows of an inode that does not exist go.
    DeleteUnowned { table: Table, ino: Ino },
    /// The root's name goes.
    DeleteRootName { link: Link },
    /// An inode has a name, and its directory does not.
    ReconcileLink { ino: Ino, link: Link },
    /// An entry that leads nowhere goes.
    DeleteEntry { dir: Ino, name: Vec<u8> },
    /// A directory has a name of an inode, and the inode does not.
    ReconcileEntry { ino: Ino, link: Link, is_listed: bool },
    /// An entry comes to its place in the listing.
    ListEntry { dir: Ino, name: FileName },
    /// Names that a directory does not have leave its listing.
    SweepListing { dir: Ino },
    /// An inode that cannot be reached comes into `/lost+found`.
    MoveToLostAndFound { ino: Ino },
    /// An inode leaves the list of orphans.
    UnlistOrphan { ino: Ino },
    /// A link count is set.
    SetLinkCount { ino: Ino, n_links: u64 },
    /// A chunk behind the end of its file goes.
    DeleteChunk { ino: Ino, chunk: ChunkNo },
    /// Lost or unreadable chunks that the archive has become evicted ones.
    MakeCold { ino: Ino, chunks: ChunkRange, data_xid: Xid },
    /// The sums of bytes are made anew.
    SumResident { ino: Ino },
    /// An inode comes onto the list of those with recalled data.
    ListWarm { ino: Ino },
    /// An inode that exists is not deleted.
    UnlistDying { ino: Ino },
    /// The reaper starts anew with a dying inode.
    RestartDying { ino: Ino },
    /// The totals are set.
    SetTotals { counted: Counters },
}

/// What is repaired together: each stage counts on those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    Inodes,
    Links,
    ListedNames,
    Names,
    Tree,
    Counts,
    Totals,
}

impl Stage {
    pub(super) const ALL: [Self; 7] = [
        Self::Inodes,
        Self::Links,
        Self::ListedNames,
        Self::Names,
        Self::Tree,
        Self::Counts,
        Self::Totals,
    ];
}

impl Repair {
    /// What repairs a finding; `None` if nothing does.
    pub(super) fn of(finding: &Finding) -> Option<Self> {
        match (finding.ino, &finding.problem) {
            (Some(ino), problem) => Self::of_inode(ino, problem),
            (None, Problem::Totals { counted, is_certain: true, .. }) => {
                Some(Self::SetTotals { counted: *counted })
            }
            (None, _) => None,
        }
    }

    fn of_inode(ino: Ino, problem: &Problem) -> Option<Self> {
        Some(match problem {
            Problem::RootMissing { can_be_recreated: true }
            | Problem::AttributesUnreadable { can_be_recreated: true } => {
                Self::RecreateDirectory { ino }
            }
            Problem::DirectoryLost { dir, can_be_recreated: true } => {
                Self::RecreateDirectory { ino: *dir }
            }
            // Entries are names of other inodes. Where their directory cannot be made anew they
            // stay, because a deletion could not be taken back.
            Problem::Unowned { table: Table::Entries, can_be_recreated } => {
                return can_be_recreated.then_some(Self::RecreateDirectory { ino });
            }
            Problem::Unowned { table, .. } => Self::DeleteUnowned { table: *table, ino },
            Problem::RootNamed { link } => Self::DeleteRootName { link: link.clone() },
            Problem::EntryMissing { link } => Self::ReconcileLink { ino, link: link.clone() },
            Problem::LinkMissing { link, is_listed } => {
                Self::ReconcileEntry { ino, link: link.clone(), is_listed: *is_listed }
            }
            Problem::EntryUnreadable { name } => Self::DeleteEntry { dir: ino, name: name.clone() },
            Problem::EntryDead { name, is_dead: true, .. } => {
                Self::DeleteEntry { dir: ino, name: name.as_bytes().to_vec() }
            }
            Problem::EntryUnlisted { name } => Self::ListEntry { dir: ino, name: name.clone() },
            Problem::ListingLength { .. } => Self::SweepListing { dir: ino },
            Problem::Nameless | Problem::Unreachable => Self::MoveToLostAndFound { ino },
            Problem::NamedOrphan => Self::UnlistOrphan { ino },
            Problem::LinkCount { expected, is_certain: true, .. } => {
                Self::SetLinkCount { ino, n_links: *expected }
            }
            Problem::ChunkUnmapped { chunk, is_beyond_end: true } => {
                Self::DeleteChunk { ino, chunk: *chunk }
            }
            Problem::ChunksLost { chunks, data_xid, is_archived: true }
            | Problem::LostRange { chunks, data_xid, is_archived: true }
            | Problem::ChunksUnreadable { chunks, data_xid, is_archived: true, .. } => {
                Self::MakeCold { ino, chunks: *chunks, data_xid: *data_xid }
            }
            Problem::ResidentUnreadable | Problem::ResidentBytes { .. } => {
                Self::SumResident { ino }
            }
            Problem::WarmUnlisted => Self::ListWarm { ino },
            Problem::DyingExists => Self::UnlistDying { ino },
            Problem::DyingUnreadable => Self::RestartDying { ino },
            // What is said nowhere else stays as it is.
            Problem::RootMissing { can_be_recreated: false }
            | Problem::AttributesUnreadable { can_be_recreated: false }
            | Problem::DirectoryLost { can_be_recreated: false, .. }
            | Problem::EntryDead { is_dead: false, .. }
            | Problem::LinkCount { is_certain: false, .. }
            | Problem::ChunkUnmapped { is_beyond_end: false, .. }
            | Problem::ChunksLost { is_archived: false, .. }
            | Problem::LostRange { is_archived: false, .. }
            | Problem::ChunksUnreadable { is_archived: false, .. }
            | Problem::RowsUnreadable { .. }
            | Problem::TableUnreadable { .. }
            | Problem::Damaged(_)
            | Problem::DirectoryNames
            | Problem::DataOfNoFile
            | Problem::NotArchived { .. }
            | Problem::KeyUnreadable { .. }
            | Problem::Totals { .. }
            | Problem::LogGap { .. }
            | Problem::LogEnd => return None,
        })
    }

    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::RecreateDirectory { .. } | Self::DeleteUnowned { .. } => Stage::Inodes,
            Self::DeleteRootName { .. } | Self::ReconcileLink { .. } => Stage::Links,
            // An inode misses as many names as its link count says: they go to the entries that
            // have a witness before they go to others.
            Self::ReconcileEntry { is_listed: true, .. } => Stage::ListedNames,
            Self::DeleteEntry { .. }
            | Self::ReconcileEntry { .. }
            | Self::ListEntry { .. }
            | Self::SweepListing { .. } => Stage::Names,
            Self::MoveToLostAndFound { .. } => Stage::Tree,
            Self::UnlistOrphan { .. }
            | Self::SetLinkCount { .. }
            | Self::DeleteChunk { .. }
            | Self::MakeCold { .. }
            | Self::SumResident { .. }
            | Self::ListWarm { .. }
            | Self::UnlistDying { .. }
            | Self::RestartDying { .. } => Stage::Counts,
            Self::SetTotals { .. } => Stage::Totals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::testing::one_of_each;
    use super::*;

    fn planned(ino: Option<u64>, problem: Problem) -> Option<Repair> {
        Repair::of(&Finding { ino: ino.map(Ino::new), problem, repaired: false })
    }

    /// Which problems have a repair, and in which stage.
    #[test]
    fn the_plan_of_every_problem() {
        let line = |problem: &Problem| {
            let is_of_store = matches!(
                problem,
                Problem::Totals { .. } | Problem::LogGap { .. } | Problem::LogEnd
            );
            let repair = planned((!is_of_store).then_some(7), problem.clone());
            let stage = repair.map_or("-".into(), |repair| format!("{:?}", repair.stage()));
            format!("{}: {stage}\n", problem.name())
        };
        let plan: String = one_of_each().iter().map(line).collect();
        insta::assert_snapshot!(plan, @r"
        root-missing: Inodes
        root-named: Links
        attributes-unreadable: Inodes
        damaged: -
        named-orphan: Counts
        nameless: Tree
        directory-names: -
        unreachable: Tree
        link-count: Counts
        directory-lost: Inodes
        entry-missing: Links
        entry-unreadable: Names
        entry-dead: Names
        link-missing: ListedNames
        entry-unlisted: Names
        listing-length: Names
        data-of-no-file: -
        resident-unreadable: Counts
        resident-bytes: Counts
        warm-unlisted: Counts
        dying-exists: Counts
        dying-unreadable: Counts
        chunk-unmapped: Counts
        chunks-lost: Counts
        lost-range: Counts
        chunks-unreadable: Counts
        rows-unreadable: -
        table-unreadable: -
        not-archived: -
        key-unreadable: -
        unowned: Inodes
        totals: Totals
        log-gap: -
        log-end: -
        ");
    }

    #[test]
    fn what_cannot_be_told_stays_as_it_is() {
        let chunks = ChunkRange::ALL;
        let data_xid = Xid::new(9);
        let dir = Ino::new(3);
        let name = FileName::new(b"f").unwrap();
        for problem in [
            Problem::RootMissing { can_be_recreated: false },
            Problem::AttributesUnreadable { can_be_recreated: false },
            Problem::DirectoryLost { dir, can_be_recreated: false },
            Problem::EntryDead { name, of: dir, is_dead: false },
            Problem::LinkCount { kept: 1, expected: 0, is_certain: false },
            Problem::ChunkUnmapped { chunk: ChunkNo::new(2), is_beyond_end: false },
            Problem::ChunksLost { chunks, data_xid, is_archived: false },
            Problem::ChunksUnreadable {
                chunks,
                data_xid,
                is_archived: false,
                reason: "a block is damaged".into(),
            },
            Problem::Unowned { table: Table::Entries, can_be_recreated: false },
        ] {
            assert_eq!(planned(Some(7), problem.clone()), None, "{problem:?}");
        }
        let (kept, counted) = (None, Counters::default());
        assert_eq!(planned(None, Problem::Totals { kept, counted, is_certain: false }), None);
    }

    #[test]
    fn a_lost_directory_is_recreated_and_not_the_inode_that_misses_it() {
        let dir = Ino::new(3);
        let problem = Problem::DirectoryLost { dir, can_be_recreated: true };
        assert_eq!(planned(Some(7), problem), Some(Repair::RecreateDirectory { ino: dir }));
        let problem = Problem::Unowned { table: Table::Entries, can_be_recreated: true };
        let ino = Ino::new(7);
        assert_eq!(planned(Some(7), problem), Some(Repair::RecreateDirectory { ino }));
    }

    #[test]
    fn stages_come_in_the_order_in_which_they_count_on_each_other() {
        assert!(Stage::ALL.is_sorted());
        assert_eq!(Stage::ALL.first(), Some(&Stage::Inodes));
        assert_eq!(Stage::ALL.last(), Some(&Stage::Totals));
    }
}
