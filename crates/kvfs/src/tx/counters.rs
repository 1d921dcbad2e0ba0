//! Totals that are counted with every commit, so that no question about them walks the store.

use tier_types::ChunkState;

use crate::store::Counters;

impl Counters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.n_inodes += other.n_inodes;
        self.resident_bytes += other.resident_bytes;
        self.cold_bytes += other.cold_bytes;
        self.n_pins += other.n_pins;
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        Self {
            n_inodes: self.n_inodes - other.n_inodes,
            resident_bytes: self.resident_bytes - other.resident_bytes,
            cold_bytes: self.cold_bytes - other.cold_bytes,
            n_pins: self.n_pins - other.n_pins,
        }
    }

    /// Inodes. A total that damage made negative counts as none, here and below.
    pub(crate) fn n_inodes(&self) -> u64 {
        self.n_inodes.max(0).unsigned_abs()
    }

    /// Bytes of chunks in the store.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.resident_bytes.max(0).unsigned_abs()
    }

    /// Bytes of evicted chunks.
    pub(crate) fn cold_bytes(&self) -> u64 {
        self.cold_bytes.max(0).unsigned_abs()
    }

    /// Adds the bytes of chunks in a state.
    pub(crate) fn gain(&mut self, state: ChunkState, bytes: u64) {
        self.count(state, signed(bytes));
    }

    /// Takes the bytes of chunks in a state off.
    pub(crate) fn lose(&mut self, state: ChunkState, bytes: u64) {
        self.count(state, -signed(bytes));
    }

    fn count(&mut self, state: ChunkState, bytes: i64) {
        match state {
            ChunkState::Hole => {}
            ChunkState::Hot | ChunkState::Warm => self.resident_bytes += bytes,
            ChunkState::Cold => self.cold_bytes += bytes,
        }
    }
}

#[expect(clippy::expect_used, reason = "chunks are counted up to the ends of their files")]
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("a file has at most i64::MAX bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_where_they_are() {
        let mut counters = Counters::default();
        counters.gain(ChunkState::Hole, 1);
        counters.gain(ChunkState::Hot, 10);
        counters.gain(ChunkState::Warm, 100);
        counters.gain(ChunkState::Cold, 1000);
        assert_eq!((counters.resident_bytes(), counters.cold_bytes()), (110, 1000));
        counters.lose(ChunkState::Hot, 10);
        counters.lose(ChunkState::Cold, 1000);
        assert_eq!((counters.resident_bytes(), counters.cold_bytes()), (100, 0));
    }

    #[test]
    fn a_difference_added_gives_the_whole() {
        let kept = Counters { n_inodes: 3, resident_bytes: -7, cold_bytes: 9, n_pins: 1 };
        let counted = Counters { n_inodes: 5, resident_bytes: 70, cold_bytes: 0, n_pins: 2 };
        let mut sum = kept;
        sum.add(&counted.minus(&kept));
        assert_eq!(sum, counted);
    }
}
