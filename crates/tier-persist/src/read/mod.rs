//! Objects to values: manifests, tarballs, members, extents.

pub(crate) mod chain;
pub(crate) mod fetcher;
pub(crate) mod listing;
pub(crate) mod scanner;
pub(crate) mod tarball_reader;
