//! Problems: a closed list of what the check can find wrong, each with what was seen of it.
//!
//! A problem carries all the facts by which its repair is decided, so that `repair` is a pure
//! function of it: whether the archive has the lost chunks, whether all entries could be read when
//! links were counted, whether there is anything else under a number. Its [`name`](Problem::name)
//! is stable, its text is for people.

use std::fmt;

use tier_types::{ChunkNo, ChunkRange, FileName, Ino, Link, Xid};

use crate::error::Damage;
use crate::store::{Counters, DataSums, Table};

/// A contradiction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The inode that it concerns; `None` if it concerns the filesystem as a whole.
    pub ino: Option<Ino>,
    /// What is wrong, or was.
    pub problem: Problem,
    /// Whether it was repaired.
    pub repaired: bool,
}

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FsckReport {
    /// Inodes.
    pub n_inodes: u64,
    /// Names.
    pub n_entries: u64,
    /// Chunks in the store.
    pub n_chunks: u64,
    /// Evicted runs that the archive was asked for.
    pub n_cold_runs: u64,
    /// Places that the key-value store cannot read, because its files are damaged.
    pub n_unreadable: u64,
    /// Contradictions that are there.
    pub n_findings: u64,
    /// Contradictions that were repaired.
    pub n_repaired: u64,
}

/// What can be wrong with a filesystem.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The root does not exist.
    RootMissing {
        /// No data is under its number, so that it can have new attributes.
        can_be_recreated: bool,
    },
    /// The root has a name.
    RootNamed {
        /// The name.
        link: Link,
    },
    /// The attributes of an inode cannot be decoded.
    AttributesUnreadable {
        /// It is a directory, and can have new ones.
        can_be_recreated: bool,
    },
    /// An inode could not be checked to its end.
    Damaged(
        /// What was met.
        Damage,
    ),
    /// An inode that has a name is listed as an orphan.
    NamedOrphan,
    /// An inode has no name, and is not listed as an orphan.
    Nameless,
    /// A directory has several names.
    DirectoryNames,
    /// The way up from a directory does not lead to the root.
    Unreachable,
    /// A link count is wrong.
    LinkCount {
        /// The count.
        kept: u32,
        /// What it should be.
        expected: u64,
        /// All that it counts could be read, and the inode will not be deleted for it.
        is_certain: bool,
    },
    /// The directory of one of an inode's names does not exist.
    DirectoryLost {
        /// The directory.
        dir: Ino,
        /// Nothing but its attributes is lost, which can be new ones.
        can_be_recreated: bool,
    },
    /// An inode has a name, and its directory does not.
    EntryMissing {
        /// The name.
        link: Link,
    },
    /// An entry of a directory cannot be decoded.
    EntryUnreadable {
        /// Its name.
        name: Vec<u8>,
    },
    /// An entry of a directory leads to an inode that does not exist.
    EntryDead {
        /// Its name.
        name: FileName,
        /// The inode.
        of: Ino,
        /// There is neither a name nor data of the inode, so that nothing is lost with the entry.
        is_dead: bool,
    },
    /// A directory has a name of an inode, and the inode does not.
    LinkMissing {
        /// The name.
        link: Link,
        /// The directory's listing has the name at the entry's place.
        is_listed: bool,
    },
    /// An entry of a directory is not at its place in the listing.
    EntryUnlisted {
        /// Its name.
        name: FileName,
    },
    /// A directory's listing has more or fewer names than the directory.
    ListingLength {
        /// Names in the listing.
        n_listed: u64,
        /// Entries.
        n_entries: u64,
    },
    /// What is not a regular file has data.
    DataOfNoFile,
    /// The sum of an inode's bytes in the store cannot be decoded.
    ResidentUnreadable,
    /// The sums of an inode's bytes, in the store, recalled and evicted, are wrong.
    ResidentBytes {
        /// The sums.
        kept: DataSums,
        /// What they should be.
        counted: DataSums,
    },
    /// An inode with recalled data is not listed as having some.
    WarmUnlisted,
    /// An inode that exists is listed as dying.
    DyingExists,
    /// How far the reaper is with a dying inode cannot be decoded.
    DyingUnreadable,
    /// A chunk is in the store, and its map has a hole or a detour there.
    ChunkUnmapped {
        /// The chunk.
        chunk: ChunkNo,
        /// It lies in a hole behind the end of the file, and so can be nothing's data.
        is_beyond_end: bool,
    },
    /// Chunks that should be in the store are not.
    ChunksLost {
        /// The chunks.
        chunks: ChunkRange,
        /// Their version.
        data_xid: Xid,
        /// The archive has exactly this version of them.
        is_archived: bool,
    },
    /// Chunks came back from the archive as lost: they could not be read when they were persisted.
    /// No part of the filesystem contradicts another, but their content is nowhere.
    LostRange {
        /// The chunks.
        chunks: ChunkRange,
        /// Their version.
        data_xid: Xid,
        /// The archive has exactly this version of them by now.
        is_archived: bool,
    },
    /// Chunks are in the store and cannot be read.
    ChunksUnreadable {
        /// The chunks.
        chunks: ChunkRange,
        /// Their version.
        data_xid: Xid,
        /// The archive has exactly this version of them.
        is_archived: bool,
        /// Which file, and what is wrong with it.
        reason: String,
    },
    /// Other rows of an inode cannot be read.
    RowsUnreadable {
        /// The table.
        table: &'static str,
        /// Which file, and what is wrong with it.
        reason: String,
    },
    /// A table cannot be read over a range of inodes.
    TableUnreadable {
        /// The table.
        table: Table,
        /// The first of the inodes.
        from: Ino,
        /// The first inode behind them; `None` if there is none.
        until: Option<Ino>,
        /// Which file, and what is wrong with it.
        reason: String,
    },
    /// The archive does not have evicted chunks.
    NotArchived {
        /// The chunks.
        chunks: ChunkRange,
        /// Their version.
        data_xid: Xid,
    },
    /// The key of a row cannot be decoded.
    KeyUnreadable {
        /// The table.
        table: Table,
    },
    /// A table has rows of an inode that does not exist.
    Unowned {
        /// The table.
        table: Table,
        /// It is a directory of which nothing but its attributes is lost.
        can_be_recreated: bool,
    },
    /// The totals are wrong.
    Totals {
        /// The totals; `None` if they cannot be decoded.
        kept: Option<Counters>,
        /// What they should be.
        counted: Counters,
        /// All that they count could be read.
        is_certain: bool,
    },
    /// The log has a gap.
    LogGap {
        /// The first transaction after it.
        before: Xid,
    },
    /// The log does not end at the last transaction.
    LogEnd,
}

