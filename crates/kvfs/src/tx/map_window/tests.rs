//! Windows against a naive map: a vector with the state of every chunk.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tier_types::{ChunkState, Xid};

use super::*;
use crate::space::Permit;
use crate::store::{Counters, Db};
use crate::testing::{CHUNK, StandingClock, committer, store};
use crate::tx::Committer;

/// Chunks that the naive map has; the rest of the address space is never touched.
const N_CHUNKS: u64 = 12;

/// New runs for a part of a map.
#[derive(Clone, Debug)]
struct Replacement {
    start: u64,
    /// The length of each run, and what it is.
    runs: Vec<(u64, RunState)>,
    new_bytes: u64,
}

fn run_state() -> impl Strategy<Value = RunState> {
    use ChunkState::{Cold, Hole, Hot, Lost, Warm};
    (prop::sample::select(vec![Hole, Hot, Warm, Cold, Lost]), 1..3_u64)
        .prop_map(|(state, xid)| RunState { state, data_xid: Xid::new(xid) })
}

fn replacement() -> impl Strategy<Value = Replacement> {
    let runs = prop::collection::vec((1..4_u64, run_state()), 1..4);
    (0..N_CHUNKS, runs, 0..N_CHUNKS * u64::from(CHUNK))
        .prop_map(|(start, runs, new_bytes)| Replacement { start, runs, new_bytes })
}

/// A file whose map is a vector.
struct Naive {
    chunks: Vec<RunState>,
    bytes: u64,
}

impl Naive {
    fn new() -> Self {
        let n = usize::try_from(N_CHUNKS + 20).unwrap();
        Self { chunks: vec![RunState::NEVER_WRITTEN; n], bytes: 0 }
    }

    fn replace(&mut self, replacement: &Replacement) {
        let mut at = usize::try_from(replacement.start).unwrap();
        for (len, state) in &replacement.runs {
            for _ in 0..*len {
                self.chunks[at] = *state;
                at += 1;
            }
        }
        self.bytes = replacement.new_bytes;
    }

    fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for (number, run) in (0..).zip(&self.chunks) {
            let start = number * u64::from(CHUNK);
            let end = (start + u64::from(CHUNK)).min(self.bytes);
            counters.gain(run.state, end.saturating_sub(start));
        }
        counters
    }
}

fn range_of(replacement: &Replacement) -> ChunkRange {
    let len: u64 = replacement.runs.iter().map(|(len, _)| len).sum();
    let start = replacement.start;
    ChunkRange::new(ChunkNo::new(start), ChunkNo::new(start + len)).unwrap()
}

fn replace(db: &Db, committer: &Committer, ino: Ino, old_bytes: u64, replacement: &Replacement) {
    let size = FileSize { bytes: old_bytes, chunk_bytes: CHUNK };
    let window = MapWindow::load(db.reader(), ino, range_of(replacement), size).unwrap();
    let mut at = replacement.start;
    let mut runs = Vec::new();
    for (len, RunState { state, data_xid }) in &replacement.runs {
        let chunks = ChunkRange::new(ChunkNo::new(at), ChunkNo::new(at + len)).unwrap();
        runs.push(ChunkRun { chunks, state: *state, data_xid: *data_xid });
        at += len;
    }
    let new_bytes = replacement.new_bytes;
    committer
        .commit(Permit::unchecked(), 0, move |draft| {
            window.replace(&runs, new_bytes, draft);
            window.put_sums(draft);
        })
        .unwrap();
}

/// The state of each of the first chunks, and that no run goes on as the one before it.
fn chunks(db: &Db, ino: Ino, n: usize) -> Vec<RunState> {
    let runs: Vec<_> = db.reader().all_runs(ino, ChunkNo::new(0)).map(Result::unwrap).collect();
    assert_eq!(runs.last().unwrap().chunks.end(), ChunkNo::END, "the map is total");
    assert!(runs.is_sorted_by(|a, b| a.chunks.end() == b.chunks.start()), "without gaps");
    let is_minimal = runs.is_sorted_by(|a, b| (a.state, a.data_xid) != (b.state, b.data_xid));
    assert!(is_minimal, "no run goes on as the one before it: {runs:?}");
    let states = runs.iter().flat_map(|run| {
        let len = usize::try_from(run.chunks.len()).unwrap_or(usize::MAX).min(n);
        std::iter::repeat_n(RunState { state: run.state, data_xid: run.data_xid }, len)
    });
    states.take(n).collect()
}

