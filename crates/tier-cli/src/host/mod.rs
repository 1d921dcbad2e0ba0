//! Copying trees between the host's filesystem and a store.

mod crew;
mod export;
mod import;
mod xattrs;

pub(crate) use export::export;
pub(crate) use import::{Importing, import};
pub(crate) use xattrs::read as read_xattrs;

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copied {
    pub(crate) n_inodes: u64,
    pub(crate) bytes: u64,
}

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;
