//! Fakes, fault injection, contracts, workloads and an oracle, shared by every crate's tests.
//!
//! [`FakeKvs`] is a mounted instance in memory, built by chaining, with true point-in-time
//! snapshots and a log that publishes with them. [`MemoryStore`] keeps objects in memory;
//! [`FaultyStore`] breaks another store at a chosen operation, and says which it was.
//! [`VirtualClock`] makes times reproducible, [`RecordingSink`] remembers events.
//!
//! [`Model`] is a naive filesystem to compare a real one with; [`workload()`] generates what is done
//! to both. [`check_log_service`] and [`check_object_store`] are contracts: what every
//! implementation of a port must do, run on the fakes here and on the real ones in their crates.
//!
//! To be used from integration tests only.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on must stop"
)]

mod clock;
mod contract;
mod fake_kvs;
mod fake_log;
mod fake_status;
mod fault;
mod memory_store;
mod model;
mod workload;

pub use clock::VirtualClock;
pub use contract::{check_log_service, check_object_store, check_staging_store};
pub use fake_kvs::FakeKvs;
pub use fake_log::FakeLog;
pub use fake_status::RecordingSink;
pub use fault::{Fault, FaultyStore};
pub use memory_store::MemoryStore;
pub use model::{Model, ModelError, TreeEntry};
pub use workload::{FsOp, Name, TierOp, WorkloadOp, workload};
