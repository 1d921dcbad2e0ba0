//! The filesystem keeps the contracts of the two ports.

use std::sync::Arc;

use kvfs::{Core, Kvfs, NoArchive};
use tempfile::TempDir;
use tier_testkit::VirtualClock;
use tier_testkit::contract::{
    TestFilesystem, TestFilesystems, check_log_service, check_mounted_instance,
};
use tier_types::{Ino, LogService, MountedInstance, PortError, Recall, Xid};

use crate::common::{file, name, options};

struct KvfsFilesystems;

/// A filesystem in a temporary directory, which goes after it.
struct Mounted {
    fs: Kvfs,
    _dir: TempDir,
}

fn open(dir: &TempDir) -> Core {
    Core::open(dir.path(), &options(), Arc::new(VirtualClock::at(0))).unwrap()
}

impl TestFilesystems for KvfsFilesystems {
    type Filesystem = Mounted;

    fn create(&self, recall: Arc<dyn Recall>) -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        drop(Core::create(dir.path(), &options(), Arc::new(VirtualClock::at(0))).unwrap());
        Mounted { fs: Kvfs::new(Arc::new(open(&dir)), recall), _dir: dir }
    }

    fn restore(
        &self,
        recall: Arc<dyn Recall>,
        last: Xid,
        fill: &dyn Fn(&dyn MountedInstance),
    ) -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        Core::create_empty(dir.path(), &options(), last).unwrap();
        let core = open(&dir);
        fill(&core);
        drop(core);
        Mounted { fs: Kvfs::new(Arc::new(open(&dir)), recall), _dir: dir }
    }
}

impl TestFilesystem for Mounted {
    fn log(&self) -> &dyn LogService {
        self.fs.core().as_ref()
    }

    fn instance(&self) -> &dyn MountedInstance {
        self.fs.core().as_ref()
    }

    fn write(&self, text: &str, offset: u64, bytes: &[u8]) -> Ino {
        let found = self.fs.lookup(Ino::ROOT, &name(text));
        let ino = found.map_or_else(|_| file(&self.fs, Ino::ROOT, text), |attr| attr.ino);
        self.fs.write(ino, offset, bytes).unwrap();
        ino
    }

    fn truncate(&self, text: &str, size_bytes: u64) {
        let ino = self.fs.lookup(Ino::ROOT, &name(text)).unwrap().ino;
        self.fs.truncate(ino, size_bytes).unwrap();
    }

    fn remove(&self, text: &str) {
        self.fs.unlink(Ino::ROOT, &name(text)).unwrap();
    }

    fn read(&self, text: &str) -> Result<Vec<u8>, PortError> {
        let attr = self.fs.lookup(Ino::ROOT, &name(text)).unwrap();
        let read = self.fs.read(attr.ino, 0, usize::try_from(attr.size_bytes).unwrap());
        read.map_err(PortError::from)
    }
}

#[test]
fn the_contract_of_logs_is_kept() {
    let filesystem = KvfsFilesystems.create(Arc::new(NoArchive));
    let act = || {
        filesystem.write("a", 0, b"logged");
    };
    check_log_service(filesystem.log(), &act);
}

#[test]
fn the_contract_of_instances_is_kept() {
    check_mounted_instance(&KvfsFilesystems);
}
