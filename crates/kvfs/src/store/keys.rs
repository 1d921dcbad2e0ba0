//! Tables (column families) and their keys.
//!
//! Numbers in keys are big-endian, so that the store's order is numeric order: all rows of one
//! inode are adjacent, a directory's listing goes by cookie, and the run of a chunk map that holds
//! a chunk is the last one at or before it. Keys that come back are parsed, never assumed: a
//! damaged store may hold shorter or longer ones.

use tier_types::{ChunkNo, FileName, Ino, Link, Xid};

use super::extents::Place;

/// A table of the key-value store, with what its keys lead to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Table {
    /// ino -> attributes.
    Inodes,
    /// directory, name -> ino, cookie.
    Entries,
    /// directory, cookie -> name.
    Cookies,
    /// ino, directory, name -> nothing.
    Links,
    /// ino, name -> value.
    Xattrs,
    /// ino, first chunk of a run -> state, data xid.
    Map,
    /// ino, chunk -> bytes.
    Chunks,
    /// ino -> bytes of its data that are in the store, recalled, evicted; nothing for none.
    Resident,
    /// ino -> chunks that were cut while their runs are still in the map.
    Cuts,
    /// xid -> log record.
    Log,
    /// Last xid of a published log segment that is not retired -> its first xid.
    Segments,
    /// ino -> nothing: no name left, or none yet.
    Orphans,
    /// ino -> how far the reaper is: the inode is gone, and its rows go.
    Dying,
    /// ino -> nothing: has data that was recalled.
    Warm,
    /// ino -> nothing: an operator pinned it, and all below it.
    Pins,
    /// place -> chunk, and what it was before: extents that no sync is known to cover.
    Unsynced,
    /// generation, place -> bytes: extents that no row refers to any more.
    Freed,
    /// Numbers about the filesystem as a whole.
    Meta,
}

impl Table {
    /// All tables.
    pub(crate) const ALL: [Self; 18] = [
        Self::Inodes,
        Self::Entries,
        Self::Cookies,
        Self::Links,
        Self::Xattrs,
        Self::Map,
        Self::Chunks,
        Self::Resident,
        Self::Cuts,
        Self::Log,
        Self::Segments,
        Self::Orphans,
        Self::Dying,
        Self::Warm,
        Self::Pins,
        Self::Unsynced,
        Self::Freed,
        Self::Meta,
    ];

    /// Whether single keys are looked up that may not be there: where only ranges are read, a
    /// filter is of no use.
    pub(crate) fn has_point_reads(self) -> bool {
        matches!(
            self,
            Self::Inodes
                | Self::Entries
                | Self::Xattrs
                | Self::Resident
                | Self::Cuts
                | Self::Orphans
                | Self::Dying
                | Self::Pins
        )
    }

    /// Its name in the store and in dumps.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inodes => "inodes",
            Self::Entries => "entries",
            Self::Cookies => "cookies",
            Self::Links => "links",
            Self::Xattrs => "xattrs",
            Self::Map => "map",
            Self::Chunks => "chunks",
            Self::Resident => "resident",
            Self::Cuts => "cuts",
            Self::Log => "log",
            Self::Segments => "segments",
            Self::Orphans => "orphans",
            Self::Dying => "dying",
            Self::Warm => "warm",
            Self::Pins => "pins",
            Self::Unsynced => "unsynced",
            Self::Freed => "freed",
            Self::Meta => "meta",
        }
    }
}

pub(crate) const META_CHUNK_BYTES: &[u8] = b"chunk-bytes";
pub(crate) const META_COUNTERS: &[u8] = b"counters";
/// The last transaction id that was given out: in every batch of the committer.
pub(crate) const META_LAST_XID: &[u8] = b"last-xid";
/// The filesystem begins behind this transaction: those before are of the filesystem that it was
/// restored from. There from the making on.
pub(crate) const META_XID_FLOOR: &[u8] = b"xid-floor";
/// Extents before this place are durable, or free.
pub(crate) const META_EXTENTS_FLOOR: &[u8] = b"extents-floor";
/// There while a repair is under way.
pub(crate) const META_REPAIRING: &[u8] = b"repairing";

/// First entries of every directory in a listing.
pub(crate) const COOKIE_SELF: u64 = 1;
pub(crate) const COOKIE_PARENT: u64 = 2;

pub(crate) fn ino(ino: Ino) -> [u8; 8] {
    ino.get().to_be_bytes()
}

pub(crate) fn xid(xid: Xid) -> [u8; 8] {
    xid.get().to_be_bytes()
}

/// A key after every key that starts with eight bytes.
pub(crate) const LAST: [u8; 9] = [0xff; 9];

/// A key after every key of a table whose keys are numbers.
pub(crate) const AFTER_ALL: [u8; 25] = [0xff; 25];

/// Where the rows of an inode begin and end, in the tables whose keys start with it.
pub(crate) fn rows_of(owner: Ino) -> ([u8; 8], [u8; 8]) {
    (ino(owner), ino(owner.next()))
}

/// Key of a map run or a chunk, or of a directory's cookie.
pub(crate) fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&first.to_be_bytes());
    tail.copy_from_slice(&second.to_be_bytes());
    key
}

pub(crate) fn chunk(ino: Ino, chunk: ChunkNo) -> [u8; 16] {
    pair(ino.get(), chunk.get())
}

/// The inode with whose number a key begins; `None` for a key that is too short.
pub(crate) fn ino_of(key: &[u8]) -> Option<Ino> {
    take_number(key).map(|(number, _)| Ino::new(number))
}

