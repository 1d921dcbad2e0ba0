//! The content of a file: a length, and blocks of which some are holes.
//!
//! Blocks are shared between copies until one of them is written to, so that a disk is copied
//! without its bytes, and a sync costs what was written since the last one. What takes room is what
//! has a block, be it behind the end of the file: a preallocated one does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tier_types::{to_u64, to_usize};

pub(super) const BLOCK_BYTES: u64 = 4096;

type Block = Vec<u8>;

/// Bytes, as far as they were written; the others read as zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    len: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
}

/// The numbers of the blocks that a range of bytes touches.
pub(super) fn touched(bytes: Range<u64>) -> Range<u64> {
    if bytes.is_empty() {
        return 0..0;
    }
    bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES)
}

fn empty() -> Arc<Block> {
    Arc::new(vec![0; to_usize(BLOCK_BYTES)])
}

impl Blocks {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Blocks that take room.
    pub(super) fn n_blocks(&self) -> u64 {
        to_u64(self.blocks.len())
    }

    /// How many of these bytes can be written if so many blocks can be added.
    pub(super) fn fitting(&self, bytes: Range<u64>, mut n_free_blocks: u64) -> u64 {
        for number in touched(bytes.clone()) {
            if self.blocks.contains_key(&number) {
                continue;
            }
            if n_free_blocks == 0 {
                return (number * BLOCK_BYTES).saturating_sub(bytes.start);
            }
            n_free_blocks -= 1;
        }
        bytes.end - bytes.start
    }

    pub(super) fn read(&self, bytes: Range<u64>) -> Vec<u8> {
        let bytes = bytes.start.min(self.len)..bytes.end.min(self.len);
        let mut out = Vec::with_capacity(to_usize(bytes.end - bytes.start));
        for (number, within) in pieces(bytes) {
            match self.blocks.get(&number) {
                Some(block) => out.extend_from_slice(&block[within]),
                None => out.resize(out.len() + within.len(), 0),
            }
        }
        out
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + to_u64(bytes.len());
        let mut rest = bytes;
        for (number, within) in pieces(offset..end) {
            let block = self.blocks.entry(number).or_insert_with(empty);
            let (now, later) = rest.split_at(within.len());
            Arc::make_mut(block)[within].copy_from_slice(now);
            rest = later;
        }
        self.len = self.len.max(end);
    }

    /// Cuts the file, or lets it grow by a hole. What was preallocated behind the end goes.
    pub(super) fn resize(&mut self, len: u64) {
        let end = len.min(self.len);
        self.blocks.split_off(&end.div_ceil(BLOCK_BYTES));
        let within = to_usize(end % BLOCK_BYTES);
        if within > 0
            && let Some(block) = self.blocks.get_mut(&(end / BLOCK_BYTES))
        {
            Arc::make_mut(block)[within..].fill(0);
        }
        self.len = len;
    }

    /// Makes zeros of bytes; blocks that are zeros altogether take no room any more.
    pub(super) fn punch(&mut self, bytes: Range<u64>) {
        for (number, within) in pieces(bytes) {
            if to_u64(within.len()) == BLOCK_BYTES {
                self.blocks.remove(&number);
            } else if let Some(block) = self.blocks.get_mut(&number) {
                Arc::make_mut(block)[within].fill(0);
            }
        }
    }

    /// Gives each block of a range room, and lets the file grow to its end if that is wanted.
    pub(super) fn allocate(&mut self, bytes: Range<u64>, grows: bool) {
        for number in touched(bytes.clone()) {
            self.blocks.entry(number).or_insert_with(empty);
        }
        if grows {
            self.len = self.len.max(bytes.end);
        }
    }

    /// Takes one block over from another version of the file, as far as both versions reach.
    pub(super) fn take_block(&mut self, number: u64, from: &Self) {
        let start = number * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(self.len).min(from.len);
        if start >= end {
            return;
        }
        match from.blocks.get(&number) {
            Some(_) => self.write(start, &from.read(start..end)),
            None => self.punch(start..end),
        }
    }

    /// Puts a block back as another version has it, or the hole that is there.
    pub(super) fn put_block_back(&mut self, number: u64, from: &Self) {
        match from.blocks.get(&number) {
            Some(block) => self.blocks.insert(number, Arc::clone(block)),
            None => self.blocks.remove(&number),
        };
    }

    /// The stored bytes with their places.
    pub(super) fn stored(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let numbers = self.blocks.keys().copied();
        let ranges = numbers.map(|number| number * BLOCK_BYTES..(number + 1) * BLOCK_BYTES);
        ranges.map(|bytes| (bytes.start, self.read(bytes))).filter(|(_, bytes)| !bytes.is_empty())
    }
}

/// The blocks that a range of bytes touches, each with the range within it.
fn pieces(bytes: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    touched(bytes.clone()).map(move |number| {
        let start = number * BLOCK_BYTES;
        let within = bytes.start.saturating_sub(start)..(bytes.end - start).min(BLOCK_BYTES);
        (number, to_usize(within.start)..to_usize(within.end))
    })
}