impl Problem {
    /// A name for a script: it stays when the text changes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RootMissing { .. } => "root-missing",
            Self::RootNamed { .. } => "root-named",
            Self::AttributesUnreadable { .. } => "attributes-unreadable",
            Self::Damaged(_) => "damaged",
            Self::NamedOrphan => "named-orphan",
            Self::Nameless => "nameless",
            Self::DirectoryNames => "directory-names",
            Self::Unreachable => "unreachable",
            Self::LinkCount { .. } => "link-count",
            Self::DirectoryLost { .. } => "directory-lost",
            Self::EntryMissing { .. } => "entry-missing",
            Self::EntryUnreadable { .. } => "entry-unreadable",
            Self::EntryDead { .. } => "entry-dead",
            Self::LinkMissing { .. } => "link-missing",
            Self::EntryUnlisted { .. } => "entry-unlisted",
            Self::ListingLength { .. } => "listing-length",
            Self::DataOfNoFile => "data-of-no-file",
            Self::ResidentUnreadable => "resident-unreadable",
            Self::ResidentBytes { .. } => "resident-bytes",
            Self::WarmUnlisted => "warm-unlisted",
            Self::DyingExists => "dying-exists",
            Self::DyingUnreadable => "dying-unreadable",
            Self::ChunkUnmapped { .. } => "chunk-unmapped",
            Self::ChunksLost { .. } => "chunks-lost",
            Self::LostRange { .. } => "lost-range",
            Self::ChunksUnreadable { .. } => "chunks-unreadable",
            Self::RowsUnreadable { .. } => "rows-unreadable",
            Self::TableUnreadable { .. } => "table-unreadable",
            Self::NotArchived { .. } => "not-archived",
            Self::KeyUnreadable { .. } => "key-unreadable",
            Self::Unowned { .. } => "unowned",
            Self::Totals { .. } => "totals",
            Self::LogGap { .. } => "log-gap",
            Self::LogEnd => "log-end",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootMissing { .. } => write!(f, "the root does not exist"),
            Self::RootNamed { .. } => write!(f, "the root has a name"),
            Self::AttributesUnreadable { .. } => write!(f, "{}", Damage::Attributes),
            Self::Damaged(damage) => write!(f, "{damage}"),
            Self::NamedOrphan => write!(f, "it has a name and is listed as having none"),
            Self::Nameless => write!(f, "it has no name"),
            Self::DirectoryNames => write!(f, "a directory has several names"),
            Self::Unreachable => write!(f, "the way up from it does not lead to the root"),
            Self::LinkCount { kept, expected, .. } => {
                write!(f, "its link count is {kept}, not {expected}")
            }
            Self::DirectoryLost { dir, .. } => write!(f, "its directory {dir} is lost"),
            Self::EntryMissing { link } => {
                write!(f, "directory {} does not know it as {}", link.parent, link.name)
            }
            Self::EntryUnreadable { .. } => write!(f, "{}", Damage::Entry),
            Self::EntryDead { name, of, .. } => {
                write!(f, "its entry {name} is of inode {of}, which is gone")
            }
            Self::LinkMissing { link, .. } => {
                write!(f, "it does not know its name {} in directory {}", link.name, link.parent)
            }
            Self::EntryUnlisted { name } => {
                write!(f, "its entry {name} is not listed at its place")
            }
            Self::ListingLength { n_listed, n_entries } => {
                write!(f, "it lists {n_listed} names and has {n_entries}")
            }
            Self::DataOfNoFile => write!(f, "it has data and is no regular file"),
            Self::ResidentUnreadable => write!(f, "{}", Damage::ResidentBytes),
            Self::ResidentBytes { kept, counted } => {
                write!(f, "{kept} of it are said to be local, and {counted} are")
            }
            Self::WarmUnlisted => {
                write!(f, "it has recalled data and is not listed as having some")
            }
            Self::DyingExists => write!(f, "it exists and is listed as being deleted"),
            Self::DyingUnreadable => write!(f, "how far it is deleted cannot be read"),
            Self::ChunkUnmapped { chunk, .. } => {
                write!(f, "chunk {chunk} is in the store, and its map knows nothing of it")
            }
            Self::ChunksLost { chunks, .. } => {
                write!(f, "its chunks {chunks} have neither data nor detour")
            }
            Self::LostRange { chunks, .. } => {
                write!(f, "its chunks {chunks} are lost: they could not be read when persisted")
            }
            Self::ChunksUnreadable { chunks, reason, .. } => {
                write!(f, "its chunks {chunks} are in the store and unreadable: {reason}")
            }
            Self::RowsUnreadable { reason, .. } => write!(f, "{reason}"),
            Self::TableUnreadable { table, from, until, reason } => {
                write!(f, "table {} {}: {reason}", table.name(), gap(*from, *until))
            }
            Self::NotArchived { chunks, data_xid } => {
                write!(f, "the archive does not have its evicted chunks {chunks} of xid {data_xid}")
            }
            Self::KeyUnreadable { table } => {
                write!(f, "a key of table {} cannot be read", table.name())
            }
            Self::Unowned { table, .. } => {
                write!(f, "it does not exist, and table {} has something of it", table.name())
            }
            Self::Totals { kept, counted, .. } => {
                write!(f, "the totals are {kept:?}, and the sums {counted:?}")
            }
            Self::LogGap { before } => write!(f, "the log has a gap before xid {before}"),
            Self::LogEnd => write!(f, "the log does not end at the last transaction"),
        }
    }
}

