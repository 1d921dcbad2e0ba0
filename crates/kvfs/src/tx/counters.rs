//! Totals that are counted with every commit, so that no question about them walks the store.

use tier_types::ChunkState;

use crate::store::{Counters, DataSums};

impl Counters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.n_inodes += other.n_inodes;
        self.resident_bytes += other.resident_bytes;
        self.warm_bytes += other.warm_bytes;
        self.cold_bytes += other.cold_bytes;
        self.dying_bytes += other.dying_bytes;
        self.n_pins += other.n_pins;
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        Self {
            n_inodes: self.n_inodes - other.n_inodes,
            resident_bytes: self.resident_bytes - other.resident_bytes,
            warm_bytes: self.warm_bytes - other.warm_bytes,
            cold_bytes: self.cold_bytes - other.cold_bytes,
            dying_bytes: self.dying_bytes - other.dying_bytes,
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

    /// Bytes of chunks that the reaper has yet to delete.
    pub(crate) fn dying_bytes(&self) -> u64 {
        self.dying_bytes.max(0).unsigned_abs()
    }

    /// Takes all data of an inode off.
    pub(crate) fn lose_all(&mut self, sums: DataSums) {
        self.resident_bytes -= signed(sums.resident_bytes);
        self.warm_bytes -= signed(sums.warm_bytes);
        self.cold_bytes -= signed(sums.cold_bytes);
    }

    /// The chunks of an inode that is gone are to be deleted.
    pub(crate) fn gain_dying(&mut self, bytes: u64) {
        self.dying_bytes += signed(bytes);
    }

    /// Chunks of an inode that is gone were deleted.
    pub(crate) fn lose_dying(&mut self, bytes: u64) {
        self.dying_bytes -= signed(bytes);
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
            ChunkState::Hot => self.resident_bytes += bytes,
            ChunkState::Warm => {
                self.resident_bytes += bytes;
                self.warm_bytes += bytes;
            }
            ChunkState::Cold => self.cold_bytes += bytes,
        }
    }
}

impl DataSums {
    /// The sums after a change of the totals that concerns this inode alone. A sum that was too
    /// small before can only come from damage, which the check finds.
    pub(crate) fn changed_by(self, change: &Counters) -> Self {
        Self {
            resident_bytes: self.resident_bytes.saturating_add_signed(change.resident_bytes),
            warm_bytes: self.warm_bytes.saturating_add_signed(change.warm_bytes),
            cold_bytes: self.cold_bytes.saturating_add_signed(change.cold_bytes),
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
        assert_eq!(counters.warm_bytes, 100);
        let sums = DataSums { resident_bytes: 5, warm_bytes: 5, cold_bytes: 0 };
        let changed = sums.changed_by(&counters);
        let expected = DataSums { resident_bytes: 115, warm_bytes: 105, cold_bytes: 1000 };
        assert_eq!(changed, expected);
        let mut lost = counters;
        lost.lose_all(DataSums { resident_bytes: 110, warm_bytes: 100, cold_bytes: 1000 });
        assert_eq!(lost, Counters::default());
        counters.lose(ChunkState::Hot, 10);
        counters.lose(ChunkState::Cold, 1000);
        assert_eq!((counters.resident_bytes(), counters.cold_bytes()), (100, 0));
    }

    #[test]
    fn a_difference_added_gives_the_whole() {
        let kept =
            Counters { n_inodes: 3, resident_bytes: -7, cold_bytes: 9, ..Counters::default() };
        let counted = Counters { n_inodes: 5, warm_bytes: 70, dying_bytes: 3, n_pins: 2, ..kept };
        let mut sum = kept;
        sum.add(&counted.minus(&kept));
        assert_eq!(sum, counted);
    }
}
