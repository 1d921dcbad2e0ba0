//! Folds operations into what they come to for each inode.

use std::collections::{BTreeMap, HashMap};

use tier_types::{Change, ChunkNo, ChunkRange, FileUpdate, Ino, Xid};

use crate::{LogRecord, Operation};

/// Disjoint chunk ranges that are not adjacent: start to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(BTreeMap<ChunkNo, ChunkNo>);

impl RangeSet {
    pub(crate) fn insert(&mut self, range: ChunkRange) {
        let (mut start, mut end) = (range.start(), range.end());
        // Every range that starts no later than `end` and ends no earlier than `start` joins.
        while let Some((&other_start, &other_end)) = self.0.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other_start);
            end = end.max(other_end);
            self.0.remove(&other_start);
        }
        self.0.insert(start, end);
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = ChunkRange> + '_ {
        self.0.iter().filter_map(|(&start, &end)| ChunkRange::new(start, end))
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// What is known of one inode so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folded {
    /// It was made within what was folded.
    pub(crate) created: bool,
    pub(crate) gone: Option<Xid>,
    pub(crate) touched: RangeSet,
}

impl Folded {
    /// Adds what came later.
    pub(crate) fn then(&mut self, later: &Self) {
        self.created |= later.created;
        self.gone = self.gone.or(later.gone);
        for range in later.touched.ranges() {
            self.touched.insert(range);
        }
    }

    /// The inode's update; none if it came and went.
    pub(crate) fn into_update(self, ino: Ino) -> Option<FileUpdate> {
        let change = match self.gone {
            Some(_) if self.created => return None,
            Some(xid) => Change::Gone(xid),
            None => Change::Touched(self.touched.ranges().collect()),
        };
        Some(FileUpdate { ino, change })
    }
}

/// Folds records, in order, into one [`Folded`] for each inode.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    inodes: HashMap<Ino, Folded>,
    /// Inodes and ranges held: what bounds the memory.
    n_held: usize,
}

impl Folder {
    pub(crate) fn n_held(&self) -> usize {
        self.n_held
    }

    /// All that was folded, sorted by inode; the folder starts afresh.
    pub(crate) fn take(&mut self) -> Vec<(Ino, Folded)> {
        self.n_held = 0;
        let mut all: Vec<_> = std::mem::take(&mut self.inodes).into_iter().collect();
        all.sort_unstable_by_key(|(ino, _)| *ino);
        all
    }

    pub(crate) fn add(&mut self, record: &LogRecord, chunk_bytes: u32) {
        let operation = &record.operation;
        for link in operation.links() {
            self.inode(link.parent);
        }
        let touched = touched_chunks(operation, chunk_bytes);
        let created = operation.creates();
        let gone = matches!(operation, Operation::Gone { .. });
        let folded = self.inode(operation.ino());
        folded.created |= created;
        if gone {
            folded.gone = Some(record.xid);
        }
        if let Some(range) = touched {
            let before = folded.touched.len();
            folded.touched.insert(range);
            let after = folded.touched.len();
            self.n_held = (self.n_held + after).saturating_sub(before);
        }
        if let Operation::Rename { replaced: Some(other), .. } | Operation::Exchange { other, .. } =
            operation
        {
            self.inode(*other);
        }
    }

    fn inode(&mut self, ino: Ino) -> &mut Folded {
        let n_held = &mut self.n_held;
        self.inodes.entry(ino).or_insert_with(|| {
            *n_held += 1;
            Folded::default()
        })
    }
}

/// The chunks whose content the operation may have changed.
fn touched_chunks(operation: &Operation, chunk_bytes: u32) -> Option<ChunkRange> {
    match operation {
        Operation::Write { offset, len, .. } | Operation::PunchHole { offset, len, .. } => {
            ChunkRange::touching(*offset, *len, chunk_bytes)
        }
        Operation::Truncate { old_size, new_size, .. } if new_size < old_size => {
            ChunkRange::from(ChunkNo::new(new_size / u64::from(chunk_bytes)))
        }
        Operation::Truncate { .. }
        | Operation::Create { .. }
        | Operation::Mkdir { .. }
        | Operation::Mknod { .. }
        | Operation::Symlink { .. }
        | Operation::Link { .. }
        | Operation::Unlink { .. }
        | Operation::Rename { .. }
        | Operation::Exchange { .. }
        | Operation::SetAttr { .. }
        | Operation::SetXattr { .. }
        | Operation::RemoveXattr { .. }
        | Operation::Gone { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> ChunkRange {
        ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
    }

    #[test]
    fn ranges_that_meet_become_one() {
        let mut set = RangeSet::default();
        for (start, end) in [(5, 7), (0, 2), (10, 12), (2, 5), (11, 20)] {
            set.insert(range(start, end));
        }
        assert_eq!(set.ranges().collect::<Vec<_>>(), [range(0, 7), range(10, 20)]);
    }

    #[test]
    fn an_inode_that_came_and_went_leaves_nothing() {
        let folded = Folded { created: true, gone: Some(Xid::new(9)), ..Folded::default() };
        assert_eq!(folded.into_update(Ino::new(5)), None);
    }
}
