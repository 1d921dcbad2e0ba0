//! The tiering-out agent: when to persist, upload, verify, evict and recall; never how.
//!
//! A [`TieringOutAgent`] has a thread for each [`Lane`], which carries out one [`Task`] at a time.
//! What comes next is a pure function of how far things have got (the module [`decide`]); a loop
//! carries it out through the [`Stages`] trait, so that the loop knows no tarball and no inode that
//! the evicter chose. [`StoreStages`] is what stands behind the trait for a filesystem with a local
//! store and, perhaps, a cloud. A [`Scheduler`] gives the lanes what is due without being asked.
//!
//! [`Recaller`] is the way back for evicted data: a single flight for all readers of an extent, on
//! threads of its own, with a deadline. [`StatusBook`] holds the status logs of all snapshots, from
//! which the agent resumes.
//!
//! This crate knows no cloud provider and no filesystem's schema.

mod error;
mod report;
mod sync;
mod task;
mod threads;

pub mod decide;

mod stages;
mod thread_control;

mod agent;
mod lane_planner;

mod scheduler;

mod single_flight;

mod archived_log;
mod deletions;
mod recaller;
mod status_book;
mod store_stages;

pub use agent::{Answer, TieringOutAgent};
pub use archived_log::read_archived_log;
pub use deletions::DeletionQueue;
pub use error::{AgentError, NotUploaded};
pub use recaller::{FrozenReads, Recaller, RecallerOptions};
pub use report::{AgentReport, PersistedSnapshot};
pub use scheduler::{LaneError, LaneStatus, Scheduler, SchedulerStatus};
pub use stages::{LostAndFound, Stages, Uploaded};
pub use status_book::StatusBook;
pub use store_stages::{Arrival, CloudPort, Floor, StorePorts, StoreStages};
pub use task::{Lane, SpaceGoal, Task};
