//! Files that are open through the mount, by the numbers that the kernel knows them by.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{FileHandle, FopenFlags, OpenAccMode, OpenFlags};
use parking_lot::Mutex;
use tier_types::Ino;

use crate::ops::OpenHandle;

/// As Linux has it on this machine.
const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();

/// The open files.
#[derive(Debug, Default)]
pub(super) struct Handles {
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<u64, OpenFile>,
    inodes: HashMap<Ino, OpenInode>,
}

/// How many files an inode is open as.
#[derive(Clone, Copy, Debug, Default)]
struct OpenInode {
    /// In all.
    files: u64,
    /// For writing.
    writers: u64,
    /// Through the kernel's cache.
    cached: u64,
    /// For writing past it.
    direct_writers: u64,
}

#[derive(Debug)]
struct OpenFile {
    handle: OpenHandle,
    writes: bool,
    is_cached: bool,
}

impl Handles {
    /// A file that is opened with these flags, which the kernel treats as it is told.
    pub(super) fn insert(
        &self,
        handle: OpenHandle,
        flags: OpenFlags,
        opened_as: FopenFlags,
    ) -> FileHandle {
        // With the write-back cache the kernel may hold back what any of these wrote.
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let is_cached = flags.0 & O_DIRECT == 0 && !opened_as.contains(FopenFlags::FOPEN_DIRECT_IO);
        let file = OpenFile { handle, writes, is_cached };
        let mut open = self.open.lock();
        let inode = open.inodes.entry(file.handle.ino()).or_default();
        inode.files += 1;
        inode.writers += u64::from(writes);
        inode.cached += u64::from(is_cached);
        inode.direct_writers += u64::from(writes && !is_cached);
        open.files.insert(number, file);
        FileHandle(number)
    }

    /// A file is closed. The inode, if it was written past the cache by this file.
    pub(super) fn remove(&self, number: FileHandle) -> Option<Ino> {
        // Dropped when the lock is free again: that may end the inode.
        let removed = {
            let mut open = self.open.lock();
            let removed = open.files.remove(&number.0);
            if let Some(file) = &removed {
                open.uncount(file);
            }
            removed
        };
        let file = removed?;
        Some(file.handle.ino()).filter(|_| file.writes && !file.is_cached)
    }

    /// Whether it is open for writing past the kernel's cache.
    pub(super) fn has_direct_writer(&self, ino: Ino) -> bool {
        self.open.lock().inodes.get(&ino).is_some_and(|inode| inode.direct_writers > 0)
    }

    /// Whether there may be writes that the kernel still holds back.
    pub(super) fn has_writer(&self, ino: Ino) -> bool {
        self.open.lock().inodes.get(&ino).is_some_and(|inode| inode.writers > 0)
    }

    /// Whether the kernel may have pages of it that a write past its cache makes stale.
    pub(super) fn is_cached(&self, ino: Ino) -> bool {
        self.open.lock().inodes.get(&ino).is_some_and(|inode| inode.cached > 0)
    }
}

impl Open {
    #[expect(clippy::expect_used, reason = "every file was counted when it was opened")]
    fn uncount(&mut self, file: &OpenFile) {
        let ino = file.handle.ino();
        let inode = self.inodes.get_mut(&ino).expect("every open file is counted");
        inode.files -= 1;
        inode.writers -= u64::from(file.writes);
        inode.cached -= u64::from(file.is_cached);
        inode.direct_writers -= u64::from(file.writes && !file.is_cached);
        if inode.files == 0 {
            self.inodes.remove(&ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::filesystem;

    const CACHED: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;

    #[test]
    fn writers_are_known_until_their_last_file_is_closed() {
        let (_dir, fs) = filesystem();
        let open = || fs.open_handle(Ino::ROOT).unwrap();
        let handles = Handles::default();
        let reads = handles.insert(open(), OpenFlags(0), CACHED);
        assert!(!handles.has_writer(Ino::ROOT));
        let writes = handles.insert(open(), OpenFlags(1), CACHED);
        let both = handles.insert(open(), OpenFlags(2), CACHED);
        assert!(handles.has_writer(Ino::ROOT));
        assert_eq!(handles.remove(writes), None);
        assert_eq!(handles.remove(reads), None);
        assert!(handles.has_writer(Ino::ROOT));
        assert_eq!(handles.remove(both), None);
        assert!(!handles.has_writer(Ino::ROOT));
        assert_eq!(handles.remove(both), None);
        assert!(handles.open.lock().inodes.is_empty());
    }

    #[test]
    fn what_is_open_past_the_cache_alone_is_not_cached() {
        let (_dir, fs) = filesystem();
        let handles = Handles::default();
        let open = |flags, opened_as| {
            handles.insert(fs.open_handle(Ino::ROOT).unwrap(), OpenFlags(flags), opened_as)
        };
        let by_program = open(O_DIRECT | 2, CACHED);
        let by_us = open(2, FopenFlags::FOPEN_DIRECT_IO);
        assert!(handles.has_writer(Ino::ROOT) && !handles.is_cached(Ino::ROOT));
        let reads = open(0, CACHED);
        assert!(handles.is_cached(Ino::ROOT));
        assert!(handles.has_direct_writer(Ino::ROOT));
        assert_eq!(handles.remove(by_program), Some(Ino::ROOT));
        assert_eq!(handles.remove(by_us), Some(Ino::ROOT));
        assert!(!handles.has_direct_writer(Ino::ROOT));
        assert!(handles.is_cached(Ino::ROOT) && !handles.has_writer(Ino::ROOT));
        assert_eq!(handles.remove(reads), None);
        assert!(!handles.is_cached(Ino::ROOT));
    }
}
