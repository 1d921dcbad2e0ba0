//! When, never how.
//!
//! A [`TieringOutAgent`] decides when to persist, push, verify and evict. What comes next is a pure
//! function of where things stand, [`next_step`]; a loop carries it out through the [`Stages`]
//! traits, so that this crate's core knows no tarball and no inode that the evicter chose.
//! [`StoreStages`] is what stands behind the traits for a filesystem with a local store and,
//! perhaps, a cloud. [`Recaller`] is the one way back for evicted data: one flight for all who wait
//! for an extent, on threads of its own, with a timeout. [`StatusBook`] reads and writes the status
//! logs of all snapshots. A [`Scheduler`] gives the agent what is [`due`] unasked.
//!
//! This crate knows no cloud provider and no filesystem's schema.

mod agent;
mod background;
mod book;
mod error;
mod push;
mod recaller;
mod schedule;
mod scheduler;
mod stages;
mod step;
mod store_stages;
mod updates;

pub use agent::{AgentReport, Task, TieringOutAgent};
pub use book::StatusBook;
pub use error::AgentError;
pub use recaller::{Recaller, RecallerOptions};
pub use schedule::{Circumstances, Schedule, due};
pub use scheduler::{Scheduler, SchedulerStatus, Space, Surroundings};
pub use stages::{Persisted, Stages};
pub use step::{AgentState, Step, next_step};
pub use store_stages::{StorePorts, StoreStages};
