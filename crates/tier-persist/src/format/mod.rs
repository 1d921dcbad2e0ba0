//! The formats: bytes to values and back, and nothing else.
//!
//! Nothing here starts a thread, reads a clock, or opens an index; the only I/O is a ranged read of
//! one object ([`object`]). So each decoder can be fed any bytes by a fuzz target, and golden files
//! show that what was once written is still read. An object's layers from the outside in are a name
//! ([`names`]), age encryption ([`age`], with [`keys`]), zstd frames and their seek table
//! ([`compress`], [`seekable`]), and inside them a pax tar stream ([`tarball`]); a [`manifest`] and
//! a [`claim`] are each one [`signed`], compressed and encrypted value, and what a manifest vouches
//! for, as the contents of a [`checkpoint`], is [`packed`] without a signature of its own.
//!
//! Decoders trust nothing: a length is checked before anything of that length is allocated, and
//! every failure is `None`, a `&'static str` or a typed error. Encoders are given values that this
//! crate made, and assert what must hold of them.

pub(crate) mod age;
pub(crate) mod checkpoint;
pub(crate) mod claim;
pub(crate) mod compress;
pub(crate) mod digest;
pub(crate) mod keys;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod object;
pub(crate) mod packed;
pub(crate) mod postcard;
pub(crate) mod seekable;
pub(crate) mod signed;
pub(crate) mod signer;
pub(crate) mod tarball;
