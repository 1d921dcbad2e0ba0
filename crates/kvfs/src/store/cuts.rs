//! Cut marks: what a cut or a large hole leaves in an inode's map in place of the work.
//!
//! A mark names chunks and the transaction that cut them. From its commit on, every stored run in
//! its chunks with an older data xid is *dead*: it is a hole of the mark's xid to every reader,
//! whatever its row says, and also when the file grows again. What is written there later has a
//! newer data xid, and lives. So a cut of any number of runs is one row, and the reaper deletes the
//! dead runs afterwards, piece by piece; each piece takes its chunks out of the marks in the batch
//! in which the rows become what the marks said of them.
//!
//! Transaction ids only rise, so that a new mark is stronger than every older one in its chunks. It
//! takes their place there, and marks never overlap: which hole a dead chunk is, one mark says. By
//! that alone repeated cuts fold: a cut at the lowest end takes the place of all before it. Cuts
//! that rise leave a mark each, and holes apart from each other do. Their number is bounded
//! ([`N_MARKS_MAX`]); an operation that would exceed it has the reaper's work done first.
//!
//! A reader of the live store takes the marks *before* the rows. A piece of the reaper's work that
//! comes between the two is harmless: the rows say already what the marks say of them.

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Xid};

/// So many marks an inode can have.
pub(crate) const N_MARKS_MAX: usize = 16;

/// Chunks that were cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CutMark {
    pub(crate) chunks: ChunkRange,
    /// The cut: runs with an older data xid are dead.
    pub(crate) xid: Xid,
}

/// The marks of an inode: in order, and no two overlap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CutMarks(Vec<CutMark>);

/// A run as it is stored, or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoredRun {
    pub(crate) run: ChunkRun,
    /// The cut that made it a hole, if one did.
    pub(crate) cut: Option<Xid>,
}

impl StoredRun {
    /// Whether its chunks have rows.
    pub(crate) fn is_resident(&self) -> bool {
        self.run.state.is_resident()
    }

    /// What it is to a reader.
    pub(crate) fn effective(&self) -> ChunkRun {
        match self.cut {
            Some(data_xid) => ChunkRun { state: ChunkState::Hole, data_xid, ..self.run },
            None => self.run,
        }
    }
}

impl CutMarks {
    /// `None` if they are not in order, overlap, or are too many.
    pub(crate) fn new(marks: Vec<CutMark>) -> Option<Self> {
        let in_order = marks.is_sorted_by(|a, b| a.chunks.end() <= b.chunks.start());
        (in_order && marks.len() <= N_MARKS_MAX).then_some(Self(marks))
    }

    pub(crate) fn marks(&self) -> &[CutMark] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one more might be one too many: a mark in the middle of another makes three of it.
    pub(crate) fn are_full(&self) -> bool {
        self.0.len() + 2 > N_MARKS_MAX
    }

    /// Adds the mark of a cut, which is newer than all others.
    pub(crate) fn add(&mut self, mark: CutMark) {
        assert!(!self.are_full(), "an operation that adds a mark has made room for it");
        self.remove(mark.chunks);
        let place = self.0.partition_point(|other| other.chunks.start() < mark.chunks.start());
        self.0.insert(place, mark);
    }

    /// Takes chunks out of the marks.
    pub(crate) fn remove(&mut self, chunks: ChunkRange) {
        let rest = |mark: CutMark| {
            let CutMark { chunks: marked, .. } = mark;
            let before = ChunkRange::new(marked.start(), marked.end().min(chunks.start()));
            let after = ChunkRange::new(marked.start().max(chunks.end()), marked.end());
            before.into_iter().chain(after).map(move |chunks| CutMark { chunks, ..mark })
        };
        self.0 = std::mem::take(&mut self.0).into_iter().flat_map(rest).collect();
    }

    /// The cut that made a chunk with this data xid a hole, if one did.
    pub(crate) fn cut_of(&self, chunk: ChunkNo, data_xid: Xid) -> Option<Xid> {
        let mark = self.0.iter().find(|mark| mark.chunks.contains(chunk));
        mark.map(|mark| mark.xid).filter(|cut| *cut > data_xid)
    }

    /// The parts of a stored run that live and that are dead, in order.
    pub(crate) fn split(&self, run: ChunkRun) -> Vec<StoredRun> {
        let mut parts = Vec::new();
        let mut at = run.chunks.start();
        let part = |chunks, cut| StoredRun { run: ChunkRun { chunks, ..run }, cut };
        for CutMark { chunks, xid } in self.0.iter().filter(|mark| mark.xid > run.data_xid) {
            let Some(dead) = chunks.intersection(run.chunks) else { continue };
            parts.extend(ChunkRange::new(at, dead.start()).map(|chunks| part(chunks, None)));
            parts.push(part(dead, Some(*xid)));
            at = dead.end();
        }
        parts.extend(ChunkRange::new(at, run.chunks.end()).map(|chunks| part(chunks, None)));
        parts
    }
}

/// Makes the runs that readers see of stored ones, which come in order and are adjacent: dead parts
/// are holes, and runs that go on as the one before them are one.
pub(super) struct EffectiveRuns {
    marks: CutMarks,
    n_max: usize,
    runs: Vec<ChunkRun>,
}

impl EffectiveRuns {
    /// At most `n_max` runs.
    pub(super) fn new(marks: CutMarks, n_max: usize) -> Self {
        Self { marks, n_max, runs: Vec::new() }
    }

    /// Adds a stored run.
    pub(super) fn add(&mut self, stored: ChunkRun) {
        if self.marks.is_empty() {
            return self.merge(stored);
        }
        for part in self.marks.split(stored) {
            self.merge(part.effective());
        }
    }

