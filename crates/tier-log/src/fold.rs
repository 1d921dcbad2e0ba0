//! The fold of net changes: operations into what they come to for each inode.
//!
//! Of an inode three things are remembered: whether it was made within what was folded, whether it
//! is gone, and which chunks may have another content. A change of metadata, of the inode itself or
//! of an entry in a directory, needs nothing more than that the inode is there with no chunks
//! touched. Chunk ranges grow together where they meet, so that a file that is written from end to
//! end takes one range however many writes it took.
//!
//! A file that is written all over has as many ranges as writes. So their number is limited, and
//! where it is exceeded those that lie nearest to each other are joined, until half of them are
//! left. What lies between is then touched as well, which costs its readers a look at chunks that
//! did not change, and never leaves one out that did. Joining half of them at once makes the search
//! for the nearest ones as cheap as the writes that led to it.

use std::collections::{BTreeMap, HashMap, HashSet};

use tier_types::{Change, ChunkNo, ChunkRange, FileUpdate, Ino, Xid};

use crate::{LogRecord, Operation};

/// Disjoint chunk ranges that are not adjacent: start to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(BTreeMap<ChunkNo, ChunkNo>);

impl RangeSet {
    /// Adds a range; of more than `n_max` the nearest become one.
    pub(crate) fn insert(&mut self, range: ChunkRange, n_max: usize) {
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
        if self.0.len() > n_max {
            self.join_nearest(self.0.len() - n_max.div_ceil(2));
        }
    }

    /// Joins so many pairs of neighbours, those with the smallest gaps between them.
    fn join_nearest(&mut self, n_joined: usize) {
        let starts = self.0.keys().copied().skip(1);
        let gaps = self
            .0
            .values()
            .zip(starts)
            .map(|(end, start)| Gap { n_chunks: start.get() - end.get(), start: *end });
        let mut gaps: Vec<_> = gaps.collect();
        gaps.sort_unstable();
        // A gap's start is the end of the range before it, which goes on to the one behind.
        let closed: HashSet<_> = gaps.iter().take(n_joined).map(|gap| gap.start).collect();
        let mut joined: BTreeMap<ChunkNo, ChunkNo> = BTreeMap::new();
        for (start, end) in std::mem::take(&mut self.0) {
            match joined.last_entry() {
                Some(mut last) if closed.contains(last.get()) => drop(last.insert(end)),
                _ => drop(joined.insert(start, end)),
            }
        }
        self.0 = joined;
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = ChunkRange> + '_ {
        self.0.iter().map(|(&start, &end)| range(start, end))
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Chunks between two ranges, the smallest gap first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Gap {
    n_chunks: u64,
    start: ChunkNo,
}

#[expect(clippy::expect_used, reason = "only ranges are put into a set, and joined to larger ones")]
fn range(start: ChunkNo, end: ChunkNo) -> ChunkRange {
    ChunkRange::new(start, end).expect("a range of the set is not empty")
}

/// What is known of one inode so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetChange {
    /// It was made within what was folded.
    pub(crate) created: bool,
    pub(crate) gone: Option<Xid>,
    pub(crate) touched: RangeSet,
}

/// An inode and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InodeChange {
    pub(crate) ino: Ino,
    pub(crate) change: NetChange,
}

impl NetChange {
    /// Adds what came later, and keeps at most so many ranges.
    pub(crate) fn then(&mut self, later: &Self, n_ranges_max: usize) {
        self.created |= later.created;
        // At most one of them is set, because an inode number is never used again.
        self.gone = self.gone.or(later.gone);
        for range in later.touched.ranges() {
            self.touched.insert(range, n_ranges_max);
        }
    }

    /// The inode's update; none if it came and went.
    pub(crate) fn into_update(self, ino: Ino) -> Option<FileUpdate> {
        let change = match self.gone {
            // Nothing before the range knew it, and nothing after it will.
            Some(_) if self.created => return None,
            Some(xid) => Change::Gone(xid),
            None => Change::Touched(self.touched.ranges().collect()),
        };
        Some(FileUpdate { ino, change })
    }
}

/// Folds records, in order, into one [`NetChange`] for each inode.
#[derive(Debug)]
pub(crate) struct Accumulator {
    inodes: HashMap<Ino, NetChange>,
    /// Inodes and ranges held: what bounds the memory.
    n_held: usize,
    /// Ranges that are kept of one inode.
    n_ranges_max: usize,
}

impl Accumulator {
    pub(crate) fn new(n_ranges_max: usize) -> Self {
        Self { inodes: HashMap::new(), n_held: 0, n_ranges_max }
    }

    pub(crate) fn n_held(&self) -> usize {
        self.n_held
    }

