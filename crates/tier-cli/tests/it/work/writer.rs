//! A writer: one thread's steps in a directory of its own, and what it knows of them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::statvfs;

use super::history::{Found, History, State};
use super::step::Step;
use crate::random::Random;

#[derive(Debug)]
pub(crate) struct Writer {
    /// Of its directory.
    pub(crate) name: String,
    /// Shared with what loses the power.
    pub(crate) history: Mutex<History>,
    hand: Mutex<Hand>,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) step: String,
    pub(crate) error: io::Error,
}

#[derive(Debug)]
struct Hand {
    random: Random,
    /// What it writes next has this number.
    stamp: u64,
    doubt: Doubt,
}

/// What a step that failed may have changed: files that are removed before the next step.
#[derive(Debug, Default)]
struct Doubt {
    names: Vec<String>,
    /// The state without the step, as far as the files are removed.
    without: State,
}

impl Writer {
    pub(crate) fn new(number: usize, random: Random) -> Self {
        let name = format!("writer-{number}");
        let hand = Hand { random, stamp: 1, doubt: Doubt::default() };
        Self { name, history: Mutex::new(History::new(State::new())), hand: Mutex::new(hand) }
    }

    /// Makes its directory.
    pub(crate) fn begin(&self, mount: &Path) {
        let directory = mount.join(&self.name);
        fs::create_dir(&directory).unwrap();
        File::open(&directory).unwrap().sync_all().unwrap();
    }

    /// Takes a step. With `syncs_always`, one that has ended is synced.
    pub(crate) fn step(&self, mount: &Path, syncs_always: bool) -> Result<(), Failed> {
        let hand = &mut *self.hand.lock();
        let directory = mount.join(&self.name);
        self.remove_doubtful(&directory, &mut hand.doubt)?;
        let stamp = hand.stamp;
        hand.stamp += 1;
        let before = self.history.lock().last().clone();
        let step = Step::next(&before, stamp, &mut hand.random);
        self.history.lock().begin(step.apply(&before, stamp));
        let taken = step.take(&directory, &before, stamp, syncs_always);
        // What the kernel writes when a file is closed fails without a word. A process that answers
        // after it was there to take it.
        let taken = taken.and_then(|()| statvfs(&directory).map(drop).map_err(io::Error::from));
        if taken.is_err() {
            hand.doubt = Doubt { names: step.names(), without: before };
        }
        taken.map_err(|error| Failed { step: format!("{}: {step:?}", self.name), error })?;
        self.ended(step.is_synced(syncs_always));
        Ok(())
    }

    /// Syncs everything.
    pub(crate) fn sync(&self, mount: &Path) -> io::Result<()> {
        File::open(mount.join(&self.name))?.sync_all()?;
        self.ended(true);
        Ok(())
    }

    fn ended(&self, is_synced: bool) {
        let mut history = self.history.lock();
        let reached = history.end();
        if is_synced {
            history.synced(reached);
        }
    }

    fn remove_doubtful(&self, directory: &Path, doubt: &mut Doubt) -> Result<(), Failed> {
        while let Some(name) = doubt.names.last() {
            doubt.without.remove(name);
            let mut history = self.history.lock();
            let mut with = history.last().clone();
            with.remove(name);
            history.begin(doubt.without.clone());
            history.begin(with);
            drop(history);
            match fs::remove_file(directory.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failed { step: format!("{}: remove {name}", self.name), error });
                }
                _ => doubt.names.pop(),
            };
        }
        Ok(())
    }

    /// Goes on from what was found, which must be right.
    pub(crate) fn adopt(&self, found: &Found) {
        self.hand.lock().doubt.names.clear();
        self.history.lock().adopt(found);
    }
}
