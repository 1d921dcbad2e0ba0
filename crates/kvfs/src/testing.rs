//! What unit tests share: a store and a filesystem in a temporary directory.

use std::sync::Arc;

use tempfile::TempDir;
use tier_types::{Clock, FileAttr, FileKind, FileName, Ino, Timestamp, Xid};

use crate::core::Core;
use crate::ops::{NewNode, new_attr};
use crate::store::{Counters, Db};
use crate::tx::Committer;
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
    let db = Db::open(&dir.path().join("kvs"), &options(), true).unwrap();
    db.initialise(CHUNK).unwrap();
    (dir, Arc::new(db))
}

/// A committer of an empty store, whose first transaction is 1.
pub(crate) fn committer(db: &Arc<Db>, clock: Arc<dyn Clock>) -> Committer {
    Committer::new(Arc::clone(db), clock, Xid::new(1), Counters::default(), 0)
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
