//! Files that are open through the mount, by the numbers that the kernel knows them by.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{FileHandle, OpenAccMode, OpenFlags};
use parking_lot::Mutex;
use tier_types::Ino;

use crate::ops::OpenHandle;

/// The open files.
#[derive(Debug, Default)]
pub(super) struct Handles {
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<u64, OpenFile>,
    /// How many of the files of an inode are open for writing, if any.
    n_writers: HashMap<Ino, u64>,
}

#[derive(Debug)]
struct OpenFile {
    handle: OpenHandle,
    writes: bool,
}

impl Handles {
    pub(super) fn insert(&self, handle: OpenHandle, flags: OpenFlags) -> FileHandle {
        // With the write-back cache the kernel may hold back what any of these wrote.
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        if writes {
            *open.n_writers.entry(handle.ino()).or_default() += 1;
        }
        open.files.insert(number, OpenFile { handle, writes });
        FileHandle(number)
    }

    pub(super) fn remove(&self, number: FileHandle) {
        // Dropped when the lock is free again: that may end the inode.
        let removed = {
            let mut open = self.open.lock();
            let removed = open.files.remove(&number.0);
            if let Some(OpenFile { handle, writes: true }) = &removed {
                open.remove_writer(handle.ino());
            }
            removed
        };
        drop(removed);
    }

    /// Whether there may be writes that the kernel still holds back.
    pub(super) fn has_writer(&self, ino: Ino) -> bool {
        self.open.lock().n_writers.contains_key(&ino)
    }
}

impl Open {
    #[expect(clippy::expect_used, reason = "every file that is open for writing was counted")]
    fn remove_writer(&mut self, ino: Ino) {
        let n = self.n_writers.get_mut(&ino).expect("every writer is counted");
        *n -= 1;
        if *n == 0 {
            self.n_writers.remove(&ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::filesystem;

    #[test]
    fn writers_are_known_until_their_last_file_is_closed() {
        let (_dir, fs) = filesystem();
        let open = || fs.open_handle(Ino::ROOT).unwrap();
        let handles = Handles::default();
        let reads = handles.insert(open(), OpenFlags(0));
        assert!(!handles.has_writer(Ino::ROOT));
        let writes = handles.insert(open(), OpenFlags(1));
        let both = handles.insert(open(), OpenFlags(2));
        assert!(handles.has_writer(Ino::ROOT));
        handles.remove(writes);
        handles.remove(reads);
        assert!(handles.has_writer(Ino::ROOT));
        handles.remove(both);
        assert!(!handles.has_writer(Ino::ROOT));
        handles.remove(both);
    }
}
