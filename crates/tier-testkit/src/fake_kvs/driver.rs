//! The fake as a filesystem under test.

use tier_types::{Ino, LogService, MountedInstance, PortError};

use super::FakeKvs;
use crate::contract::TestFilesystem;

impl TestFilesystem for FakeKvs {
    fn log(&self) -> &dyn LogService {
        &self.shared.log
    }

    fn instance(&self) -> &dyn MountedInstance {
        self
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Ino {
        if self.find(name).is_none() {
            drop(self.clone().file(name, b""));
        }
        self.clone().write(name, offset, bytes).ino(name)
    }

    fn truncate(&self, name: &str, size_bytes: u64) {
        drop(self.clone().truncate(name, size_bytes));
    }

    fn remove(&self, name: &str) {
        drop(self.clone().remove(name));
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, PortError> {
        FakeKvs::read(self, name)
    }
}
