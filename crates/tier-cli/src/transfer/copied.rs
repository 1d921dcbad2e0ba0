//! How much was copied, and how much is copied at a time.

use serde_json::{Value, json};

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copied {
    pub(crate) n_inodes: u64,
    pub(crate) bytes: u64,
}

impl Copied {
    pub(crate) fn json(&self) -> Value {
        json!({ "inodes": self.n_inodes, "bytes": self.bytes })
    }
}

/// Bytes that are copied at a time.
pub(super) const COPY_BYTES: usize = 1 << 20;