    #[expect(clippy::expect_used, reason = "the end of a run lies behind every earlier start")]
    fn merge(&mut self, run: ChunkRun) {
        match self.runs.last_mut() {
            Some(last) if last.state == run.state && last.data_xid == run.data_xid => {
                assert_eq!(last.chunks.end(), run.chunks.start(), "runs are adjacent");
                let both = ChunkRange::new(last.chunks.start(), run.chunks.end());
                last.chunks = both.expect("two runs have chunks");
            }
            _ => self.runs.push(run),
        }
    }

    /// Whether no more are wanted. One more than wanted has to be there: only then it is certain
    /// where the last one ends.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() > self.n_max
    }

    pub(super) fn finish(mut self) -> Vec<ChunkRun> {
        self.runs.truncate(self.n_max);
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ChunkRange {
        ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
    }

    fn hot(start: u64, end: u64, xid: u64) -> ChunkRun {
        ChunkRun { chunks: range(start, end), state: ChunkState::Hot, data_xid: Xid::new(xid) }
    }

    fn ranges(marks: &CutMarks) -> Vec<(u64, u64, u64)> {
        let numbers =
            |mark: &CutMark| (mark.chunks.start().get(), mark.chunks.end().get(), mark.xid.get());
        marks.marks().iter().map(numbers).collect()
    }

    #[test]
    fn cuts_fold_and_rising_ones_stay() {
        let mut marks = CutMarks::default();
        let end = u64::MAX;
        for (start, xid) in [(7, 1), (5, 2), (9, 3), (3, 4)] {
            marks.add(CutMark { chunks: range(start, end), xid: Xid::new(xid) });
        }
        assert_eq!(ranges(&marks), [(3, end, 4)], "the lowest took the place of all");
        marks.add(CutMark { chunks: range(8, end), xid: Xid::new(5) });
        assert_eq!(ranges(&marks), [(3, 8, 4), (8, end, 5)]);
        marks.add(CutMark { chunks: range(4, 5), xid: Xid::new(6) });
        assert_eq!(ranges(&marks), [(3, 4, 4), (4, 5, 6), (5, 8, 4), (8, end, 5)]);
        marks.remove(range(0, 6));
        assert_eq!(ranges(&marks), [(6, 8, 4), (8, end, 5)]);
    }

    #[test]
    fn marks_that_overlap_or_are_too_many_are_none() {
        let mark = |start, end| CutMark { chunks: range(start, end), xid: Xid::new(1) };
        assert!(CutMarks::new(vec![mark(0, 2), mark(2, 3)]).is_some());
        assert!(CutMarks::new(vec![mark(0, 3), mark(2, 4)]).is_none());
        assert!(CutMarks::new(vec![mark(2, 3), mark(0, 1)]).is_none());
        let many = (0..20).map(|number| mark(2 * number, 2 * number + 1)).collect();
        assert!(CutMarks::new(many).is_none());
    }

    #[test]
    #[should_panic(expected = "made room")]
    fn one_mark_too_many_is_refused() {
        let mut marks = CutMarks::default();
        for xid in 1..=20 {
            marks.add(CutMark { chunks: range(2 * xid, 2 * xid + 1), xid: Xid::new(xid) });
        }
    }

    #[test]
    fn dead_parts_are_holes_and_equal_neighbours_are_one_run() {
        let mut marks = CutMarks::default();
        marks.add(CutMark { chunks: range(2, 6), xid: Xid::new(5) });
        let mut runs = EffectiveRuns::new(marks.clone(), 9);
        for run in [hot(0, 3, 1), hot(3, 4, 2), hot(4, 5, 5), hot(5, 8, 1), hot(8, 9, 1)] {
            runs.add(run);
        }
        let hole = |start, end| ChunkRun { state: ChunkState::Hole, ..hot(start, end, 5) };
        let expected = [hot(0, 2, 1), hole(2, 4), hot(4, 5, 5), hole(5, 6), hot(6, 9, 1)];
        assert_eq!(runs.finish(), expected);
        let mut first = EffectiveRuns::new(marks, 1);
        first.add(hot(0, 3, 1));
        assert!(first.is_full(), "the second run has begun");
        assert_eq!(first.finish(), [hot(0, 2, 1)]);
    }

    proptest! {
        /// The newest cut that a chunk lies in decides, if it is newer than the chunk.
        #[test]
        fn marks_say_what_a_list_of_all_cuts_says(
            cuts in prop::collection::vec((0..30_u64, 1..30_u64), 0..7),
            data_xid in 0..10_u64,
        ) {
            let mut marks = CutMarks::default();
            for (xid, (start, len)) in (1..).zip(&cuts) {
                marks.add(CutMark { chunks: range(*start, start + len), xid: Xid::new(xid) });
            }
            prop_assert!(CutMarks::new(marks.marks().to_vec()).is_some());
            for part in marks.split(hot(0, 70, data_xid)) {
                for chunk in part.run.chunks.start().get()..part.run.chunks.end().get() {
                    let covering = (1..).zip(&cuts).filter(|(_, (start, len))| {
                        (*start..start + len).contains(&chunk)
                    });
                    let newest = covering.map(|(xid, _)| xid).max();
                    let cut = newest.filter(|xid| *xid > data_xid).map(Xid::new);
                    prop_assert_eq!(part.cut, cut, "chunk {}", chunk);
                    let chunk = ChunkNo::new(chunk);
                    prop_assert_eq!(marks.cut_of(chunk, Xid::new(data_xid)), cut);
                }
            }
        }
    }
}
