//! Lost ranges: what of files cannot be read any more, anywhere, as a list for a report.
//!
//! A list is kept to a limit, because a disk that fails may lose any number of ranges; what lies
//! beyond it is counted.

use tier_index::{Extent, Index, IndexError};
use tier_types::{ByteRange, Ino};

/// Ranges that are listed; of the others there is only the sum.
const N_LISTED: usize = 1000;

/// Bytes of a file that are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostRange {
    /// The file.
    pub ino: Ino,
    /// Its bytes. The range may go on behind the end of a file that was cut since.
    pub bytes: ByteRange,
}

/// Lost ranges: the first of them, and how many there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LostRanges {
    listed: Vec<LostRange>,
    n_ranges: u64,
    n_bytes: u64,
}

impl LostRanges {
    /// All that an index has.
    pub fn of_index(index: &Index) -> Result<Self, IndexError> {
        let (chunk_bytes, mut lost) = (index.chunk_bytes(), Self::default());
        index.visit_lost(&mut |Extent { ino, chunks, .. }| {
            let offset = chunks.offset_bytes(chunk_bytes);
            let len = chunks.len().saturating_mul(u64::from(chunk_bytes));
            lost.add(LostRange { ino: *ino, bytes: ByteRange { offset, len } });
            Ok::<_, IndexError>(())
        })?;
        Ok(lost)
    }

    /// Adds a range.
    pub fn add(&mut self, range: LostRange) {
        self.n_ranges += 1;
        // From an archive, whose numbers may add up to anything.
        self.n_bytes = self.n_bytes.saturating_add(range.bytes.len);
        if self.listed.len() < N_LISTED {
            self.listed.push(range);
        }
    }

    /// Adds all of another list.
    pub(crate) fn append(&mut self, other: &Self) {
        let room = N_LISTED.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.iter().take(room));
        self.n_ranges += other.n_ranges;
        self.n_bytes = self.n_bytes.saturating_add(other.n_bytes);
    }

    /// The first of them, in the order in which they were found.
    pub fn listed(&self) -> &[LostRange] {
        &self.listed
    }

    /// How many there are.
    pub fn n_ranges(&self) -> u64 {
        self.n_ranges
    }

    /// How many bytes they have.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_counted() {
        let mut ranges = LostRanges::default();
        for offset in 0..2 * 1000 {
            let bytes = ByteRange { offset, len: 3 };
            ranges.add(LostRange { ino: Ino::new(7), bytes });
        }
        assert_eq!(
            (ranges.listed().len(), ranges.n_ranges(), ranges.n_bytes()),
            (1000, 2000, 6000)
        );
        assert_eq!(ranges.listed()[999].bytes.offset, 999);
    }
}
