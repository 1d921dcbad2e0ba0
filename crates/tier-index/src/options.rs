//! Settings of an index.

/// How much memory an index may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexOptions {
    /// Cache of blocks, filters and block indexes.
    pub cache_bytes: usize,
    /// Changes that are not yet in files.
    pub write_buffer_bytes: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, write_buffer_bytes: 16 << 20 }
    }
}
