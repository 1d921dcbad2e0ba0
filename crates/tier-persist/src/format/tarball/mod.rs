//! One tarball: pax tar in independent zstd frames, with a table of contents at its end
//! (`docs/formats/tarball.md`).
//!
//! A [`member`] is a value that says something of an inode; its [`header`] is the tar blocks that
//! it is written as, with [`pax`] records, and [`parse`] makes the value of them again. The first
//! member is the tarball's [`identity`], and the first of every frame carries a [`mark`]. A reader
//! goes through the [`blocks`] of a frame and, with a [`locate`]r, over the frames of a member's
//! data. The [`row`] is what a manifest keeps of it all, and the [`toc`] says what the members say.

pub(crate) mod blocks;
pub(crate) mod header;
pub(crate) mod identity;
pub(crate) mod layout;
pub(crate) mod locate;
pub(crate) mod mark;
pub(crate) mod member;
pub(crate) mod parse;
pub(crate) mod pax;
pub(crate) mod row;
pub(crate) mod toc;
