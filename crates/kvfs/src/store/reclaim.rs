//! Reclaiming: which files of the chunk table are worth rewriting, because much of what is in them
//! was deleted.
//!
//! A deletion frees nothing by itself: it is a mark in a newer file, and the row goes when RocksDB
//! merges the two. Left to itself that happens some time. After an eviction the space is wanted
//! now, and yet rewriting the whole table would cost what all resident data costs, in room as well
//! as in time. So it is counted how many rows of which inodes were deleted, and a file of the last
//! level is rewritten when a good share of its rows is among them: those with the largest share
//! first, one in a step, and none that there is no room to rewrite. Inodes are counted in groups,
//! so that the counts stay small.
//!
//! The counts are in memory only. What an earlier process deleted goes when RocksDB merges it,
//! which files with many marks have it do soon (see `tuning`).

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;
use tier_types::{Ino, to_u64};

use super::keys;

/// Inodes of one group, as a power of two.
const GROUP_BITS: u32 = 4;
/// A file is rewritten when so many percent of its rows were deleted.
const SHARE_PERCENT_MIN: u64 = 20;

/// Rows of the chunk table that were deleted and are still in its files, by groups of inodes.
#[derive(Debug, Default)]
pub(crate) struct DeletedRows(Mutex<BTreeMap<u64, u64>>);

/// A file of the chunk table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TableFile {
    pub(super) level: i32,
    pub(super) bytes: u64,
    pub(super) n_rows: u64,
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

/// A file that is worth rewriting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Worthwhile {
    pub(super) file: TableFile,
    /// Bytes that would go.
    pub(super) garbage_bytes: u64,
}

impl DeletedRows {
    /// Rows of these inodes were deleted.
    pub(super) fn note(&self, inodes: impl IntoIterator<Item = Ino>) {
        let mut inodes = inodes.into_iter().peekable();
        // Most batches delete none.
        if inodes.peek().is_none() {
            return;
        }
        let mut rows = self.0.lock();
        for ino in inodes {
            *rows.entry(ino.get() >> GROUP_BITS).or_default() += 1;
        }
    }

    /// About how many bytes of a file were deleted.
    fn garbage_bytes(&self, file: &TableFile) -> u64 {
        let Some((first, last)) = file.groups() else { return 0 };
        let n_rows: u64 = self.0.lock().range(first..=last).map(|(_, n)| n).sum();
        // A row may have been deleted more than once.
        let n_rows = n_rows.min(file.n_rows);
        file.bytes / file.n_rows.max(1) * n_rows
    }

    /// The file with the largest share of deleted rows, of those of the last level that are no
    /// larger than this.
    pub(super) fn most_worthwhile(
        &self,
        files: &[TableFile],
        bytes_max: u64,
    ) -> Option<Worthwhile> {
        let last = files.iter().map(|file| file.level).max()?;
        let fits = |file: &&TableFile| file.level == last && file.bytes <= bytes_max;
        let judged = files
            .iter()
            .filter(fits)
            .map(|file| Worthwhile { file: file.clone(), garbage_bytes: self.garbage_bytes(file) });
        let share =
            |one: &Worthwhile| one.garbage_bytes.saturating_mul(100) / one.file.bytes.max(1);
        judged.filter(|one| share(one) >= SHARE_PERCENT_MIN).max_by_key(share)
    }

    /// The rows of a file that was rewritten are gone from it.
    pub(super) fn forget(&self, file: &TableFile) {
        let Some((first, last)) = file.groups() else { return };
        let mut rows = self.0.lock();
        let range = (Bound::Included(first), Bound::Included(last));
        let groups: Vec<u64> = rows.range(range).map(|(group, _)| *group).collect();
        // The groups at its ends may have rows in its neighbours, which are judged a little too
        // well then.
        for group in groups {
            rows.remove(&group);
        }
    }

    /// Rows that were deleted and not rewritten.
    pub(crate) fn n_rows(&self) -> u64 {
        self.0.lock().values().sum()
    }
}

impl TableFile {
    /// What RocksDB says of a file; nothing for one without keys, in which there is nothing to
    /// reclaim.
    pub(super) fn of(file: rocksdb::LiveFile) -> Option<Self> {
        Some(Self {
            level: file.level,
            bytes: to_u64(file.size),
            n_rows: file.num_entries,
            start: file.start_key?,
            end: file.end_key?,
        })
    }

    /// The groups of inodes whose rows may be in it.
    fn groups(&self) -> Option<(u64, u64)> {
        let group = |key: &[u8]| Some(keys::ino_of(key)?.get() >> GROUP_BITS);
        let (first, last) = (group(&self.start)?, group(&self.end)?);
        (first <= last).then_some((first, last))
    }
}

/// Bytes of a row on average.
pub(super) fn row_bytes(files: &[TableFile]) -> u64 {
    let sum = |of: fn(&TableFile) -> u64| files.iter().map(of).sum::<u64>();
    sum(|file| file.bytes) / sum(|file| file.n_rows).max(1)
}

#[cfg(test)]
mod tests {
    use tier_types::ChunkNo;

    use super::*;

    fn file(level: i32, bytes: u64, first: u64, last: u64) -> TableFile {
        let key = |ino| keys::chunk(Ino::new(ino), ChunkNo::new(0)).to_vec();
        TableFile { level, bytes, n_rows: 100, start: key(first), end: key(last) }
    }

    #[test]
    fn the_file_with_the_most_garbage_goes_first_and_only_if_it_is_worth_it() {
        let deleted = DeletedRows::default();
        let files = [file(0, 500, 1, 9000), file(6, 1000, 1, 999), file(6, 1000, 1024, 1999)];
        assert_eq!(deleted.most_worthwhile(&files, 10_000), None);
        deleted.note((1..=19).map(Ino::new));
        assert_eq!(deleted.most_worthwhile(&files, 10_000), None, "19 percent of it");
        deleted.note((1100..1150).map(Ino::new));
        let found = deleted.most_worthwhile(&files, 10_000).unwrap();
        assert_eq!((&found.file, found.garbage_bytes), (&files[2], 500));
        assert_eq!(deleted.most_worthwhile(&files, 999), None, "there is no room to rewrite it");
        deleted.forget(&files[2]);
        assert_eq!((deleted.n_rows(), deleted.most_worthwhile(&files, 10_000)), (19, None));
        deleted.note([Ino::new(20)]);
        assert_eq!(deleted.most_worthwhile(&files, 10_000).unwrap().file, files[1]);
    }

    #[test]
    fn a_file_without_keys_or_rows_is_worth_nothing() {
        let empty = TableFile { level: 1, bytes: 10, n_rows: 0, start: vec![], end: vec![] };
        let deleted = DeletedRows::default();
        deleted.note([Ino::new(1)]);
        assert_eq!(deleted.most_worthwhile(&[empty], 100), None);
        assert_eq!(deleted.most_worthwhile(&[], 100), None);
    }
}
