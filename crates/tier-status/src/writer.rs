//! Appends to a status log.

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
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path).map_err(failed("open"))?;
        let chain = if let Some(log) = existing {
            if log.header() != header {
                let problem = "it is about another snapshot";
                return Err(StatusError::Damaged { path: path.to_path_buf(), line: 1, problem });
            }
            file.set_len(log.whole_bytes()).map_err(failed("cut"))?;
            log.chain().clone()
        } else {
            file.set_len(0).map_err(failed("cut"))?;
            let mut chain = Chain::default();
            let line = chain.seal(&header_to_text(&header));
            (&file).write_all(line.as_bytes()).map_err(failed("write"))?;
            chain
        };
        file.sync_all().map_err(failed("sync"))?;
        sync_parent(path).map_err(failed("sync the folder of"))?;
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
        let record = EventRecord { time: self.clock.now(), event };
        let line = state.chain.seal(&event_to_text(&record));
        let written =
            (&state.file).write_all(line.as_bytes()).and_then(|()| state.file.sync_data());
        written.map_err(|source| {
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

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
