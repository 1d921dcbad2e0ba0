//! Progress bars on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tier_status::{Event, Progress, StatusError, StatusSink};

/// A line that shows what is going on. It disappears when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// `what` is being done; how much of it there is, is not known.
    pub(crate) fn new(what: &str) -> Self {
        // Draws only if standard error is a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Shows how far it has got.
    pub(crate) fn files_and_bytes(&self, n_files: u64, bytes: u64) {
        self.0.set_message(format!("{n_files} files, {}", crate::output::bytes(bytes)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl StatusSink for Bar {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        match event {
            Event::Pushed { name, .. } => self.0.set_message(format!("pushed {name}")),
            Event::TarballSealed { name, .. } => self.0.set_message(format!("sealed {name}")),
            Event::InodeFailed { ino, error } => {
                tracing::warn!("inode {ino} is not in this snapshot: {error}");
            }
            Event::Started { .. }
            | Event::Resumed
            | Event::Committed { .. }
            | Event::Indexed
            | Event::Verified { .. }
            | Event::Evicted { .. }
            | Event::Failed { .. } => {}
        }
        Ok(())
    }

    fn progress(&self, progress: Progress) {
        self.files_and_bytes(progress.n_inodes, progress.bytes);
    }
}
