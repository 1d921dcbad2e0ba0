//! Which persisted data leaves the key-value store, and its leaving.
//!
//! An [`Evicter`] is given a range of transactions that are safely persisted. It goes through all
//! inodes that changed in it, through those that earlier passes spared, and through those that were
//! recalled; an [`EvictPolicy`] says which of them go. An extent goes only if the
//! [`Persisted`](tier_types::Persisted) port knows exactly this version of it. What stays is
//! carried over to the next pass, so that nothing stays for ever because it was hot once.
//!
//! This crate knows no index and no tarball. It does not know when space is short: that is the
//! agent's.

mod candidates;
mod carry_over;
mod error;
mod evicter;
mod mechanism;
mod policy;

pub use error::EvictError;
pub use evicter::{EvictReport, EvictRequest, Evicter};
pub use policy::{AgeAndSize, EvictPlan, EvictPolicy, PassGoal, SpareReason};
