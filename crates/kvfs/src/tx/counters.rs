//! Totals that are counted with every commit, so that no question about them walks the store.

use tier_types::ChunkState;

use crate::store::Counters;

impl Counters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.n_inodes += other.n_inodes;
        self.resident_bytes += other.resident_bytes;
        self.cold_bytes += other.cold_bytes;
        self.lost_bytes += other.lost_bytes;
        self.n_pins += other.n_pins;
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        Self {
            n_inodes: self.n_inodes - other.n_inodes,
            resident_bytes: self.resident_bytes - other.resident_bytes,
            cold_bytes: self.cold_bytes - other.cold_bytes,
            lost_bytes: self.lost_bytes - other.lost_bytes,
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

    /// Bytes of chunks that are lost.
    pub(crate) fn lost_bytes(&self) -> u64 {
        self.lost_bytes.max(0).unsigned_abs()
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
            ChunkState::Lost => self.lost_bytes += bytes,
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
        counters.gain(ChunkState::Lost, 10_000);
        assert_eq!((counters.resident_bytes(), counters.cold_bytes()), (110, 1000));
        assert_eq!(counters.lost_bytes(), 10_000);
        counters.lose(ChunkState::Hot, 10);
        counters.lose(ChunkState::Cold, 1000);
        assert_eq!((counters.resident_bytes(), counters.cold_bytes()), (100, 0));
    }

    #[test]
    fn a_difference_added_gives_the_whole() {
        let totals = |n_inodes, resident_bytes, [cold_bytes, lost_bytes, n_pins]: [i64; 3]| {
            Counters { n_inodes, resident_bytes, cold_bytes, lost_bytes, n_pins }
        };
        let kept = totals(3, -7, [9, 8, 1]);
        let counted = totals(5, 70, [0, 80, 2]);
        let mut sum = kept;
        sum.add(&counted.minus(&kept));
        assert_eq!(sum, counted);
    }
}
