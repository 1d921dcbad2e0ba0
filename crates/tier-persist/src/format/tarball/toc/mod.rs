//! The table of contents of a tarball: for each member all that an index and a restore need.
//!
//! It is kept in members of its own at the end, so that it can be read without the rest: a
//! [`root`], which starts the last frame and lists the parts, and the parts, each at most 1 MiB in
//! a frame of its own, which are sequences of [`group`]s. A group holds the [`entry`]s of the
//! members that one worker built, with frames counted from the group's first one and numbers
//! relative to each other: so a worker serialises it without knowing where in the tarball it will
//! lie, and it compresses well. The data of an entry is a list of [`piece`]s, its metadata an
//! [`inode`].

pub(crate) mod entry;
pub(crate) mod group;
pub(crate) mod inode;
pub(crate) mod piece;
pub(crate) mod root;
