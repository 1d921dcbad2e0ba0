//! One tarball: pax tar in independent zstd frames, with a table of contents at its end
//! (`docs/formats/tarball.md`).

pub(crate) mod blocks;
pub(crate) mod identity;
pub(crate) mod layout;
pub(crate) mod locate;
pub(crate) mod mark;
pub(crate) mod member;
pub(crate) mod parse;
pub(crate) mod pax;
pub(crate) mod row;
pub(crate) mod toc;
