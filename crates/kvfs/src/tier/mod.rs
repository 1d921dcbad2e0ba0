//! Tiering: the two ports, and what they need.
//!
//! [`Core`](crate::Core) implements [`LogService`](tier_types::LogService) (`log_service`,
//! `publications`) and [`MountedInstance`](tier_types::MountedInstance) (`instance`, and a file for
//! each thing that it can be asked). The way back, `recall`, is a matter of
//! [`Kvfs`](crate::Kvfs), which alone stores what a recall brought.

mod evict;
mod facts;
mod heat;
mod instance;
mod log_service;
mod pins;
mod publications;
mod recall;
mod reclaim;
mod restore;
mod snapshot;

pub use heat::Heat;
pub use recall::NoArchive;
