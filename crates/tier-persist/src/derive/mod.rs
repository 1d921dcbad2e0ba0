//! What follows from an archive: the index, a filesystem, a verdict.
//!
//! [`apply`] is the one way in which the contents of tarballs reach an index: with a new snapshot
//! ([`crate::write::persister`]), after a crash ([`catch_up`]), and when an index is regenerated
//! ([`rebuild`]), or from what is left ([`salvage`]), where [`doubt`] says what the rest may have
//! held. A [`checkpoint`] saves reading the tables of what came before it. A lost filesystem is put
//! back by [`restore`], and [`verify`] says whether all of it could be.

pub(crate) mod apply;
pub(crate) mod catch_up;
pub(crate) mod checkpoint;
pub(crate) mod doubt;
pub(crate) mod rebuild;
pub(crate) mod restore;
pub(crate) mod salvage;
pub(crate) mod verify;
