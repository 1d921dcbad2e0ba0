//! What follows from an archive: the index, the filesystem, a verdict.

pub(crate) mod rebuild;
pub(crate) mod restore;
pub(crate) mod verify;
