//! Writing: updates and a mounted snapshot to objects.
//!
//! A [`persister`] takes one snapshot through all of it: a [`planner`] decides what is written
//! (from the [`touched_runs`] of a file, with the pure [`plan`] of an inode and the pure
//! [`framing`] of members), the [`pipeline`] builds frames ([`frame_builder`], [`member_data`],
//! [`cuts`]) and tarballs from that, and at the end the manifest commits them and the index takes
//! them in; what could not be read and is not in the archive either is told by [`unread`]. What a
//! failed attempt left is removed by [`discard`]. A long snapshot comes in [`parts`]. A
//! [`checkpoint`] is a step of its own. What is no tarball is written by a [`packed_writer`]. All
//! numbers are in [`limits`], those that a caller sets in [`options`].
//!
//! This is the uppermost layer of the crate: the persister brings the index up to what it wrote
//! through the very code that rebuilds an index ([`crate::derive::apply`]), and so it stands above
//! that.

pub(crate) mod checkpoint;
pub(crate) mod cuts;
pub(crate) mod discard;
pub(crate) mod frame_builder;
pub(crate) mod framing;
pub(crate) mod limits;
pub(crate) mod member_data;
pub(crate) mod options;
pub(crate) mod packed_writer;
mod parts;
pub(crate) mod persister;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod planner;
pub(crate) mod request;
mod touched_runs;
pub(crate) mod unread;
mod written;