#[test]
fn replacements_do_what_they_do_to_a_vector() {
    let (_dir, db) = store();
    let committer = committer(&db, Arc::new(StandingClock));
    let mut runner = TestRunner::new(Config { cases: 300, ..Config::default() });
    let next_ino = std::cell::Cell::new(10);
    runner
        .run(&prop::collection::vec(replacement(), 1..8), |replacements| {
            let ino = Ino::new(next_ino.replace(next_ino.get() + 1));
            let mut naive = Naive::new();
            for replacement in &replacements {
                replace(&db, &committer, ino, naive.bytes, replacement);
                naive.replace(replacement);
                prop_assert_eq!(chunks(&db, ino, naive.chunks.len()), naive.chunks.clone());
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn sums_are_those_of_the_chunks_up_to_the_end_of_the_file() {
    let (_dir, db) = store();
    let committer = committer(&db, Arc::new(StandingClock));
    let mut runner = TestRunner::new(Config { cases: 300, ..Config::default() });
    let next_ino = std::cell::Cell::new(10);
    runner
        .run(&prop::collection::vec(replacement(), 1..8), |replacements| {
            let ino = Ino::new(next_ino.replace(next_ino.get() + 1));
            let before = committer.counters();
            let mut naive = Naive::new();
            for replacement in replacements {
                // A write only lets a file grow, to its own end, which lies in its last chunk.
                let last = range_of(&replacement).last().get() * u64::from(CHUNK);
                let end = replacement.new_bytes.clamp(last + 1, last + u64::from(CHUNK));
                let new_bytes = naive.bytes.max(end);
                let write = Replacement { new_bytes, ..replacement };
                replace(&db, &committer, ino, naive.bytes, &write);
                naive.replace(&write);
                let sums = committer.counters().minus(&before);
                prop_assert_eq!(sums, naive.counters());
                let kept = db.reader().data_sums(ino).unwrap();
                prop_assert_eq!(kept, DataSums::default().changed_by(&naive.counters()));
                let is_warm = naive.counters().warm_bytes > 0;
                prop_assert_eq!(db.reader().is_listed_warm(ino).unwrap(), is_warm);
            }
            Ok(())
        })
        .unwrap();
}

fn window(db: &Db, start: u64, end: u64, bytes: u64) -> MapWindow {
    let range = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap();
    let size = FileSize { bytes, chunk_bytes: CHUNK };
    MapWindow::load(db.reader(), Ino::new(7), range, size).unwrap()
}

#[test]
fn a_file_that_grows_within_a_resident_chunk_has_more_resident_bytes() {
    let (_dir, db) = store();
    let committer = committer(&db, Arc::new(StandingClock));
    let first = window(&db, 0, 1, 0);
    committer
        .commit(Permit::unchecked(), 0, move |draft| {
            first.set(ChunkState::Hot, 100, draft);
            first.put_sums(draft);
        })
        .unwrap();
    assert_eq!(committer.counters().resident_bytes(), 100);
    let grown = window(&db, 0, 1, 100);
    committer
        .commit(Permit::unchecked(), 0, move |draft| {
            grown.grow(10_000, None, draft);
            grown.put_sums(draft);
        })
        .unwrap();
    assert_eq!(committer.counters().resident_bytes(), u64::from(CHUNK));
    assert_eq!(db.reader().data_sums(Ino::new(7)).unwrap().resident_bytes, u64::from(CHUNK));
}

#[test]
fn a_state_changes_where_it_is_wanted_and_the_version_stays() {
    let (_dir, db) = store();
    let committer = committer(&db, Arc::new(StandingClock));
    for (start, end, xid) in [(0, 2, 1), (2, 4, 2)] {
        let runs = [(end - start, RunState { state: ChunkState::Hot, data_xid: Xid::new(xid) })];
        let new_bytes = end * u64::from(CHUNK);
        let replacement = Replacement { start, runs: runs.to_vec(), new_bytes };
        replace(&db, &committer, Ino::new(7), start * u64::from(CHUNK), &replacement);
    }
    let all = window(&db, 1, 4, 4 * u64::from(CHUNK));
    committer
        .commit(Permit::unchecked(), 0, move |draft| {
            all.set_state(|run| run.data_xid == Xid::new(2), ChunkState::Cold, draft);
        })
        .unwrap();
    let states: Vec<_> = chunks(&db, Ino::new(7), 4)
        .into_iter()
        .map(|run| (run.state, run.data_xid.get()))
        .collect();
    let (hot, cold) = ((ChunkState::Hot, 1), (ChunkState::Cold, 2));
    assert_eq!(states, [hot, hot, cold, cold]);
    assert_eq!(committer.counters().cold_bytes(), 2 * u64::from(CHUNK));
}

#[test]
#[should_panic(expected = "fill")]
fn runs_that_do_not_fill_the_window_are_refused() {
    let (_dir, db) = store();
    let window = window(&db, 0, 4, 0);
    let mut draft = Draft::new(Xid::new(1), tier_types::Timestamp::default());
    let chunks = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(3)).unwrap();
    let run = ChunkRun { chunks, state: ChunkState::Hot, data_xid: Xid::new(1) };
    window.replace(&[run], 0, &mut draft);
}

#[test]
fn a_file_ends_in_the_chunk_after_its_whole_ones() {
    let end_chunk = |bytes| FileSize { bytes, chunk_bytes: 10 }.end_chunk().get();
    assert_eq!([0, 9, 10, 25].map(end_chunk), [0, 0, 1, 2]);
}

/// In each block that ever had a row one stays: whatever comes and goes, a reader that looks for
/// the last row before a chunk finds one close by.
#[test]
fn blocks_keep_a_row_and_no_run_goes_on_as_the_one_before_it() {
    let (_dir, db) = store();
    let committer = committer(&db, Arc::new(StandingClock));
    let ino = Ino::new(7);
    let n = 10 * BLOCK_CHUNKS;
    let size = FileSize { bytes: 2 * n * u64::from(CHUNK), chunk_bytes: CHUNK };
    let set = |start, end, state, xid| {
        let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap();
        let window = MapWindow::load(db.reader(), ino, chunks, size).unwrap();
        let run = ChunkRun { chunks, state, data_xid: Xid::new(xid) };
        committer
            .commit(Permit::unchecked(), 0, move |draft| window.replace(&[run], size.bytes, draft))
            .unwrap();
    };
    for chunk in (0..n).step_by(3) {
        set(chunk, chunk + 1, ChunkState::Hot, chunk + 1);
    }
    set(0, n, ChunkState::Cold, 9);
    for chunk in (0..n).step_by(2) {
        set(chunk, chunk + 1, ChunkState::Hot, 10);
    }
    for chunk in (0..n).step_by(2) {
        set(chunk, chunk + 1, ChunkState::Cold, 9);
    }
    let runs: Vec<_> = db.reader().all_runs(ino, ChunkNo::new(0)).map(Result::unwrap).collect();
    assert_eq!(runs.len(), 2, "data, and nothing behind it: {runs:?}");
    let stored = db.reader().stored_map(ino, ChunkRange::ALL).unwrap();
    let mut blocks: Vec<_> = stored.rows.iter().map(|row| block(row.start)).collect();
    let n_rows = blocks.len();
    blocks.dedup();
    let n_blocks = usize::try_from(n / BLOCK_CHUNKS).unwrap();
    assert!(blocks.len() >= n_blocks && n_rows <= n_blocks + 2, "{n_rows} rows in {blocks:?}");
}
