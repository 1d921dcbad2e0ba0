//! One store on disk, as a library: everything that a filesystem needs to be tiered.
//!
//! A store is a directory that holds one filesystem, its log segments, its index, its tarballs and
//! status logs, and `tier.toml`. A filesystem takes part through its two ports
//! ([`LogService`](tier_types::LogService), [`MountedInstance`](tier_types::MountedInstance)):
//!
//! 1. [`NewStore::prepare`] makes the directory, [`StoreDir::open`] takes its lock and reads its
//!    settings and keys; the filesystem opens its own files in between;
//! 2. [`Store::open`] wires index, recall and agent to the two ports;
//! 3. [`Store::recall`] is what the filesystem asks for evicted data, [`Store::agent`] persists,
//!    uploads, verifies and evicts;
//! 4. [`restore()`] makes a new store from a cloud alone, and [`rebuild()`] makes a new index.
//!
//! `examples/embed.rs` is a small filesystem of its own that does all of this.
//!
//! Policy about which copy to believe lies here: [`Store::archive`] decides whose signature counts,
//! [`rebuild()`] which manifests and which copies of tarballs an index is made from. This crate
//! knows no filesystem and no command.

mod audit;
mod cloud;
mod clouds;
mod config;
mod create;
mod dir;
mod durable;
mod error;
mod filesystem;
mod identity;
mod index_dirs;
mod kept;
mod layout;
mod lock;
mod ownership;
mod rebuild;
mod rebuilt;
mod restore;
mod room;
mod store;
mod takeover;
mod wiring;

pub use audit::{AuditReport, RepairReport};
pub use cloud::{Abilities, Ability, RestoreProgress};
pub use clouds::{AddedCloud, CloudCheck, add_cloud, check_cloud, forget_cloud};
pub use config::{Atime, Cloud, Config, FormerCloud, Verify};
pub use create::{NewStore, PreparedStore};
pub use dir::StoreDir;
pub use error::StoreError;
pub use filesystem::Filesystem;
pub use identity::{new_identity, read_identity};
pub use layout::Layout;
pub use rebuild::{Filled, FreshIndex, RebuildOptions, rebuild};
pub use restore::{RestoreReport, RestoreSource, RestoreTarget, restore};
pub use store::{OpenMode, Store};
pub use takeover::{LocalState, Takeover, TakeoverOptions, takeover};
pub use wiring::status_book;