/// Where a table cannot be read.
fn gap(from: Ino, until: Option<Ino>) -> String {
    let until = until.map_or_else(|| "on".into(), |until| format!("to {until}"));
    format!("cannot be read from inode {from} {until}")
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    fn name(text: &str) -> FileName {
        FileName::new(text.as_bytes()).unwrap()
    }

    /// A problem of every kind.
    pub(in crate::check) fn one_of_each() -> Vec<Problem> {
        let chunks = ChunkRange::new(ChunkNo::new(2), ChunkNo::new(5)).unwrap();
        let link = Link { parent: Ino::new(3), name: name("f") };
        let counted = Counters::default();
        let sums = DataSums { resident_bytes: 3, warm_bytes: 2, cold_bytes: 1, lost_bytes: 0 };
        vec![
            Problem::RootMissing { can_be_recreated: true },
            Problem::RootNamed { link: link.clone() },
            Problem::AttributesUnreadable { can_be_recreated: true },
            Problem::Damaged(Damage::ChunkMap),
            Problem::NamedOrphan,
            Problem::Nameless,
            Problem::DirectoryNames,
            Problem::Unreachable,
            Problem::LinkCount { kept: 1, expected: 2, is_certain: true },
            Problem::DirectoryLost { dir: Ino::new(3), can_be_recreated: true },
            Problem::EntryMissing { link: link.clone() },
            Problem::EntryUnreadable { name: b"f".to_vec() },
            Problem::EntryDead { name: name("f"), of: Ino::new(7), is_dead: true },
            Problem::LinkMissing { link, is_listed: true },
            Problem::EntryUnlisted { name: name("f") },
            Problem::ListingLength { n_listed: 1, n_entries: 2 },
            Problem::DataOfNoFile,
            Problem::ResidentUnreadable,
            Problem::ResidentBytes { kept: DataSums::default(), counted: sums },
            Problem::WarmUnlisted,
            Problem::DyingExists,
            Problem::DyingUnreadable,
            Problem::ChunkUnmapped { chunk: ChunkNo::new(2), is_beyond_end: true },
            Problem::ChunksLost { chunks, data_xid: Xid::new(9), is_archived: true },
            Problem::LostRange { chunks, data_xid: Xid::new(9), is_archived: true },
            Problem::ChunksUnreadable {
                chunks,
                data_xid: Xid::new(9),
                is_archived: true,
                reason: "a block is damaged".into(),
            },
            Problem::RowsUnreadable { table: "map", reason: "a block is damaged".into() },
            Problem::TableUnreadable {
                table: Table::Map,
                from: Ino::new(3),
                until: Some(Ino::new(7)),
                reason: "a block is damaged".into(),
            },
            Problem::NotArchived { chunks, data_xid: Xid::new(9) },
            Problem::KeyUnreadable { table: Table::Map },
            Problem::Unowned { table: Table::Links, can_be_recreated: false },
            Problem::Totals { kept: None, counted, is_certain: true },
            Problem::LogGap { before: Xid::new(9) },
            Problem::LogEnd,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::testing::one_of_each;

    /// Names are for scripts, texts for operators: neither changes by accident.
    #[test]
    fn names_and_texts_stay_what_they_are() {
        let listed: String = one_of_each()
            .iter()
            .map(|problem| format!("{}: {problem}\n", problem.name()))
            .collect();
        insta::assert_snapshot!(listed, @r"
        root-missing: the root does not exist
        root-named: the root has a name
        attributes-unreadable: its attributes cannot be read
        damaged: its chunk map cannot be read
        named-orphan: it has a name and is listed as having none
        nameless: it has no name
        directory-names: a directory has several names
        unreachable: the way up from it does not lead to the root
        link-count: its link count is 1, not 2
        directory-lost: its directory 3 is lost
        entry-missing: directory 3 does not know it as f
        entry-unreadable: an entry cannot be read
        entry-dead: its entry f is of inode 7, which is gone
        link-missing: it does not know its name f in directory 3
        entry-unlisted: its entry f is not listed at its place
        listing-length: it lists 1 names and has 2
        data-of-no-file: it has data and is no regular file
        resident-unreadable: its size in the store cannot be read
        resident-bytes: 0 bytes, 0 recalled, 0 evicted of it are said to be local, and 3 bytes, 2 recalled, 1 evicted are
        warm-unlisted: it has recalled data and is not listed as having some
        dying-exists: it exists and is listed as being deleted
        dying-unreadable: how far it is deleted cannot be read
        chunk-unmapped: chunk 2 is in the store, and its map knows nothing of it
        chunks-lost: its chunks 2-4 have neither data nor detour
        lost-range: its chunks 2-4 are lost: they could not be read when persisted
        chunks-unreadable: its chunks 2-4 are in the store and unreadable: a block is damaged
        rows-unreadable: a block is damaged
        table-unreadable: table map cannot be read from inode 3 to 7: a block is damaged
        not-archived: the archive does not have its evicted chunks 2-4 of xid 9
        key-unreadable: a key of table map cannot be read
        unowned: it does not exist, and table links has something of it
        totals: the totals are None, and the sums Counters { n_inodes: 0, resident_bytes: 0, warm_bytes: 0, cold_bytes: 0, lost_bytes: 0, dying_bytes: 0, n_pins: 0 }
        log-gap: the log has a gap before xid 9
        log-end: the log does not end at the last transaction
        ");
    }

    #[test]
    fn no_two_problems_share_a_name() {
        let mut names: Vec<_> = one_of_each().iter().map(super::Problem::name).collect();
        names.sort_unstable();
        let n = names.len();
        names.dedup();
        assert_eq!(names.len(), n);
    }
}
