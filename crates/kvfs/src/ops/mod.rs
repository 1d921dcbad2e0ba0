//! POSIX operations by inode, one family in each file.
//!
//! What may need evicted data is a method of [`Kvfs`](crate::Kvfs) and goes through `change` or
//! `read`; everything else is a method of [`Core`](crate::Core).

mod access;
mod acl;
mod attr;
mod change;
mod copy;
mod create;
mod dir;
mod lifetime;
mod link;
mod lookup;
mod mode;
mod ranges;
mod read;
mod rename;
mod settle;
mod truncate;
mod unlink;
mod write;
mod xattr;

pub use attr::SetAttr;
pub(crate) use change::RecallWish;
pub use change::{Blocking, WaitingCaller};
pub use copy::FilePosition;
pub use create::{NewFile, NewNode};
pub use dir::DirEntry;
pub(crate) use dir::ListingPlaces;
pub use lifetime::OpenHandle;
pub use lookup::EntryRef;
pub use rename::RenameMode;
pub use xattr::{Caller, XattrMode};

#[cfg(fuzzing)]
pub(crate) use acl::Acl;
pub(crate) use create::new_attr;
pub(crate) use settle::{ROW_BYTES, Settled};