    /// All that was folded, sorted by inode; the accumulator starts afresh.
    pub(crate) fn take(&mut self) -> Vec<InodeChange> {
        self.n_held = 0;
        let inodes = std::mem::take(&mut self.inodes).into_iter();
        let mut all: Vec<_> = inodes.map(|(ino, change)| InodeChange { ino, change }).collect();
        // Sorted once for each run: a tree would pay for the order with every operation.
        all.sort_unstable_by_key(|change| change.ino);
        all
    }

    pub(crate) fn add(&mut self, record: &LogRecord, chunk_bytes: u32) {
        let operation = &record.operation;
        // An entry that comes or goes changes its directory: times, and the number of links.
        for link in operation.links() {
            self.inode(link.parent);
        }
        let touched = touched_chunks(operation, chunk_bytes);
        let created = operation.creates();
        let gone = matches!(operation, Operation::Gone { .. });
        let n_ranges_max = self.n_ranges_max;
        let change = self.inode(operation.ino());
        change.created |= created;
        if gone {
            change.gone = Some(record.xid);
        }
        if let Some(range) = touched {
            let before = change.touched.len();
            change.touched.insert(range, n_ranges_max);
            let after = change.touched.len();
            // What the inode had before is counted already.
            self.n_held = self.n_held + after - before;
        }
        // The other inode of a rename lost a name or got another: its metadata changed.
        if let Operation::Rename { replaced: Some(other), .. } | Operation::Exchange { other, .. } =
            operation
        {
            self.inode(*other);
        }
    }

    fn inode(&mut self, ino: Ino) -> &mut NetChange {
        let n_held = &mut self.n_held;
        self.inodes.entry(ino).or_insert_with(|| {
            *n_held += 1;
            NetChange::default()
        })
    }
}

/// The chunks whose content the operation may have changed.
fn touched_chunks(operation: &Operation, chunk_bytes: u32) -> Option<ChunkRange> {
    match operation {
        Operation::Write { offset, len, .. } | Operation::PunchHole { offset, len, .. } => {
            ChunkRange::touching(*offset, *len, chunk_bytes)
        }
        // The chunk in which the file is cut is touched as well, unless the cut is at its start.
        Operation::Truncate { old_size, new_size, .. } if new_size < old_size => {
            ChunkRange::from(ChunkNo::new(new_size / u64::from(chunk_bytes)))
        }
        // No wildcard: a new operation must say here whether it touches data.
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
        super::range(ChunkNo::new(start), ChunkNo::new(end))
    }

    #[test]
    fn ranges_that_meet_become_one() {
        let mut set = RangeSet::default();
        for (start, end) in [(5, 7), (0, 2), (10, 12), (2, 5), (11, 20)] {
            set.insert(range(start, end), 100);
        }
        assert_eq!(set.ranges().collect::<Vec<_>>(), [range(0, 7), range(10, 20)]);
    }

    #[test]
    fn of_too_many_ranges_the_nearest_become_one() {
        let mut set = RangeSet::default();
        for (start, end) in [(0, 1), (100, 101), (3, 4), (210, 211)] {
            set.insert(range(start, end), 4);
        }
        assert_eq!(set.len(), 4);
        set.insert(range(105, 106), 4);
        assert_eq!(
            set.ranges().collect::<Vec<_>>(),
            [range(0, 106), range(210, 211)],
            "half of what is allowed is left"
        );
        set.insert(range(u64::MAX - 1, u64::MAX), 1);
        assert_eq!(set.ranges().collect::<Vec<_>>(), [range(0, u64::MAX)]);
    }

    #[test]
    fn an_inode_that_came_and_went_leaves_nothing() {
        let change = NetChange { created: true, gone: Some(Xid::new(9)), ..NetChange::default() };
        assert_eq!(change.into_update(Ino::new(5)), None);
    }

    #[test]
    fn what_is_held_is_counted() {
        let mut accumulator = Accumulator::new(100);
        let write = |accumulator: &mut Accumulator, ino: u64, offset, len| {
            let operation = Operation::Write { ino: Ino::new(ino), offset, len };
            let (xid, time) = (Xid::new(1), tier_types::Timestamp::default());
            accumulator.add(&LogRecord { xid, time, operation }, 10);
            accumulator.n_held()
        };
        assert_eq!(write(&mut accumulator, 5, 0, 10), 2, "an inode and a range");
        assert_eq!(write(&mut accumulator, 5, 40, 10), 3);
        assert_eq!(write(&mut accumulator, 5, 10, 30), 2, "three ranges became one");
        assert_eq!(write(&mut accumulator, 6, 0, 1), 4);
        let inos: Vec<_> = accumulator.take().into_iter().map(|change| change.ino.get()).collect();
        assert_eq!((inos, accumulator.n_held()), (vec![5, 6], 0));
    }
}
