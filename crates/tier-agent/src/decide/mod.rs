//! The agent's decisions: pure functions from how things stand to what comes next.
//!
//! [`next_step`] orders the work of one task: what was begun is finished first, and nothing is
//! evicted that is not safe. [`due_task`] says which task is due, from times, the backlog and the
//! space in use, and [`checkpoint_is_due`] whether a snapshot is to be followed by a checkpoint.
//! Neither does I/O, reads a clock or keeps anything, so that tests and simulations ask them
//! directly. The loops that carry the answers out are the agent's and the scheduler's.

mod checkpoint;
mod schedule;
mod step;

pub use checkpoint::{CheckpointCosts, checkpoint_is_due};
pub use schedule::{DueTaskInputs, Schedule, SpaceUsage, due_task};
pub use step::{AgentState, AgentStep, next_step};
