//! Syncs that fail: the disk keeps what was written and not synced, or forgets it.

use super::{Bench, on_stores};
use crate::fragile_disk::FailedSync;
use crate::work::Tolerance;

const EIO: i32 = 5;
/// What is left to fail when the disk is well again is not waited for: a store that has given up
/// syncs nothing any more.
const N_FAILING_SYNCS_MAX: u64 = 4;
const FAILING: Tolerance = Tolerance { of_steps: &[EIO], of_commands: &[0, 1, 3] };

fn fail_syncs(bench: &mut Bench, n_times: u64) {
    let mut mounted = bench.mount();
    for _ in 0..n_times {
        let on = mounted.directory().to_path_buf();
        let n_steps = bench.random.below(100);
        let n_syncs = 1 + bench.random.below(N_FAILING_SYNCS_MAX);
        let failed_sync =
            if bench.random.one_of(2) { FailedSync::Keeps } else { FailedSync::Forgets };
        let (goes_on, image, histories) =
            bench.work.during(&bench.store, &on, FAILING, |progress| {
                progress.wait(n_steps);
                let n_failed = bench.disk().n_failed_syncs();
                bench.disk().fail_syncs(n_syncs, failed_sync);
                while bench.disk().n_failed_syncs() == n_failed {
                    progress.wait(1);
                }
                bench.disk().fail_syncs(0, failed_sync);
                let goes_on = progress.goes_on(3);
                bench.work.forget_before_synced();
                (goes_on, bench.disk().lose_power(), bench.work.histories())
            });
        let mark = bench.store.path().join("kvs").join("compaction-is-off");
        assert!(!mark.exists(), "a disk that fails to sync is taken for one that damages blocks");
        let left = bench.left(&image);
        if goes_on && bench.random.one_of(2) {
            bench.check_copy(left, &histories);
            continue;
        }
        let said = mounted.kill();
        let texts = ["must be opened again", "open the store again"];
        let is_said = texts.iter().any(|text| said.contains(text));
        assert!(goes_on || is_said, "it ended without a word:\n{said}");
        let found = bench.restart(left, &histories);
        mounted = bench.mount();
        bench.work.adopt(mounted.directory(), &found);
    }
    mounted.unmount();
    bench.store.go_on();
}

#[test]
fn a_sync_that_fails_takes_nothing_that_another_one_covered() {
    on_stores(4, 5, fail_syncs);
}
