//! The status logs of all snapshots of a store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tier_status::{SnapshotStatus, StatusError, StatusHeader, StatusLog, StatusWriter};
use tier_types::Clock;

const ENDING: &str = "status";

/// A folder of status logs, one for each snapshot.
pub struct StatusBook {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for StatusBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusBook").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl StatusBook {
    /// The status logs in this folder, which is made if it is not there.
    pub fn open(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, StatusError> {
        fs::create_dir_all(folder).map_err(|source| StatusError::Io {
            operation: "create the folder of",
            path: folder.to_path_buf(),
            source,
        })?;
        Ok(Self { folder: folder.to_path_buf(), clock })
    }

    /// The writer of a snapshot's log.
    pub fn writer(&self, header: StatusHeader) -> Result<StatusWriter, StatusError> {
        StatusWriter::open(&self.path(header), header, Arc::clone(&self.clock))
    }

    /// Where a snapshot stands; `None` if nothing is recorded of it.
    pub fn status(&self, header: StatusHeader) -> Result<Option<SnapshotStatus>, StatusError> {
        match StatusLog::read(&self.path(header)) {
            Ok(log) => Ok(log.map(|log| log.status())),
            Err(StatusError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where all snapshots stand, oldest first.
    pub fn all(&self) -> Result<Vec<SnapshotStatus>, StatusError> {
        let failed =
            |source| StatusError::Io { operation: "list", path: self.folder.clone(), source };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().and_then(|ending| ending.to_str()) == Some(ENDING) {
                all.extend(StatusLog::read(&path)?.map(|log| log.status()));
            }
        }
        all.sort_by_key(|status| (status.header.snapshot, status.header.epoch));
        Ok(all)
    }

    fn path(&self, header: StatusHeader) -> PathBuf {
        let StatusHeader { epoch, snapshot } = header;
        self.folder.join(format!("e{:08}-s{:010}.{ENDING}", epoch.get(), snapshot.get()))
    }
}
