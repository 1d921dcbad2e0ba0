//! The lock of a store: one process at a time has it open.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};

use rustix::fs::{FlockOperation, flock};

use crate::{Layout, StoreError};

/// Held as long as a store is open. The system lets go of it when the process ends, however that
/// happens, so that no lock is ever left over.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock, and writes into it which process has it.
    pub(crate) fn take(layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.lock();
        let failed = || StoreError::io("lock", &path);
        let mut options = OpenOptions::new();
        // The content is kept until the lock is held: it names the process that has the store open.
        let opened = options.create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = opened.map_err(failed())?;
        // A lock of this kind belongs to the open file, so that a second opening by one process
        // fails too. Waiting for it could take as long as a mount lasts.
        if let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            tracing::debug!(%errno, path = %path.display(), "the lock cannot be taken");
            let mut holder = String::new();
            // Without the holder's number the message is still true.
            let _ = file.read_to_string(&mut holder);
            let store = layout.root().to_path_buf();
            return Err(StoreError::Busy { store, holder: holder.trim().into() });
        }
        // The text is for messages only and is not synced: the lock itself decides.
        file.set_len(0).map_err(failed())?;
        file.rewind().map_err(failed())?;
        writeln!(file, "{}", std::process::id()).map_err(failed())?;
        Ok(Self { _file: file })
    }
}
