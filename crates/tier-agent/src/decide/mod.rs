//! The agent's decisions: pure functions from how things stand to what comes next.
//!
//! [`persist_is_due`], [`upload_is_due`] and [`evict_is_due`] say what is due for each lane, from
//! times, the backlog, the space in use and what is remembered of the lane ([`LaneMemory`]);
//! [`is_to_persist`] what is left of a task, and [`checkpoint_is_due`] whether a snapshot is to be
//! followed by a checkpoint. [`SpaceMarks`] say when space is low. None of them does I/O, reads a
//! clock or keeps anything, so that tests and simulations ask them directly. The loops that carry
//! the answers out are the agent's and the scheduler's.

mod checkpoint;
mod due;
mod lane;
mod space;
mod step;

pub use checkpoint::{CheckpointCosts, checkpoint_is_due};
pub use due::{
    DueInputs, RoomOutlook, Schedule, Unpersisted, evict_is_due, persist_is_due, room_may_come,
    upload_is_due,
};
pub(crate) use lane::may_be_away;
pub use lane::{Failure, LaneMemory, rest_after};
pub use space::{SpaceMarks, part_bounds};
pub use step::{AgentState, is_to_persist};
