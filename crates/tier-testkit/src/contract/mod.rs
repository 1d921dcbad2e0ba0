//! Contract suites: what every implementation of a port must do.
//!
//! Each port of `tier-types` has a suite here, a plain function that panics with a sentence of the
//! contract when an implementation breaks it. The fakes of this crate run them, and so does every
//! real implementation in its own crate: a fake that is more forgiving than the real thing hides
//! faults, and one that is stricter invents them.
//!
//! | port | suite | what the implementation brings |
//! | --- | --- | --- |
//! | `LogService` | [`check_log_service`] | a closure that does something that is logged |
//! | `MountedInstance`, `MountedSnapshot`, `SnapshotReader` | [`check_mounted_instance`] | [`TestFilesystems`], a factory of filesystems that the suite can change |
//! | `Recall` | [`check_recall`] | a list of what is archived |
//! | `Persisted` | [`check_persisted`] | the same list |
//! | `ObjectStore` | [`check_object_store`] | an empty store |
//! | `StagingStore` | [`check_staging_store`] | an empty store |
//!
//! To have a filesystem of your own checked, implement [`TestFilesystem`] for it and
//! [`TestFilesystems`] for a unit struct that makes new ones, and call the suites from an
//! integration test:
//!
//! ```
//! use std::sync::Arc;
//!
//! use tier_testkit::FakeKvs;
//! use tier_testkit::contract::{self, TestFilesystem, TestFilesystems};
//! use tier_types::{MountedInstance, Recall, Xid};
//!
//! struct FakeFilesystems;
//!
//! impl TestFilesystems for FakeFilesystems {
//!     type Filesystem = FakeKvs;
//!
//!     fn create(&self, recall: Arc<dyn Recall>) -> FakeKvs {
//!         FakeKvs::with_recall(512, recall)
//!     }
//!
//!     fn restore(
//!         &self,
//!         recall: Arc<dyn Recall>,
//!         last: Xid,
//!         fill: &dyn Fn(&dyn MountedInstance),
//!     ) -> FakeKvs {
//!         let kvs = FakeKvs::empty(512, recall, last);
//!         fill(&kvs);
//!         kvs
//!     }
//! }
//!
//! contract::check_mounted_instance(&FakeFilesystems);
//! ```
//!
//! Chunks should be small (512 or 4096 bytes): the suites write files of a few dozen of them. The
//! suites start threads, and sleep nowhere.

mod filesystem;
mod log_service;
mod mounted_instance;
mod mounted_snapshot;
mod object_store;
mod persisted;
mod recall;
mod restore;
mod staging_store;

pub use filesystem::{TestFilesystem, TestFilesystems};
pub use log_service::check_log_service;
pub use mounted_instance::check_mounted_instance;
pub use object_store::check_object_store;
pub use persisted::check_persisted;
pub use recall::check_recall;
pub use staging_store::check_staging_store;
