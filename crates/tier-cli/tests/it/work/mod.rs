//! Work on a mount, for the tests that take the power, the disk or the process away from it.
//!
//! Writers append, write over in place, cut, let grow, punch holes, rename, remove, read back and
//! sync, each in a directory of its own and by a plan that its seed makes; meanwhile snapshots are
//! taken and everything is evicted, so that writers meet cold data and space is given back. What
//! each writer did is kept as a history (`history`), against which every restart is compared.
//!
//! A test says which errors a writer may meet. A step that met one has changed its files or has
//! not; the writer removes them before it goes on.

mod history;
mod mounted;
mod step;
mod store;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Run, tier};
use crate::random::Random;

pub(crate) use history::{Found, History};
pub(crate) use mounted::Mount;
pub(crate) use store::{WorkStore, find, remove_directory};
pub(crate) use writer::Writer;

const N_WRITERS: usize = 3;
/// Errors of one writer and nothing else for so long are taken for errors that stay. A store that
/// met an error of its disk opens its key-value store again after a second at the earliest.
const ERRORS_MAX: Duration = Duration::from_secs(8);

/// All writers of a store.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) writers: Vec<Writer>,
}

/// What may go wrong while writers work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    /// Errors of a step. If there are any, each step that writes is synced, because the kernel
    /// writes behind and tells of errors only then.
    pub(crate) of_steps: &'static [i32],
    /// Exit codes of snapshots and evictions.
    pub(crate) of_commands: &'static [i32],
}

impl Tolerance {
    pub(crate) const NONE: Self = Self { of_steps: &[], of_commands: &[0] };
}

/// How a step ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    writer: usize,
    is_ok: bool,
}

/// The work while it is under way.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    is_ended: &'a AtomicBool,
    steps: Receiver<Ended>,
}

impl Work {
    pub(crate) fn new(random: &mut Random) -> Self {
        let writers = (0..N_WRITERS).map(|number| Writer::new(number, Random::new(random.next())));
        Self { writers: writers.collect() }
    }

    /// Makes the directories.
    pub(crate) fn begin(&self, mount: &Path) {
        self.writers.iter().for_each(|writer| writer.begin(mount));
    }

    /// Lets all work while `body` runs, and until it returns.
    pub(crate) fn during<T>(
        &self,
        store: &WorkStore,
        mount: &Path,
        tolerance: Tolerance,
        body: impl FnOnce(&Progress<'_>) -> T,
    ) -> T {
        let is_ended = AtomicBool::new(false);
        let (sender, steps) = channel();
        thread::scope(|scope| {
            let progress = Progress { is_ended: &is_ended, steps };
            for (number, writer) in self.writers.iter().enumerate() {
                let (steps, is_ended) = (sender.clone(), &is_ended);
                scope.spawn(move || {
                    let _end = EndIfPanicking(is_ended);
                    while !is_ended.load(Ordering::SeqCst) {
                        let is_ok = tolerance.step(writer, mount, is_ended);
                        let _ = steps.send(Ended { writer: number, is_ok });
                    }
                });
            }
            drop(sender);
            scope.spawn(|| {
                let _end = EndIfPanicking(&is_ended);
                let mut commands = [&["snapshot"][..], &["evict", "--all"]].into_iter().cycle();
                while !is_ended.load(Ordering::SeqCst) {
                    let command = commands.next().expect("they go round");
                    let run = tier(&[command, &[&store.name()]].concat());
                    if !is_ended.load(Ordering::SeqCst) {
                        tolerance.check_command(&run);
                    }
                }
            });
            // Dropped when it fails as well: the others end then.
            body(&progress)
        })
    }

    /// Forgets what a loss of power from now on cannot bring back.
    pub(crate) fn forget_before_synced(&self) {
        self.writers.iter().for_each(|writer| writer.history.lock().forget_before_synced());
    }

    pub(crate) fn histories(&self) -> Vec<History> {
        self.writers.iter().map(|writer| writer.history.lock().clone()).collect()
    }

    /// Finds the same through a mount, and goes on from there.
    pub(crate) fn adopt(&self, mount: &Path, found: &[Found]) {
        for (writer, exported) in self.writers.iter().zip(found) {
            let found = find(&mount.join(&writer.name));
            assert!(found == *exported, "{}: the mount shows something else", writer.name);
            writer.adopt(&found);
        }
    }
}

impl Tolerance {
    /// Takes a step. Whether it went well.
    fn step(self, writer: &Writer, mount: &Path, is_ended: &AtomicBool) -> bool {
        let Err(failed) = writer.step(mount, !self.of_steps.is_empty()) else { return true };
        let code = failed.error.raw_os_error();
        let is_allowed = code.is_some_and(|code| self.of_steps.contains(&code));
        assert!(is_allowed || is_ended.load(Ordering::SeqCst), "{}: {}", failed.step, failed.error);
        false
    }

    fn check_command(self, run: &Run) {
        assert!(self.of_commands.contains(&run.code), "{}: {}{}", run.code, run.out, run.err);
        assert!(!run.err.contains("panicked"), "{}", run.err);
    }
}

impl Progress<'_> {
    /// Waits for so many steps of all writers together.
    pub(crate) fn wait(&self, n_steps: u64) {
        for _ in 0..n_steps {
            self.next();
        }
    }

    /// Waits until so many steps have failed.
    pub(crate) fn wait_for_errors(&self, n_errors: u64) {
        for _ in 0..n_errors {
            while self.next().is_ok {}
        }
    }

    /// Waits until every writer has taken so many steps from now on. Whether it did: not if one of
    /// them meets only errors.
    pub(crate) fn goes_on(&self, n_steps: usize) -> bool {
        // What has ended by now says nothing.
        while self.steps.try_recv().is_ok() {}
        let mut n_ok = [0; N_WRITERS];
        let mut last_ok = [Instant::now(); N_WRITERS];
        loop {
            let Ended { writer, is_ok } = self.next();
            if is_ok {
                n_ok[writer] += 1;
                last_ok[writer] = Instant::now();
            } else if last_ok[writer].elapsed() > ERRORS_MAX {
                return false;
            }
            if n_ok.iter().all(|n| *n >= n_steps) {
                return true;
            }
        }
    }

    fn next(&self) -> Ended {
        self.steps.recv().expect("a writer failed, and says why")
    }

    /// From now on errors say nothing: the process is about to be killed.
    pub(crate) fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
    }
}

/// What fails on one thread ends all of them.
struct EndIfPanicking<'a>(&'a AtomicBool);

impl Drop for EndIfPanicking<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
