//! Transactions: the one way into the store.
//!
//! An operation holds the locks of its inodes, reads what it needs, and hands a closure to the
//! [`Committer`], which gives it its transaction id and has it fill a [`Draft`]. All writers of
//! rows are methods of the draft, or of the [`MapWindow`] for chunk maps.

mod committer;
mod counters;
mod draft;
mod locks;
mod map_window;
mod new_chunks;

pub(crate) use committer::{Committed, Committer, LastIds};
pub(crate) use draft::{Draft, InodeRows, ListKind, patch};
pub(crate) use locks::Locks;
pub(crate) use map_window::{FileSize, MapWindow};
pub(crate) use new_chunks::{ChunkWriter, NewChunks};
