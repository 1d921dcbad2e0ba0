//! The writer of a status log: the only code that appends to one.
//!
//! A report returns after its line was synced. After a write or a sync that failed, what the file
//! holds is not known: the kernel may have dropped the bytes and forgotten the error. The writer is
//! then poisoned and refuses every further event; opening the log anew reads back what is there,
//! cuts a torn line off and goes on. Two writers of one log at a time would break its chain: the
//! store's lock keeps processes apart, and within one those that write to a log share its writer.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tier_types::Clock;

use crate::line::{Chain, event_to_text, header_to_text};
use crate::{Event, EventRecord, StatusError, StatusHeader, StatusLog, StatusSink};

/// Appends the events of one snapshot to its status log. Each is on disk when
/// [`report`](StatusSink::report) returns.
pub struct StatusWriter {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    file: File,
    chain: Chain,
    poisoned: bool,
}

impl StatusWriter {
    /// Opens the log at `path`, or starts it. What a crash left of a last line is cut off; a log
    /// of another snapshot is an error.
    pub fn open(
        path: &Path,
        header: StatusHeader,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StatusError> {
        let failed = |operation| {
            move |source| StatusError::Io { operation, path: path.to_path_buf(), source }
        };
        let existing = match StatusLog::read(path) {
            Ok(existing) => existing,
            Err(StatusError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Opened for appending, so that a line can only land behind what is there.
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path).map_err(failed("open"))?;
        let chain = if let Some(log) = existing {
            // The chain of a copied or renamed log fits, and yet it vouches for another snapshot.
            if log.header() != header {
                let problem = "it is about another snapshot";
                return Err(StatusError::Damaged { path: path.to_path_buf(), line: 1, problem });
            }
            cut(&file, log.whole_bytes(), path).map_err(failed("cut"))?;
            log.chain().clone()
        } else {
            // Without a complete header nothing was recorded.
            cut(&file, 0, path).map_err(failed("cut"))?;
            let mut chain = Chain::default();
            let line = chain.seal(&header_to_text(&header));
            (&file).write_all(line.as_bytes()).map_err(failed("write"))?;
            chain
        };
        // The cut as well: a torn rest that comes back after a crash would damage the next line.
        file.sync_all().map_err(failed("sync"))?;
        sync_parent(path).map_err(failed("sync the directory of"))?;
        let state = Mutex::new(State { file, chain, poisoned: false });
        Ok(Self { path: path.to_path_buf(), clock, state })
    }
}

impl StatusSink for StatusWriter {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        let mut state = self.state.lock();
        if state.poisoned {
            return Err(StatusError::Poisoned { path: self.path.clone() });
        }
        // Under the lock: the order of times, of digests and of lines in the file is the same.
        let record = EventRecord { time: self.clock.now(), event };
        let line = state.chain.seal(&event_to_text(&record));
        // `sync_data` is enough: it brings the file's new length along, and its times do not
        // matter.
        let written =
            (&state.file).write_all(line.as_bytes()).and_then(|()| state.file.sync_data());
        written.map_err(|source| {
            // The chain already counts the line, which may or may not be in the file.
            state.poisoned = true;
            StatusError::Io { operation: "write", path: self.path.clone(), source }
        })
    }
}

impl std::fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatusWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Cuts off what lies behind the complete lines.
fn cut(file: &File, whole_bytes: u64, path: &Path) -> io::Result<()> {
    let len_bytes = file.metadata()?.len();
    if len_bytes > whole_bytes {
        let torn_bytes = len_bytes - whole_bytes;
        tracing::debug!(path = %path.display(), torn_bytes, "a torn last line is cut off");
        file.set_len(whole_bytes)?;
    }
    Ok(())
}

/// Makes the log's name durable. A path without a directory lies in the working directory.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use tier_types::{Epoch, SnapshotId, SystemClock};

    use super::*;

    const HEADER: StatusHeader =
        StatusHeader { epoch: Epoch::new(1), snapshot: SnapshotId::new(2) };

    #[test]
    fn after_a_failed_write_every_event_is_refused_until_the_log_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let writer = StatusWriter::open(&path, HEADER, Arc::new(SystemClock)).unwrap();
        writer.report(Event::Resumed).unwrap();
        let writable = std::mem::replace(&mut writer.state.lock().file, File::open(&path).unwrap());
        let error = writer.report(Event::Indexed).unwrap_err();
        assert!(matches!(error, StatusError::Io { operation: "write", .. }), "{error:?}");
        // The file could be written again, but what the failed write left in it is not known.
        writer.state.lock().file = writable;
        let error = writer.report(Event::Indexed).unwrap_err();
        assert!(matches!(error, StatusError::Poisoned { .. }), "{error:?}");
        let writer = StatusWriter::open(&path, HEADER, Arc::new(SystemClock)).unwrap();
        writer.report(Event::Indexed).unwrap();
        let log = StatusLog::read(&path).unwrap().unwrap();
        let events: Vec<_> = log.records().iter().map(|record| record.event.clone()).collect();
        assert_eq!(events, [Event::Resumed, Event::Indexed]);
    }
}