/// Key of an extent that is not known to be durable.
pub(crate) fn place(place: Place) -> [u8; 16] {
    pair(u64::from(place.file), place.offset)
}

/// Where the keys of a generation of free extents begin.
pub(crate) fn generation(generation: u64) -> [u8; 8] {
    generation.to_be_bytes()
}

/// Key of an extent that is free.
pub(crate) fn freed(generation: u64, at: Place) -> Vec<u8> {
    [&generation.to_be_bytes()[..], &place(at)].concat()
}

/// The place that a key is.
pub(crate) fn parse_place(key: &[u8]) -> Option<Place> {
    let (file, rest) = take_number(key)?;
    let (offset, rest) = take_number(rest)?;
    let file = u32::try_from(file).ok()?;
    Place::parse(file, offset).filter(|_| rest.is_empty())
}

/// Generation and place of a key of what is free.
pub(crate) fn parse_freed(key: &[u8]) -> Option<(u64, Place)> {
    let (generation, rest) = take_number(key)?;
    Some((generation, parse_place(rest)?))
}

pub(crate) fn named(ino: Ino, name: &[u8]) -> Vec<u8> {
    [&ino.get().to_be_bytes(), name].concat()
}

pub(crate) fn link(ino: Ino, parent: Ino, name: &FileName) -> Vec<u8> {
    [&ino.get().to_be_bytes()[..], &parent.get().to_be_bytes(), name.as_bytes()].concat()
}

/// What comes after the inode in a key: a name, or the key of a link's directory.
pub(crate) fn name_of(key: &[u8]) -> Option<&[u8]> {
    take_number(key).map(|(_, name)| name)
}

/// The inode of a key that is nothing else.
pub(crate) fn parse_ino(key: &[u8]) -> Option<Ino> {
    let (number, rest) = take_number(key)?;
    rest.is_empty().then_some(Ino::new(number))
}

/// The transaction id of a log record's key.
pub(crate) fn parse_xid(key: &[u8]) -> Option<Xid> {
    parse_ino(key).map(|number| Xid::new(number.get()))
}

/// The number at the start of a key, and the rest.
pub(crate) fn take_number(key: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// The second number of a key of two: a chunk, or a cookie.
pub(crate) fn parse_second(key: &[u8]) -> Option<u64> {
    let (_, rest) = take_number(key)?;
    let (second, rest) = take_number(rest)?;
    rest.is_empty().then_some(second)
}

/// The name that a key of the links stands for.
pub(crate) fn parse_link(key: &[u8]) -> Option<Link> {
    let (_, rest) = take_number(key)?;
    let (parent, name) = take_number(rest)?;
    Some(Link { parent: Ino::new(parent), name: FileName::new(name)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file_name() -> impl Strategy<Value = FileName> {
        prop::collection::vec(1_u8.., 1..=255)
            .prop_filter_map("a name", |bytes| FileName::new(&bytes))
    }

    proptest! {
        #[test]
        fn keys_survive(number in any::<u64>(), second in any::<u64>(), name in file_name()) {
            let of = Ino::new(number);
            prop_assert_eq!(parse_ino(&ino(of)), Some(of));
            prop_assert_eq!(parse_xid(&xid(Xid::new(number))), Some(Xid::new(number)));
            prop_assert_eq!(take_number(&pair(number, second)).unwrap().0, number);
            prop_assert_eq!(parse_second(&pair(number, second)), Some(second));
            let key = named(of, name.as_bytes());
            prop_assert_eq!(name_of(&key), Some(name.as_bytes()));
            let link_to = Link { parent: Ino::new(second), name };
            let key = link(of, link_to.parent, &link_to.name);
            prop_assert_eq!(parse_link(&key), Some(link_to));
        }

        #[test]
        fn the_order_of_keys_is_that_of_numbers(
            a in any::<(u64, u64)>(),
            b in any::<(u64, u64)>(),
        ) {
            prop_assert_eq!(pair(a.0, a.1).cmp(&pair(b.0, b.1)), a.cmp(&b));
        }

        #[test]
        fn rows_of_an_inode_lie_between_its_ends(
            number in 0..u64::MAX,
            other in any::<u64>(),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let (from, until) = rows_of(Ino::new(number));
            let lies_within = |key: &[u8]| from.as_slice() <= key && key < until.as_slice();
            prop_assert!(lies_within(&named(Ino::new(number), &rest)));
            prop_assert_eq!(lies_within(&named(Ino::new(other), &rest)), number == other);
        }
    }

    #[test]
    fn other_bytes_are_no_keys() {
        for short in [&[][..], &[0; 7]] {
            assert_eq!(parse_ino(short), None);
            assert_eq!(name_of(short), None);
            assert_eq!(parse_link(short), None);
        }
        assert_eq!(parse_ino(&[0; 9]), None, "too long");
        assert_eq!(parse_second(&[0; 15]), None);
        assert_eq!(parse_second(&[0; 17]), None);
        assert_eq!(parse_link(&[0; 16]), None, "an empty name");
        let slash = [&pair(1, 2)[..], b"a/b"].concat();
        assert_eq!(parse_link(&slash), None);
    }

    #[test]
    fn every_table_has_a_name_of_its_own() {
        let mut names = Table::ALL.map(Table::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Table::ALL.len());
    }

    #[test]
    fn every_key_of_eight_bytes_lies_before_the_last() {
        assert!(ino(Ino::new(u64::MAX)).as_slice() < LAST.as_slice());
    }
}
