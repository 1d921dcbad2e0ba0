//! Reading: objects to values, without changing anything.
//!
//! Manifests are read as a [`chain`] of [`link`]s, as far as a checkpoint does not have them
//! ([`packed`]), which an index remembers ([`history`]), and [`claims`] say which store may add to
//! it; [`objects`] of its steps are copied and compared. What is read in many small pieces is read
//! [`ahead`], and where one store lacks something, other [`copies`] may help. A tarball is opened
//! by its row or by what it says itself ([`tarball_reader`]), from the first store that has it
//! ([`tarball_source`]), and the rows of many are read in pages ([`tarball_rows`]); its table of
//! [`contents`] says what is in it, and so does a [`scanner`] that reads all of it and goes on
//! behind damage; a [`listing`] is for people. The [`metadata`] of one inode is read by its place.
//! The [`fetcher`] answers recalls from single frames, of which it keeps some ([`frame_cache`]).

pub(crate) mod ahead;
pub(crate) mod ahead_frames;
pub(crate) mod chain;
pub(crate) mod checked_content;
pub(crate) mod claims;
pub(crate) mod contents;
pub(crate) mod copies;
pub(crate) mod fetcher;
pub(crate) mod frame_cache;
pub(crate) mod history;
pub(crate) mod holes;
pub(crate) mod link;
pub(crate) mod listing;
pub(crate) mod metadata;
pub(crate) mod objects;
pub(crate) mod packed;
pub(crate) mod recall_plan;
pub(crate) mod scanner;
pub(crate) mod small;
pub(crate) mod tarball_reader;
pub(crate) mod tarball_rows;
pub(crate) mod tarball_source;
