//! Reading: objects to values, without changing anything.
//!
//! Manifests are read as a [`chain`] of [`link`]s, which an index remembers ([`history`]), and [`claims`] say which store may add to it. A tarball is opened by its row or by what it says itself
//! ([`tarball_reader`]), from the first store that has it ([`tarball_source`]); its table of
//! [`contents`] says what is in it, and so does a [`scanner`] that reads all of it and goes on
//! behind damage; a [`listing`] is for people. The [`fetcher`] answers recalls from single frames,
//! of which it keeps some ([`frame_cache`]).

pub(crate) mod chain;
pub(crate) mod claims;
pub(crate) mod contents;
pub(crate) mod fetcher;
pub(crate) mod frame_cache;
pub(crate) mod history;
pub(crate) mod holes;
pub(crate) mod link;
pub(crate) mod listing;
pub(crate) mod scanner;
pub(crate) mod small;
pub(crate) mod tarball_reader;
pub(crate) mod tarball_source;
