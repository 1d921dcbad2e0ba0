//! The chunk map of one inode of the fake: total, in runs, as the port shows it.
//!
//! A run is kept by its first chunk and reaches to the next one, the last run to
//! [`ChunkNo::END`]. Neighbouring runs that are alike may be kept apart; they are joined when they
//! are read.

use std::collections::BTreeMap;

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Xid};

/// What is the same for all chunks of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RunState {
    pub(super) state: ChunkState,
    pub(super) data_xid: Xid,
}

impl RunState {
    const NEVER_WRITTEN: Self = Self { state: ChunkState::Hole, data_xid: Xid::new(0) };

    pub(super) fn is_resident(self) -> bool {
        self.state.is_resident()
    }
}

#[derive(Clone, Debug)]
pub(super) struct ChunkMap(BTreeMap<ChunkNo, RunState>);

impl Default for ChunkMap {
    fn default() -> Self {
        Self(BTreeMap::from([(ChunkNo::new(0), RunState::NEVER_WRITTEN)]))
    }
}

impl ChunkMap {
    pub(super) fn at(&self, chunk: ChunkNo) -> RunState {
        let (_, run) = self.0.range(..=chunk).next_back().expect("the map is total");
        *run
    }

    /// Puts one run in the place of all that lie in `chunks`.
    pub(super) fn set(&mut self, chunks: ChunkRange, run: RunState) {
        let behind = self.at(chunks.end());
        let replaced: Vec<_> =
            self.0.range(chunks.start()..chunks.end()).map(|(start, _)| *start).collect();
        for start in replaced {
            self.0.remove(&start);
        }
        self.0.insert(chunks.start(), run);
        if chunks.end() < ChunkNo::END {
            self.0.insert(chunks.end(), behind);
        }
    }

    /// The runs that lie in `within`, cut at its ends; neighbours differ.
    pub(super) fn runs(&self, within: ChunkRange) -> Vec<ChunkRun> {
        let later =
            self.0.range(within.start().next()..within.end()).map(|(start, run)| (*start, *run));
        let mut starts = vec![(within.start(), self.at(within.start()))];
        for (start, run) in later {
            if starts.last().is_some_and(|(_, last)| *last != run) {
                starts.push((start, run));
            }
        }
        let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([within.end()]);
        let run = |((start, RunState { state, data_xid }), end)| {
            let chunks = ChunkRange::new(start, end).expect("starts are in order");
            ChunkRun { chunks, state, data_xid }
        };
        starts.iter().copied().zip(ends).map(run).collect()
    }
}
