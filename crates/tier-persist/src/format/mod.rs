//! Bytes to values and back: names, keys, encryption, compression, manifests and tarballs.

pub(crate) mod age;
pub(crate) mod compress;
pub(crate) mod keys;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod object;
pub(crate) mod seekable;
pub(crate) mod tarball;
