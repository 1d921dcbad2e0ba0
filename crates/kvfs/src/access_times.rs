//! Access times that reads imply, kept in memory until they are written (`ops::access`).

use std::collections::HashMap;

use parking_lot::Mutex;
use tier_types::{Ino, Timestamp};

/// Times that are kept. A read that comes when there are so many goes without.
const N_KEPT_MAX: usize = 1 << 16;

/// Access times that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct AccessTimes(Mutex<HashMap<Ino, Timestamp>>);

impl AccessTimes {
    pub(crate) fn note(&self, ino: Ino, time: Timestamp) {
        let mut kept = self.0.lock();
        if kept.len() < N_KEPT_MAX || kept.contains_key(&ino) {
            kept.insert(ino, time);
        }
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<Timestamp> {
        self.0.lock().get(&ino).copied()
    }

    /// A program has set it.
    pub(crate) fn forget(&self, ino: Ino) {
        self.0.lock().remove(&ino);
    }

    pub(crate) fn all(&self) -> Vec<(Ino, Timestamp)> {
        self.0.lock().iter().map(|(ino, time)| (*ino, *time)).collect()
    }

    /// These are written; those that were noted anew meanwhile are not.
    pub(crate) fn written(&self, times: &[(Ino, Timestamp)]) {
        let mut kept = self.0.lock();
        for (ino, time) in times {
            if kept.get(ino) == Some(time) {
                kept.remove(ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_anew_is_not_written_and_too_many_are_not_kept() {
        let times = AccessTimes::default();
        let time = |seconds| Timestamp { seconds, nanos: 0 };
        for number in 0..=N_KEPT_MAX {
            times.note(Ino::new(tier_types::to_u64(number) + 1), time(1));
        }
        let mut before = times.all();
        assert_eq!(before.len(), N_KEPT_MAX);
        before.truncate(10);
        let (again, set) = (before[0].0, before[1].0);
        times.note(again, time(2));
        times.forget(set);
        times.written(&before);
        assert_eq!(times.all().len(), N_KEPT_MAX - 9);
        assert_eq!((times.get(again), times.get(set)), (Some(time(2)), None));
    }
}
