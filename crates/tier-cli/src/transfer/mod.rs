//! Copying trees between the host's filesystem and a store.
//!
//! [`import()`] and [`export()`] have the same form: one thread walks the tree and makes
//! directories, others copy what is in them (`worker_pool`). Both are told by their caller how to
//! show how far they have got, and that call can end them.

mod copied;
mod export;
mod import;
mod in_room;
pub(crate) mod readable;
pub(crate) mod walk;
pub(crate) mod worker_pool;
pub(crate) mod xattrs;

pub(crate) use self::copied::Copied;
pub(crate) use self::export::{ExportOptions, export, is_root};
pub(crate) use self::import::{ImportOptions, import};
pub(crate) use self::in_room::InRoom;
