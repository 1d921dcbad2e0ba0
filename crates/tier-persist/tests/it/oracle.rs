//! The oracle of restores: what each chunk of each file must be, in the filesystem and in its
//! archive.

use std::collections::BTreeMap;
use std::ops::Range;

use tier_index::{Index, IndexError};
use tier_testkit::FakeKvs;
use tier_types::{ErrorKind, to_u64};

pub(crate) const N_CHUNKS: usize = 14;
pub(crate) const CHUNK_LEN: usize = 512;

/// What a chunk is, here or in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Hole,
    Data,
    /// Its content is gone: damaged here, or lost in the archive.
    Bad,
}

/// One chunk of the oracle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    pub(crate) state: State,
    /// Every change of content has its own.
    version: u64,
    content: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct OracleFile {
    /// Another one of the same name has another.
    id: u64,
    len: usize,
    pub(crate) cells: Vec<Cell>,
}

impl OracleFile {
    pub(crate) fn new(id: u64) -> Self {
        let never_written = Cell { state: State::Hole, version: 0, content: vec![0; CHUNK_LEN] };
        Self { id, len: 0, cells: vec![never_written; N_CHUNKS] }
    }

    /// Bytes of a chunk that lie in the file.
    fn len_in(&self, number: usize) -> usize {
        self.len.saturating_sub(number * CHUNK_LEN).min(CHUNK_LEN)
    }

    /// Whether a write may be made: no part of a chunk without content would stay.
    pub(crate) fn write(&mut self, offset: usize, new: &[u8], version: u64) -> bool {
        let end = offset + new.len();
        let touched = offset / CHUNK_LEN..end.div_ceil(CHUNK_LEN);
        let keeps = |number: usize| {
            let start = number * CHUNK_LEN;
            let chunk_end = start + self.len_in(number);
            start < chunk_end && (start < offset || end < chunk_end)
        };
        let kept: Vec<_> = touched.clone().map(keeps).collect();
        let mut bad = touched.clone().zip(&kept);
        if bad.any(|(number, kept)| *kept && self.cells[number].state == State::Bad) {
            return false;
        }
        for (number, kept) in touched.zip(kept) {
            let cell = &mut self.cells[number];
            if !kept {
                cell.content.fill(0);
            }
            (cell.state, cell.version) = (State::Data, version);
            let start = number * CHUNK_LEN;
            let (from, until) = (offset.max(start), end.min(start + CHUNK_LEN));
            let source = &new[from - offset..until - offset];
            cell.content[from - start..until - start].copy_from_slice(source);
        }
        self.len = self.len.max(end);
        true
    }

    /// The same of a cut.
    pub(crate) fn truncate(&mut self, len: usize, version: u64) -> bool {
        if len < self.len {
            let (cut, kept) = (len / CHUNK_LEN, len % CHUNK_LEN);
            if kept > 0 && self.cells[cut].state == State::Bad {
                return false;
            }
            if kept > 0 && self.cells[cut].state == State::Data {
                self.cells[cut].version = version;
                self.cells[cut].content[kept..].fill(0);
            }
            let first_gone = cut + usize::from(kept > 0);
            self.punch(first_gone..N_CHUNKS, version);
        }
        self.len = len;
        true
    }

    pub(crate) fn punch(&mut self, chunks: Range<usize>, version: u64) {
        for cell in &mut self.cells[chunks] {
            *cell = Cell { state: State::Hole, version, content: vec![0; CHUNK_LEN] };
        }
    }
}

/// What must be read: of the filesystem, and of its archive. Neither ever makes zeros of data.
#[derive(Default, Debug)]
pub(crate) struct Oracle {
    pub(crate) live: BTreeMap<String, OracleFile>,
    pub(crate) archived: BTreeMap<String, OracleFile>,
    pub(crate) version: u64,
}

/// What failed while a snapshot was taken, and was asked for.
#[derive(Default)]
pub(crate) struct Unread {
    /// A chunk of a file.
    pub(crate) chunk: Option<(String, usize)>,
    /// The chunk map of a file.
    pub(crate) file: Option<String>,
}

impl Oracle {
    pub(crate) fn persist(&mut self, unread: &Unread) {
        let mut before = std::mem::replace(&mut self.archived, self.live.clone());
        if let Some((name, number)) = &unread.chunk {
            // An error until a snapshot has it, and never what an earlier one has.
            self.archived.get_mut(name).unwrap().cells[*number].state = State::Bad;
        }
        for (name, file) in &mut self.archived {
            let Some(before) = before.get(name).filter(|before| before.id == file.id) else {
                continue;
            };
            for (cell, before) in file.cells.iter_mut().zip(&before.cells) {
                // Data that was archived of this version stays.
                if cell.version == before.version && before.state == State::Data {
                    *cell = before.clone();
                }
            }
        }
        if let Some(name) = &unread.file {
            // All of it is as it was, if there was anything.
            let file = self.archived.remove(name).unwrap();
            let before = before.remove(name).filter(|before| before.id == file.id);
            self.archived.extend(before.map(|before| (name.clone(), before)));
        }
    }

    /// Evicting a chunk whose version is archived heals it: it comes back from there.
    pub(crate) fn evict(&mut self, name: &str) {
        let (Some(file), Some(archived)) = (self.live.get_mut(name), self.archived.get(name))
        else {
            return;
        };
        for (cell, archived) in file.cells.iter_mut().zip(&archived.cells) {
            if cell.version == archived.version && archived.state == State::Data {
                *cell = archived.clone();
            }
        }
    }

    /// Compares every chunk, as it is read.
    pub(crate) fn check(&self, kvs: &FakeKvs) {
        for (name, file) in &self.live {
            for (number, cell) in file.cells.iter().enumerate() {
                let len = file.len_in(number);
                if len == 0 {
                    continue;
                }
                let read = kvs.read_chunk(name, to_u64(number));
                match cell.state {
                    State::Hole | State::Data => {
                        assert!(read.unwrap() == cell.content[..len], "{name}, chunk {number}");
                    }
                    State::Bad => {
                        let error = read.expect_err("what has no content is an error");
                        assert_eq!(error.kind(), ErrorKind::Damaged, "{name}, {number}: {error}");
                    }
                }
            }
        }
    }

    /// Compares what the index knows as lost, chunk by chunk.
    pub(crate) fn check_lost(&self, index: &Index, kvs: &FakeKvs) {
        let mut found = Vec::new();
        index
            .visit_lost(&mut |extent| {
                let numbers = extent.chunks.start().get()..extent.chunks.end().get();
                found.extend(numbers.map(|number| (extent.ino, number)));
                Ok::<_, IndexError>(())
            })
            .unwrap();
        let mut expected = Vec::new();
        for (name, file) in &self.archived {
            let bad = (0..).zip(&file.cells).filter(|(_, cell)| cell.state == State::Bad);
            expected.extend(bad.map(|(number, _)| (kvs.ino(name), number)));
        }
        expected.sort();
        assert_eq!(found, expected);
    }

    pub(crate) fn lost_bytes(&self) -> u64 {
        let of = |file: &OracleFile| {
            let bad = file.cells.iter().enumerate().filter(|(_, cell)| cell.state == State::Bad);
            bad.map(|(number, _)| to_u64(file.len_in(number))).sum::<u64>()
        };
        self.archived.values().map(of).sum()
    }
}
