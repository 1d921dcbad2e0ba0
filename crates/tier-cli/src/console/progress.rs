//! Progress bars: a line on a terminal, nothing elsewhere; or texts to a user in another process.
//!
//! A [`ProgressBar`] belongs to one command. Work that several commands may wait for, such as that
//! of the agent, reports to a [`ProgressFanOut`] instead, which passes the reports on to the bars
//! of all commands that wait at the time.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use indicatif::{ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use tier_status::{Event, Progress, StatusError, StatusSink};
use tier_types::ControlSession;

use super::output;

/// How often a line on a terminal is drawn when nothing changes: what turns shows that it is alive.
const TICK_INTERVAL: Duration = Duration::from_millis(200);

/// Another process is sent no more than one text in this time: each is a message on the socket.
const TEXT_INTERVAL: Duration = Duration::from_millis(200);

/// A line that shows what is going on. It disappears when it is dropped.
pub(crate) struct ProgressBar(Line);

enum Line {
    Terminal(indicatif::ProgressBar),
    Remote { what: String, user: Arc<dyn ControlSession>, last: Mutex<Option<Instant>> },
}

impl ProgressBar {
    /// `what` is being done; how much of it there is, is not known.
    pub(crate) fn on_terminal(what: &str) -> Self {
        // Draws only if standard error is a terminal.
        let bar = indicatif::ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(line_style());
        bar.set_prefix(what.to_string());
        bar.enable_steady_tick(TICK_INTERVAL);
        Self(Line::Terminal(bar))
    }

    /// The same for a user in another process.
    pub(super) fn remote(what: &str, user: Arc<dyn ControlSession>) -> Self {
        Self(Line::Remote { what: what.to_string(), user, last: Mutex::new(None) })
    }

    /// Shows how far it has got.
    pub(crate) fn files_and_bytes(&self, n_files: u64, bytes: u64) {
        self.text(|| format!("{n_files} files, {}", output::bytes(bytes)));
    }

    /// Shows a text, which is made only if it is shown.
    pub(crate) fn text(&self, text: impl FnOnce() -> String) {
        match &self.0 {
            Line::Terminal(bar) => bar.set_message(text()),
            Line::Remote { what, user, last } => {
                // The lock also covers the sending, so that texts of two threads arrive in order.
                let mut last = last.lock();
                if last.is_none_or(|last| last.elapsed() >= TEXT_INTERVAL) {
                    *last = Some(Instant::now());
                    user.progress(&format!("{what}: {}", text()));
                }
            }
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "the template is a constant, which a test shows to be valid"
)]
fn line_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix} {elapsed} {msg}").expect("a valid template")
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        match &self.0 {
            Line::Terminal(bar) => bar.finish_and_clear(),
            // An empty text takes the line away at the other end.
            Line::Remote { user, .. } => user.progress(""),
        }
    }
}

impl StatusSink for ProgressBar {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        match event {
            Event::Pushed { name, .. } => self.text(|| format!("uploaded {name}")),
            Event::TarballSealed { name, .. } => self.text(|| format!("sealed {name}")),
            Event::InodeFailed { ino, error } => {
                tracing::warn!("inode {ino} is not all in this snapshot: {error}");
            }
            Event::RangeUnread { ino, bytes, error } => {
                tracing::warn!("bytes {bytes} of inode {ino} cannot be read: {error}");
            }
            Event::Unverified { place, problem } => {
                tracing::warn!("a snapshot does not count as verified in {place}: {problem}");
            }
            Event::ObjectLost { name, .. } => tracing::warn!("no copy has {name}"),
            Event::ObjectFound { name } => tracing::info!("a copy has {name} again"),
            Event::Started { .. }
            | Event::Resumed
            | Event::Committed { .. }
            | Event::Indexed
            | Event::Verified { .. }
            | Event::RestoredFrom { .. }
            | Event::Evicted { .. }
            | Event::Failed { .. } => {}
        }
        Ok(())
    }

    fn progress(&self, progress: Progress) {
        self.files_and_bytes(progress.n_inodes, progress.bytes);
    }
}

/// Passes the reports of one piece of work on to the progress bars of all that wait for it.
#[derive(Default)]
pub(crate) struct ProgressFanOut(Mutex<Vec<Weak<ProgressBar>>>);

impl ProgressFanOut {
    /// Adds a bar, as long as the answer is held.
    pub(crate) fn join(&self, bar: Arc<ProgressBar>) -> Arc<ProgressBar> {
        let mut bars = self.0.lock();
        // Bars that are gone are found here, so that no work is left to those that end.
        bars.retain(|bar| bar.strong_count() > 0);
        bars.push(Arc::downgrade(&bar));
        bar
    }

    fn each(&self, tell: impl Fn(&ProgressBar)) {
        // The lock is not held meanwhile: a bar that writes to a slow socket must not keep others
        // from joining.
        let bars: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for bar in bars {
            tell(&bar);
        }
    }
}

impl StatusSink for ProgressFanOut {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        // A bar that cannot show an event must not end the work that reports it.
        self.each(|bar| drop(bar.report(event.clone())));
        Ok(())
    }

    fn progress(&self, progress: Progress) {
        self.each(|bar| bar.progress(progress));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tier_types::PortError;

    use super::*;

    /// A user in another process, as its texts arrive there.
    #[derive(Default)]
    struct Texts(Mutex<Vec<String>>);

    impl ControlSession for Texts {
        fn output(&self, _: &[u8]) -> Result<(), PortError> {
            Ok(())
        }

        fn note(&self, _: &str) {}

        fn progress(&self, text: &str) {
            self.0.lock().push(text.to_string());
        }

        fn cancelled(&self) -> Arc<AtomicBool> {
            Arc::default()
        }
    }

    fn progress(n_inodes: u64) -> Progress {
        Progress { n_inodes, bytes: 1024 }
    }

    #[test]
    fn a_fan_out_reaches_those_that_wait_and_no_others() {
        let fan_out = ProgressFanOut::default();
        let users = [Arc::new(Texts::default()), Arc::new(Texts::default())];
        let bar = |user: &Arc<Texts>| Arc::new(ProgressBar::remote("working", user.clone()));
        let first = fan_out.join(bar(&users[0]));
        fan_out.progress(progress(1));
        drop(first);
        let _second = fan_out.join(bar(&users[1]));
        fan_out.progress(progress(2));
        assert_eq!(*users[0].0.lock(), ["working: 1 files, 1.00 KiB", ""]);
        assert_eq!(*users[1].0.lock(), ["working: 2 files, 1.00 KiB"]);
    }

    #[test]
    fn the_line_on_a_terminal_has_a_valid_template() {
        drop(line_style());
    }

    #[test]
    fn a_user_in_another_process_is_not_flooded() {
        let user = Arc::new(Texts::default());
        let bar = ProgressBar::remote("working", user.clone());
        for n in 0..1000 {
            bar.files_and_bytes(n, 0);
        }
        drop(bar);
        let texts = user.0.lock();
        assert_eq!(texts.first().map(String::as_str), Some("working: 0 files, 0 B"));
        assert!(texts.len() < 1000, "{} texts", texts.len());
    }
}
