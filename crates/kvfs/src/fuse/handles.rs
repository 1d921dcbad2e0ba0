//! Files that are open through the mount.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{FileHandle, OpenAccMode, OpenFlags};
use parking_lot::Mutex;
use tier_types::Ino;

use crate::OpenHandle;

/// The open files by the numbers that the kernel knows them by.
#[derive(Debug, Default)]
pub(super) struct Handles {
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<u64, (OpenHandle, bool)>,
    /// How many of the files of an inode are open for writing.
    n_writers: HashMap<Ino, u64>,
}

impl Handles {
    pub(super) fn insert(&self, handle: OpenHandle, flags: OpenFlags) -> FileHandle {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        if writes {
            *open.n_writers.entry(handle.ino()).or_default() += 1;
        }
        open.files.insert(number, (handle, writes));
        FileHandle(number)
    }

    pub(super) fn remove(&self, number: FileHandle) {
        // Dropped when the lock is free again: that may end the inode.
        let removed = {
            let mut open = self.open.lock();
            let removed = open.files.remove(&number.0);
            if let Some((handle, true)) = &removed {
                let ino = handle.ino();
                let left = open.n_writers.get_mut(&ino).map(|n| {
                    *n -= 1;
                    *n
                });
                if left == Some(0) {
                    open.n_writers.remove(&ino);
                }
            }
            removed
        };
        drop(removed);
    }

    /// Whether somebody may have written what the kernel still holds back.
    pub(super) fn has_writer(&self, ino: Ino) -> bool {
        self.open.lock().n_writers.contains_key(&ino)
    }
}
