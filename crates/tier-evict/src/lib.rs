//! Eviction: which persisted data leaves the key-value store, and how it leaves.
//!
//! An [`Evicter`] is given a range of transactions that are safely persisted. One eviction pass
//! goes through all inodes that changed in it, through the candidates that earlier passes carried
//! over, and through what was recalled since. Three parts have one question each:
//!
//! - the [`EvictPolicy`], a pure function, says which candidates are to go and which are retained;
//! - the gate says which extents may go: only those of which the
//!   [`Persisted`](tier_types::Persisted) port knows exactly this version;
//! - the filesystem evicts an extent only if it still is this version, and leaves a detour.
//!
//! What stays is carried over to the next pass, so that nothing stays for ever because it was hot
//! once.
//!
//! This crate knows no index and no tarball. It does not know when space is low, nor which
//! transactions are safe: both are the agent's to decide.

mod answers;
mod candidates;
mod carried_over;
mod error;
mod evicter;
mod mechanism;
mod policy;

pub use error::EvictError;
pub use evicter::{DryRunRequest, EvictReport, EvictRequest, EvictScope, Evicter};
pub use policy::{
    AgeAndSize, EvictPlan, EvictPolicy, PassGoal, RetainReason, Retained, RetainedCounts,
};
