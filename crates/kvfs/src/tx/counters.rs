//! What is counted with every commit, so that nobody has to walk the store for it.

use tier_types::ChunkState;

/// Totals of the filesystem, or a change of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) n_inodes: i64,
    /// Bytes of chunks in the store, up to the ends of their files.
    pub(crate) resident_bytes: i64,
    /// The same of evicted chunks.
    pub(crate) cold_bytes: i64,
    pub(crate) n_pins: i64,
}

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

    /// Counts bytes of chunks in a state, with a sign.
    pub(crate) fn count(&mut self, state: ChunkState, bytes: u64, sign: i64) {
        let n = sign * i64::try_from(bytes).unwrap_or(i64::MAX);
        match state {
            ChunkState::Hole => {}
            ChunkState::Hot | ChunkState::Warm => self.resident_bytes += n,
            ChunkState::Cold => self.cold_bytes += n,
        }
    }
}
