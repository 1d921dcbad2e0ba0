//! Integration tests of the filesystem by itself.

#[cfg(test)]
mod archive;
#[cfg(test)]
mod attrs;
#[cfg(test)]
mod blocks;
#[cfg(test)]
mod commit;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod evict;
#[cfg(test)]
mod extents;
#[cfg(test)]
mod fsck;
#[cfg(test)]
mod loss;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod names;
#[cfg(test)]
mod never_reused;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod posix;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod races;
#[cfg(test)]
mod reaper;
#[cfg(test)]
mod recall;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod snapshot;

#[cfg(test)]
mod common {
    //! A filesystem in a temporary directory.

    use std::sync::Arc;

    use kvfs::ops::NewNode;
    use kvfs::{Core, Kvfs, KvfsOptions, NoArchive};
    use tier_testkit::VirtualClock;
    use tier_types::{FileKind, FileName, Ino};

    pub(crate) const CHUNK: u32 = 512;

    pub(crate) fn options() -> KvfsOptions {
        // Half of a chunk and more lies in a file.
        KvfsOptions { chunk_bytes: CHUNK, extent_bytes_min: 256, ..KvfsOptions::default() }
    }

    pub(crate) fn open(dir: &tempfile::TempDir) -> Arc<Kvfs> {
        let clock = Arc::new(VirtualClock::at(1_480_000_000));
        let core = Core::open(dir.path(), &options(), clock).unwrap();
        Arc::new(Kvfs::new(Arc::new(core), Arc::new(NoArchive)))
    }

    pub(crate) fn create() -> (tempfile::TempDir, Arc<Kvfs>) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(VirtualClock::at(1_480_000_000));
        drop(Core::create(dir.path(), &options(), clock).unwrap());
        let fs = open(&dir);
        (dir, fs)
    }

    /// Has the reaper do all that there is to do.
    pub(crate) fn reap_all(fs: &Kvfs) {
        while fs.reap(1000).unwrap() {}
    }

    pub(crate) fn name(text: &str) -> FileName {
        FileName::new(text.as_bytes()).unwrap()
    }

    pub(crate) fn node(kind: FileKind) -> NewNode {
        NewNode { kind, mode: 0o644, uid: 1, gid: 2, inherit: None }
    }

    pub(crate) fn file(fs: &Kvfs, dir: Ino, text: &str) -> Ino {
        fs.create_node(dir, &name(text), &node(FileKind::Regular)).unwrap().ino
    }

    pub(crate) fn directory(fs: &Kvfs, dir: Ino, text: &str) -> Ino {
        fs.create_node(dir, &name(text), &node(FileKind::Directory)).unwrap().ino
    }
}
