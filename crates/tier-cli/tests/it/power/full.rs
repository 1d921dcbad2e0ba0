//! A disk that another program fills, to the last byte or nearly.

use super::{Bench, on_stores};
use crate::work::{Progress, Tolerance};

const ENOSPC: i32 = 28;
/// What the other program gives back.
const GIVEN_BACK_BYTES: u64 = 100 << 20;
/// Nothing else goes wrong. A snapshot finds no room for its tarballs.
const FULL: Tolerance = Tolerance { of_steps: &[ENOSPC], of_commands: &[0, 1] };

fn fill(bench: &mut Bench, n_times: u64) {
    let mounted = bench.mount();
    let on = mounted.directory().to_path_buf();
    for _ in 0..n_times {
        // To the last byte, but for some blocks, or nearly.
        let free_bytes = bench.random.below(3) * bench.random.below(1 << 20);
        let n_steps = bench.random.below(100);
        let n_errors = 1 + bench.random.below(60);
        let (image, histories) = bench.work.during(&bench.store, &on, FULL, |progress| {
            progress.wait(n_steps);
            bench.disk().leave_free(free_bytes);
            progress.wait_for_errors(n_errors);
            bench.work.forget_before_synced();
            let image = bench.disk().lose_power();
            let histories = bench.work.histories();
            goes_on(bench, progress);
            (image, histories)
        });
        let left = bench.left(&image);
        bench.check_copy(left, &histories);
    }
    mounted.unmount();
    bench.work.writers.iter().for_each(|writer| writer.history.lock().forget_before_reached());
    bench.store.check(&bench.path("out"), &bench.work.writers, &bench.work.histories());
    bench.store.go_on();
}

/// Without a restart, and whatever the disk was too full for.
fn goes_on(bench: &Bench, progress: &Progress<'_>) {
    bench.disk().leave_free(GIVEN_BACK_BYTES);
    while !progress.goes_on(3) {}
}

#[test]
fn a_full_disk_costs_errors_and_nothing_else() {
    on_stores(3, 10, fill);
}
