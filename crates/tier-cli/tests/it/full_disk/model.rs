//! What a writer knows of its files: for each block what it may hold.
//!
//! Each write has a stamp of its own, from which the content of its blocks follows. A write that
//! returned, with the close of its file, leaves one stamp in each of its blocks; one that failed
//! leaves the old one or the new one in each, because a full disk may take any part of it. A
//! operation on names or on a length is all or nothing: one that failed has changed nothing. Only
//! of the one that was under way when the process was killed it is not known whether it was done.

use std::ops::{Range, RangeInclusive};

pub(super) const BLOCK_BYTES: usize = 4096;

/// Names a write. Zero is for a hole.
pub(super) type Stamp = u64;

const HOLE: Stamp = 0;

/// What a file may hold, in blocks.
#[derive(Clone, Debug)]
pub(super) struct FileModel {
    n_blocks: RangeInclusive<usize>,
    /// For each block that there may be, the stamps that it may have.
    blocks: Vec<Vec<Stamp>>,
}

/// The content of blocks that a write has filled.
pub(super) fn content(stamp: Stamp, blocks: Range<usize>) -> Vec<u8> {
    blocks.flat_map(|block| block_content(stamp, block)).collect()
}

/// A block begins with its stamp; the rest is what no compression makes less of.
fn block_content(stamp: Stamp, block: usize) -> Vec<u8> {
    if stamp == HOLE {
        return vec![0; BLOCK_BYTES];
    }
    let block = u64::try_from(block).unwrap();
    let mut state = stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (block << 1 | 1);
    let mut bytes = stamp.to_le_bytes().to_vec();
    while bytes.len() < BLOCK_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

impl FileModel {
    pub(super) fn empty() -> Self {
        Self { n_blocks: 0..=0, blocks: Vec::new() }
    }

    /// Behind all blocks that there may be.
    pub(super) fn end(&self) -> usize {
        self.blocks.len()
    }

    /// A write begins, which may do any part of its work.
    pub(super) fn may_become(&mut self, range: Range<usize>, stamp: Stamp) {
        let end = self.end().max(range.end);
        self.blocks.resize(end, vec![HOLE]);
        self.n_blocks = *self.n_blocks.start()..=end;
        for block in &mut self.blocks[range] {
            block.push(stamp);
        }
    }

    /// A write was acknowledged.
    pub(super) fn became(&mut self, range: Range<usize>, stamp: Stamp) {
        self.n_blocks = (*self.n_blocks.start()).max(range.end)..=*self.n_blocks.end();
        for block in &mut self.blocks[range] {
            *block = vec![stamp];
        }
    }

    pub(super) fn set_len(&mut self, n_blocks: usize) {
        self.blocks.resize(n_blocks, vec![HOLE]);
        self.n_blocks = n_blocks..=n_blocks;
    }

    /// What the bytes of a file say it is. An error if that may not be.
    pub(super) fn settled(&self, bytes: &[u8]) -> Result<Self, String> {
        let n_blocks = bytes.len() / BLOCK_BYTES;
        if !bytes.len().is_multiple_of(BLOCK_BYTES) || !self.n_blocks.contains(&n_blocks) {
            let (len, wanted) = (bytes.len(), &self.n_blocks);
            return Err(format!("{len} bytes, which are not {wanted:?} blocks"));
        }
        let mut settled = Self { n_blocks: n_blocks..=n_blocks, blocks: Vec::new() };
        let mut wrong = Vec::new();
        for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let stamp = Stamp::from_le_bytes(block[..8].try_into().unwrap());
            let allowed = &self.blocks[number];
            if !allowed.contains(&stamp) || block != block_content(stamp, number) {
                wrong.push(format!("block {number} has stamp {stamp:x}, not {allowed:x?}"));
            }
            settled.blocks.push(vec![stamp]);
        }
        let (first, n_wrong) = (wrong.first(), wrong.len());
        first.map_or(Ok(settled), |first| Err(format!("{n_wrong} of {n_blocks} blocks: {first}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_leaves_no_choice_and_a_failed_one_does() {
        let mut file = FileModel::empty();
        file.may_become(0..2, 7);
        assert!(file.settled(&[]).is_ok());
        assert!(file.settled(&content(7, 0..2)).is_ok());
        let half = [content(HOLE, 0..1), content(7, 1..2)].concat();
        assert!(file.settled(&half).is_ok());
        file.became(0..2, 7);
        assert!(file.settled(&content(7, 0..2)).is_ok());
        assert!(file.settled(&half).is_err(), "a block is lost");
        assert!(file.settled(&content(7, 0..1)).is_err(), "its end is lost");
        assert!(file.settled(&content(8, 0..2)).is_err(), "it is of another write");
        let mut flipped = content(7, 0..2);
        flipped[5000] ^= 1;
        assert!(file.settled(&flipped).is_err());
        file.set_len(1);
        file.set_len(2);
        assert!(file.settled(&[content(7, 0..1), content(HOLE, 1..2)].concat()).is_ok());
        assert!(file.settled(&content(7, 0..2)).is_err(), "what was cut is back");
    }
}
