//! What unit tests share: a store and a filesystem in a temporary directory.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tier_types::{
    ChunkPlace, Clock, FileAttr, FileKind, FileName, Ino, InstanceView, MountedInstance,
    ResidentExtent, Timestamp, Xid,
};

use crate::core::Core;
use crate::ops::{NewNode, new_attr};
use crate::space::{Room, StoreDisk};
use crate::store::{Counters, Db, OpenAs, Witness};
use crate::tx::{Committer, LastIds};
use crate::{Kvfs, KvfsOptions, NoArchive};

pub(crate) const CHUNK: u32 = 512;

/// A clock that stands still.
pub(crate) struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: 1_480_000_000, nanos: 5 }
    }
}

pub(crate) fn options() -> KvfsOptions {
    // Half of a chunk and more lies in a file.
    KvfsOptions { chunk_bytes: CHUNK, extent_bytes_min: 256, ..KvfsOptions::default() }
}

/// An empty key-value store.
pub(crate) fn store() -> (TempDir, Arc<Db>) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("kvs"), &options(), OpenAs::New).unwrap();
    db.initialise(CHUNK, Xid::new(0)).unwrap();
    (dir, Arc::new(db))
}

/// A committer of an empty store, whose first transaction is 1.
pub(crate) fn committer(db: &Arc<Db>, clock: Arc<dyn Clock>) -> Committer {
    // Its directory goes at once: nothing here reads it.
    let witness = Witness::open(tempfile::tempdir().unwrap().path()).unwrap();
    let (room, last) = (Arc::new(room(db)), LastIds { xid: Xid::new(0), generation: None });
    Committer::new(Arc::clone(db), room, witness, clock, last, Counters::default())
}

/// The room of an empty store, on the disk of the tests.
pub(crate) fn room(db: &Arc<Db>) -> Room {
    let disk = Box::new(StoreDisk::new(Arc::clone(db), None));
    Room::new(db.path(), disk, Arc::default(), &options())
}

/// The resident extents of an inode.
pub(crate) fn resident(fs: &Core, ino: Ino) -> Vec<ResidentExtent> {
    let mut answers = fs.resident_extents(&[ChunkPlace::start_of(ino)], usize::MAX);
    answers.pop().unwrap().unwrap()
}

/// Evicts all data of an inode.
pub(crate) fn evict(fs: &Core, ino: Ino) {
    let outcomes = fs.evict_extents(&resident(fs, ino));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

/// A filesystem without an archive.
pub(crate) fn filesystem() -> (TempDir, Kvfs) {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::create(dir.path(), &options(), Arc::new(StandingClock)).unwrap();
    (dir, Kvfs::new(Arc::new(core), Arc::new(NoArchive)))
}

pub(crate) fn name(text: &str) -> FileName {
    FileName::new(text.as_bytes()).unwrap()
}

pub(crate) fn node(kind: FileKind) -> NewNode {
    NewNode { kind, mode: 0o644, uid: 1, gid: 2, inherit: None }
}

pub(crate) fn attr(ino: u64, kind: FileKind) -> FileAttr {
    FileAttr { ino: Ino::new(ino), ..new_attr(&node(kind)) }
}

/// A small disk of its own: a file that is formatted and mounted.
pub(crate) struct LoopDisk {
    dir: TempDir,
}

impl LoopDisk {
    /// `None`, said loudly, for a user that may not mount.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(bytes).unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        let disk = Self { dir };
        let format = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&image).arg(disk.path()).stderr(Stdio::null());
        let made = format.is_ok_and(|status| status.success())
            && mount.status().is_ok_and(|status| status.success());
        if !made {
            eprintln!("SKIPPED: no disk can be made and mounted here; run it as root");
            return None;
        }
        Some(disk)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Another program takes so many bytes.
    pub(crate) fn take(&self, bytes: usize) {
        self.other().write_all(&vec![0; bytes]).unwrap();
    }

    fn other(&self) -> File {
        File::options().append(true).create(true).open(self.path().join("other")).unwrap()
    }

    /// As another program that takes the last byte.
    pub(crate) fn fill(&self) {
        let mut file = self.other();
        for bytes in [1 << 20, 64 << 10, 4096, 1] {
            let zeros = vec![0; bytes];
            while file.write_all(&zeros).is_ok() {}
        }
    }

    /// Gives back what the other program took.
    pub(crate) fn free(&self) {
        fs::remove_file(self.path().join("other")).unwrap();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).stderr(Stdio::null()).status();
    }
}

/// Asks again and again, for a minute at most.
pub(crate) fn wait_for(mut is_done: impl FnMut() -> bool) {
    let begin = Instant::now();
    let (_never, timer) = mpsc::channel::<()>();
    while !is_done() {
        assert!(begin.elapsed() < Duration::from_mins(1), "it does not come");
        // Nothing is sent: this lets other threads have the processor.
        let _ = timer.recv_timeout(Duration::from_millis(20));
    }
}
