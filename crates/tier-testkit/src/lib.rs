//! Fakes, fault injection, contract suites, workloads and an oracle, shared by every crate's tests.
//!
//! [`FakeKvs`] is a small filesystem in memory, built by chaining, with true point-in-time
//! snapshots and a [`FakeLog`] that publishes with them. [`FakeArchive`] archives it in memory and
//! brings evicted data back. [`MemoryStore`] keeps objects in memory; [`FaultyStore`] breaks
//! another store at a chosen operation, and says which it was. [`LyingStore`] answers as
//! bad networks and stores do, and counts what is asked of it. [`VirtualClock`] makes times
//! reproducible, [`RecordingSink`] remembers events.
//!
//! [`servers`] starts real stores that speak the protocols of clouds.
//!
//! [`contract`] has a suite for each port: what every implementation must do, run on the fakes here
//! and on the real implementations in their crates. It also drives a filesystem of your own.
//!
//! [`Model`] is a naive filesystem to compare a real one with; [`workload()`] generates what is
//! done to both.
//!
//! To be used from integration tests only: a unit test that used it would get two versions of the
//! crate under test.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod clock;
pub mod contract;
mod fake_archive;
mod fake_kvs;
mod fake_log;
mod fake_status;
mod fault;
mod lies;
mod memory_store;
mod model;
mod noise;
mod one_by_one;
pub mod servers;
mod workload;

pub use clock::VirtualClock;
pub use fake_archive::{ArchivedExtent, ArchivedInode, FakeArchive};
pub use fake_kvs::FakeKvs;
pub use fake_log::FakeLog;
pub use fake_status::RecordingSink;
pub use fault::{Fault, FaultyStore};
pub use lies::{CallCounts, LyingStore};
pub use memory_store::MemoryStore;
pub use model::{Model, ModelError, TreeEntry};
pub use noise::noise;
pub use one_by_one::OneByOne;
pub use workload::{FsOp, Name, TierOp, WorkloadOp, workload};
