//! Loss of power: of what was not synced the disk has any part, and the store goes on from there.

use super::{Bench, on_stores};
use crate::work::{Found, Tolerance};

const N_STEPS_MIN: u64 = 20;
const N_STEPS_MAX: u64 = 200;

fn lose_power(bench: &mut Bench, n_losses: u64) {
    let mut found: Option<Vec<Found>> = None;
    for _ in 0..n_losses {
        let mounted = bench.mount();
        if let Some(found) = found {
            bench.work.adopt(mounted.directory(), &found);
        }
        let n_steps = N_STEPS_MIN + bench.random.below(N_STEPS_MAX - N_STEPS_MIN);
        let on = mounted.directory().to_path_buf();
        let (image, histories) =
            bench.work.during(&bench.store, &on, Tolerance::NONE, |progress| {
                progress.wait(n_steps);
                bench.work.forget_before_synced();
                let image = bench.disk().lose_power();
                let histories = bench.work.histories();
                progress.end();
                mounted.kill();
                (image, histories)
            });
        // Another half of the same moment, in a copy.
        if bench.random.one_of(4) {
            let left = bench.left(&image);
            bench.check_copy(left, &histories);
        }
        let left = bench.left(&image);
        found = Some(bench.restart(left, &histories));
        if bench.random.one_of(2) {
            bench.store.go_on();
        }
    }
}

#[test]
fn a_loss_of_power_takes_nothing_that_was_synced() {
    on_stores(8, 1, lose_power);
}
