//! Copying trees between the host's filesystem and a store.
//!
//! [`import`] and [`export`] have the same form: one thread walks the tree and makes directories,
//! others copy what is in them (`worker_pool`). Both are told by their caller how to show how far
//! they have got, and that call can end them.

mod export;
mod import;
pub(crate) mod walk;
mod worker_pool;
pub(crate) mod xattrs;

use serde_json::{Value, json};

pub(crate) use self::export::{ExportOptions, export, is_root};
pub(crate) use self::import::{ImportOptions, import};

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
const COPY_BYTES: usize = 1 << 20;
