//! Reading ahead: many small reads at once, whose results come in order.
//!
//! A store over a network answers each request after a while and many in the same while. Threads
//! take turns: read *n* is with thread *n* modulo their number, so that the results are put in
//! order by asking one thread after the other, and no more than two of each wait.

use std::thread;

use crossbeam_channel::bounded;

use crate::error::PersistError;

const N_AT_ONCE: usize = 8;

/// Reads number 0 to `n` and hands on the results in order. The first error ends it.
pub(crate) fn read_ahead<T: Send>(
    n: usize,
    read: &(dyn Fn(usize) -> Result<T, PersistError> + Sync),
    take: &mut dyn FnMut(T) -> Result<(), PersistError>,
) -> Result<(), PersistError> {
    let n_threads = N_AT_ONCE.min(n);
    thread::scope(|scope| {
        let mut turns = Vec::new();
        for first in 0..n_threads {
            let (done, arrived) = bounded(1);
            turns.push(arrived);
            scope.spawn(move || {
                for number in (first..n).step_by(n_threads) {
                    // Nothing listens any more when an error has ended it.
                    if done.send(read(number)).is_err() {
                        return;
                    }
                }
            });
        }
        let mut in_order = (0..n).zip(turns.iter().cycle());
        in_order.try_for_each(|(_, turn)| take(turn.recv().map_err(|_| PersistError::Pipeline)??))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_ends_it() {
        for n in [0, 1, 7, 8, 9, 100] {
            let mut taken = Vec::new();
            let mut take = |number| {
                taken.push(number);
                Ok(())
            };
            read_ahead(n, &Ok, &mut take).unwrap();
            assert!(taken.iter().copied().eq(0..n));
        }
        let n_reads = AtomicUsize::new(0);
        let read = |number| {
            n_reads.fetch_add(1, Ordering::Relaxed);
            if number == 5 { Err(PersistError::Pipeline) } else { Ok(number) }
        };
        let mut n_taken = 0;
        read_ahead(1000, &read, &mut |_| {
            n_taken += 1;
            Ok(())
        })
        .unwrap_err();
        assert_eq!(n_taken, 5);
        assert!(n_reads.into_inner() < 40, "reading ends soon");
    }
}
