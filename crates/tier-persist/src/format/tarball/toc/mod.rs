//! The table of contents of a tarball.

pub(crate) mod entry;
