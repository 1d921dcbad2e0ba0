//! The status book: the status logs of all snapshots of a store, one file for each.
//!
//! The agent resumes from what the book says, never from memory. A log that was moved away is no
//! error: its snapshot then stands where its manifest says, and is verified again. A log that is
//! damaged is one, until an operator moves it away.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tier_persist::{Archive, SnapshotSummary, StepKind};
use tier_status::{SnapshotStatus, StatusError, StatusHeader, StatusLog, StatusWriter};
use tier_types::{Clock, Epoch, SnapshotId};

const EXTENSION: &str = "status";

/// A directory of status logs, one for each snapshot.
pub struct StatusBook {
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    /// Writers in use: a log has one at a time, which those share that write to it.
    writers: Mutex<BTreeMap<PathBuf, Weak<StatusWriter>>>,
}

impl std::fmt::Debug for StatusBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusBook").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl StatusBook {
    /// The status logs in this directory, which is made if it is not there.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, StatusError> {
        fs::create_dir_all(directory).map_err(|source| StatusError::Io {
            operation: "create the directory of",
            path: directory.to_path_buf(),
            source,
        })?;
        let writers = Mutex::default();
        Ok(Self { directory: directory.to_path_buf(), clock, writers })
    }

    /// The writer of a snapshot's log.
    pub fn writer(&self, header: StatusHeader) -> Result<Arc<StatusWriter>, StatusError> {
        let path = self.path(header);
        // Held while it is opened: two writers of one log would break its chain.
        let mut writers = self.writers.lock();
        if let Some(writer) = writers.get(&path).and_then(Weak::upgrade) {
            return Ok(writer);
        }
        let writer = Arc::new(StatusWriter::open(&path, header, Arc::clone(&self.clock))?);
        writers.retain(|_, writer| writer.strong_count() > 0);
        writers.insert(path, Arc::downgrade(&writer));
        Ok(writer)
    }

    /// How far a snapshot has got; `None` if nothing is recorded of it.
    pub fn status(&self, header: StatusHeader) -> Result<Option<SnapshotStatus>, StatusError> {
        match StatusLog::read(&self.path(header)) {
            Ok(log) => Ok(log.map(|log| log.status())),
            // Never begun, or moved away by an operator: nothing says that the snapshot was
            // verified.
            Err(StatusError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether there is a checkpoint from this number on of which no object is known to be lost.
    pub fn has_whole_checkpoint(
        &self,
        archive: &Archive<'_>,
        from: SnapshotId,
    ) -> Result<bool, StatusError> {
        let later = archive.snapshots().rev().take_while(|later| later.snapshot >= from);
        for checkpoint in later.filter(|later| later.kind == StepKind::Checkpoint) {
            let SnapshotSummary { epoch, snapshot, .. } = *checkpoint;
            let status = self.status(StatusHeader { epoch, snapshot })?;
            if status.is_none_or(|status| status.lost_objects.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets all that is recorded of a snapshot.
    pub fn forget(&self, header: StatusHeader) -> Result<(), StatusError> {
        let path = self.path(header);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => {
                removed.map_err(|source| StatusError::Io { operation: "remove", path, source })
            }
        }
    }

    /// How far all snapshots have got whose numbers are above this one, oldest first. Only their
    /// logs are read.
    pub fn after(&self, last: SnapshotId) -> Result<Vec<SnapshotStatus>, StatusError> {
        let newer = self.headers()?.into_iter().filter(|header| header.snapshot > last);
        self.read(newer)
    }

    /// How far the newest of all snapshots have got, at most `n_max` of them, oldest first.
    pub fn newest(&self, n_max: usize) -> Result<Vec<SnapshotStatus>, StatusError> {
        let headers = self.headers()?;
        let n_older = headers.len().saturating_sub(n_max);
        self.read(headers.into_iter().skip(n_older))
    }

    /// How far all snapshots have got, oldest first.
    pub fn all(&self) -> Result<Vec<SnapshotStatus>, StatusError> {
        self.read(self.headers()?)
    }

    fn read(
        &self,
        headers: impl IntoIterator<Item = StatusHeader>,
    ) -> Result<Vec<SnapshotStatus>, StatusError> {
        let statuses = headers.into_iter().map(|header| self.status(header).transpose());
        statuses.flatten().collect()
    }

    /// The snapshots that have a log, in the order of their numbers.
    fn headers(&self) -> Result<Vec<StatusHeader>, StatusError> {
        let failed =
            |source| StatusError::Io { operation: "list", path: self.directory.clone(), source };
        let mut headers = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            headers.extend(name.to_str().and_then(parse_name));
        }
        // A directory lists in no order, and numbers of snapshots go on from one epoch to the next.
        headers.sort_by_key(|header| (header.snapshot, header.epoch));
        Ok(headers)
    }

    fn path(&self, header: StatusHeader) -> PathBuf {
        let StatusHeader { epoch, snapshot } = header;
        // Zeros in front, so that a sorted listing shows the logs in their order.
        self.directory.join(format!("e{:08}-s{:010}.{EXTENSION}", epoch.get(), snapshot.get()))
    }
}

/// What the name of a log says; `None` for any other file.
fn parse_name(name: &str) -> Option<StatusHeader> {
    let stem = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let (epoch, snapshot) = stem.strip_prefix('e')?.split_once("-s")?;
    let (epoch, snapshot) = (epoch.parse().ok()?, snapshot.parse().ok()?);
    Some(StatusHeader { epoch: Epoch::new(epoch), snapshot: SnapshotId::new(snapshot) })
}
