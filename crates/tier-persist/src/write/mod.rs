//! Updates and a mounted snapshot to objects.

pub(crate) mod frame_builder;
pub(crate) mod persister;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod planner;
