//! Progress: a line on a terminal, nothing elsewhere; or words to a user in another process.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use tier_status::{Event, Progress, StatusError, StatusSink};
use tier_types::ControlSession;

/// A user elsewhere hears no more often.
const WORD_INTERVAL: Duration = Duration::from_millis(200);

/// A line that shows what is going on. It disappears when it is dropped.
pub(crate) struct Bar(Line);

enum Line {
    Terminal(ProgressBar),
    Remote { what: String, user: Arc<dyn ControlSession>, last: Mutex<Option<Instant>> },
}

impl Bar {
    /// `what` is being done; how much of it there is, is not known.
    pub(crate) fn on_terminal(what: &str) -> Self {
        // Draws only if standard error is a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(Line::Terminal(bar))
    }

    /// The same for a user in another process.
    pub(crate) fn remote(what: &str, user: Arc<dyn ControlSession>) -> Self {
        Self(Line::Remote { what: what.to_string(), user, last: Mutex::new(None) })
    }

    /// Shows how far it has got.
    pub(crate) fn files_and_bytes(&self, n_files: u64, bytes: u64) {
        self.say(|| format!("{n_files} files, {}", crate::output::bytes(bytes)));
    }

    /// Shows words.
    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        match &self.0 {
            Line::Terminal(bar) => bar.set_message(text()),
            Line::Remote { what, user, last } => {
                let mut last = last.lock();
                if last.is_none_or(|last| last.elapsed() >= WORD_INTERVAL) {
                    *last = Some(Instant::now());
                    user.progress(&format!("{what}: {}", text()));
                }
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        match &self.0 {
            Line::Terminal(bar) => bar.finish_and_clear(),
            Line::Remote { user, .. } => user.progress(""),
        }
    }
}

impl StatusSink for Bar {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        match event {
            Event::Pushed { name, .. } => self.say(|| format!("pushed {name}")),
            Event::TarballSealed { name, .. } => self.say(|| format!("sealed {name}")),
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

/// Those who look on while the agent works: each user sees it who waits for it.
#[derive(Default)]
pub(crate) struct Audience(Mutex<Vec<Weak<Bar>>>);

impl Audience {
    /// Looks on as long as the answer is held.
    pub(crate) fn join(&self, bar: Arc<Bar>) -> Arc<Bar> {
        let mut bars = self.0.lock();
        bars.retain(|bar| bar.strong_count() > 0);
        bars.push(Arc::downgrade(&bar));
        bar
    }

    fn each(&self, tell: impl Fn(&Bar)) {
        // The lock is not held while somebody is told, who may be slow to listen.
        let bars: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for bar in bars {
            tell(&bar);
        }
    }
}

impl StatusSink for Audience {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        self.each(|bar| drop(bar.report(event.clone())));
        Ok(())
    }

    fn progress(&self, progress: Progress) {
        self.each(|bar| bar.progress(progress));
    }
}
