//! From frames of plaintext to a durable tarball, on all cores.
//!
//! Whoever builds frames hands them to a pool of workers that compress; a sequencer joins them in
//! order and hands runs of whole age chunks back to the pool to be sealed; a writer appends them
//! in order. Each of the two round trips is bounded by permits that come back only when its
//! results were used, so no queue grows beyond them.

mod pool;
mod sequencer;
mod sink;

pub(crate) use pool::WorkerPool;
pub(crate) use sequencer::{FrameSink, PendingSeal, start};
