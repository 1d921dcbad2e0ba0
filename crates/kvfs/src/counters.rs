//! What is counted with every commit, so that nobody has to walk the store for it.

use tier_types::ChunkState;

/// Totals of the filesystem, or a change of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) n_inodes: i64,
    pub(crate) resident_chunks: i64,
    pub(crate) cold_chunks: i64,
    pub(crate) n_pins: i64,
}

impl Counters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.n_inodes += other.n_inodes;
        self.resident_chunks += other.resident_chunks;
        self.cold_chunks += other.cold_chunks;
        self.n_pins += other.n_pins;
    }

    /// Counts chunks in a state, with a sign.
    pub(crate) fn count(&mut self, state: ChunkState, n_chunks: u64, sign: i64) {
        let n = sign * i64::try_from(n_chunks).unwrap_or(i64::MAX);
        match state {
            ChunkState::Hole => {}
            ChunkState::Hot | ChunkState::Warm => self.resident_chunks += n,
            ChunkState::Cold => self.cold_chunks += n,
        }
    }
}
