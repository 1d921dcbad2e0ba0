//! Kills at random moments: the process that has a store mounted dies, and the next one goes on.
//!
//! The system has everything that was done by then, synced or not, so that nothing of it may be
//! missing. `TIER_KILLS=500` makes the long run of it, which `cargo xtask full` does; a test that
//! fails names its seed, which `TIER_KILLS_SEED` gives to the next run, and keeps its store.

use std::fs::OpenOptions;
use std::thread;

use tempfile::TempDir;

use crate::random::{self, Random};
use crate::work::{Found, Mount, Tolerance, Work, WorkStore};

const N_USUAL: u64 = 8;
const N_KILLS_OF_STORE: u64 = 25;
const N_STEPS_MAX: u64 = 200;

/// The directory of a store, which stays if the test fails.
struct Kept {
    seed: u64,
    dir: TempDir,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("TIER_KILLS_SEED={} repeats it", self.seed);
            eprintln!("the store as it was left: {}", self.dir.path().display());
        }
    }
}

fn kill(seed: u64, n_kills: u64) {
    let kept = Kept { seed, dir: tempfile::tempdir().unwrap() };
    let (on, out) = (kept.dir.path().join("mnt"), kept.dir.path().join("out"));
    let mut random = Random::new(seed);
    let store = WorkStore::init(kept.dir.path());
    let work = Work::new(&mut random);
    let mut found: Option<Vec<Found>> = None;
    for _ in 0..n_kills {
        let mounted = Mount::new(&store.path(), &on);
        match found {
            None => work.begin(&on),
            Some(found) => work.adopt(&on, &found),
        }
        let n_steps = random.below(N_STEPS_MAX);
        work.during(&store, &on, Tolerance::NONE, |progress| {
            progress.wait(n_steps);
            progress.end();
            mounted.kill();
        });
        work.writers.iter().for_each(|writer| writer.history.lock().forget_before_reached());
        found = Some(store.check(&out, &work.writers, &work.histories()));
        if random.one_of(4) {
            store.go_on();
        }
    }
}

#[test]
fn a_process_that_is_killed_takes_nothing_with_it() {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
        return;
    }
    let mut n_left = random::number("TIER_KILLS").unwrap_or(N_USUAL);
    let first = random::seed("TIER_KILLS_SEED");
    for seed in first.. {
        let n_kills = n_left.min(N_KILLS_OF_STORE);
        if n_kills == 0 {
            break;
        }
        kill(seed, n_kills);
        n_left -= n_kills;
    }
}
