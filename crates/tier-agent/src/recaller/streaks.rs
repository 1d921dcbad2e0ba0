//! Streaks: readers that go through a tarball in order, and what is read ahead for them.
//!
//! Frames of a large file lie behind each other in a tarball, and so do those of the small files of
//! a tree. A reader is known by what it asks for: a frame that lies just behind the last one goes
//! on with a streak. From its second frame on so many are read ahead that the answers of a store
//! that is far away come while the reader is at those before: twice as many as it has read, up to a
//! limit, so that a reader that ends early has not cost more than that. A reader that says that it
//! reads all of a file begins with two.

use std::collections::VecDeque;

use tier_persist::FrameId;
use tier_types::RecallHint;

/// Streaks that are remembered: readers that go on at the same time.
const N_STREAKS_MAX: usize = 64;

/// Frames ahead for each that was read.
const N_AHEAD_OF_ONE: u32 = 2;
/// From one frame of a streak to the next.
const DISTANCE_MAX: u32 = 3;
/// As many as a line of 200 MB in a second carries in a tenth of one, as frames are long usually.
const N_AHEAD_MAX: u32 = 20;

/// The streaks of the moment.
#[derive(Default)]
pub(super) struct Streaks {
    /// The one that went on last comes last.
    recent: VecDeque<Streak>,
}

#[derive(Clone, Copy)]
struct Streak {
    last: FrameId,
    /// How many frames behind the last one were asked for already.
    n_asked: u32,
    /// How many there are to be.
    n_ahead: u32,
}

impl Streaks {
    /// Notes that a reader asks for a frame. Returns those that are to be read ahead now.
    pub(super) fn note(&mut self, frame: FrameId, hint: RecallHint) -> Vec<FrameId> {
        let known = self.recent.iter().enumerate().find_map(|(place, streak)| {
            // A frame or two may hold nothing that the reader wants. At random, many would lie
            // within what is read ahead.
            let n = frame.distance_from(streak.last).filter(|n| *n <= DISTANCE_MAX)?;
            Some((place, n, *streak))
        });
        if let Some((place, ..)) = known {
            self.recent.remove(place);
        }
        let mut streak = match known {
            None => {
                let n_ahead = if hint == RecallHint::Sequential { N_AHEAD_OF_ONE } else { 0 };
                Streak { last: frame, n_asked: 0, n_ahead }
            }
            Some((_, n, streak)) => {
                let n_ahead = match n {
                    0 => streak.n_ahead,
                    _ => (streak.n_ahead + N_AHEAD_OF_ONE).min(N_AHEAD_MAX),
                };
                Streak { last: frame, n_asked: streak.n_asked.saturating_sub(n), n_ahead }
            }
        };
        assert!(streak.n_ahead <= N_AHEAD_MAX, "what is read ahead has room in the cache");
        let ahead = (streak.n_asked + 1..=streak.n_ahead).map(|n| frame.behind(n)).collect();
        streak.n_asked = streak.n_asked.max(streak.n_ahead);
        self.recent.push_back(streak);
        if self.recent.len() > N_STREAKS_MAX {
            self.recent.pop_front();
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use tier_index::TarballId;
    use tier_types::{Epoch, SnapshotId};

    use super::*;

    fn frame(part: u32, number: u32) -> FrameId {
        let (epoch, snapshot) = (Epoch::new(1), SnapshotId::new(1));
        FrameId::new(TarballId { epoch, snapshot, part }, number)
    }

    fn ahead(streaks: &mut Streaks, number: u32) -> Vec<u32> {
        let base = frame(0, 0);
        let wanted = streaks.note(frame(0, number), RecallHint::Unknown);
        wanted.into_iter().map(|frame| frame.distance_from(base).unwrap()).collect()
    }

    #[test]
    fn a_reader_in_order_gets_more_and_more_ahead_each_frame_once() {
        let mut streaks = Streaks::default();
        assert_eq!(ahead(&mut streaks, 3), [], "one frame is no order");
        assert_eq!(ahead(&mut streaks, 4), [5, 6]);
        assert_eq!(ahead(&mut streaks, 4), [], "the same one again");
        assert_eq!(ahead(&mut streaks, 5), [7, 8, 9]);
        assert_eq!(ahead(&mut streaks, 6), [10, 11, 12]);
        assert_eq!(ahead(&mut streaks, 8), [13, 14, 15, 16], "one was passed over");
        for number in 9..100 {
            ahead(&mut streaks, number);
        }
        assert_eq!(ahead(&mut streaks, 100), [120], "no more than the limit");
    }

    #[test]
    fn readers_here_and_there_get_nothing_ahead() {
        let mut streaks = Streaks::default();
        for number in [100, 7, 50, 3, 90, 20] {
            assert_eq!(ahead(&mut streaks, number), []);
        }
    }

    #[test]
    fn several_readers_go_on_side_by_side() {
        let mut streaks = Streaks::default();
        for number in 0..2 {
            let of_others: Vec<_> = (1..5)
                .map(|part| streaks.note(frame(part, number), RecallHint::Unknown).len())
                .collect();
            let n = if number == 0 { 0 } else { 2 };
            assert_eq!(of_others, [n; 4]);
        }
        // Frames of the same number in another tarball are another place.
        assert_eq!(streaks.note(frame(9, 2), RecallHint::Unknown), []);
    }

    #[test]
    fn a_reader_of_all_of_a_file_begins_ahead() {
        let mut streaks = Streaks::default();
        let first = streaks.note(frame(0, 0), RecallHint::Sequential);
        assert_eq!(first, [frame(0, 1), frame(0, 2)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut streaks = Streaks::default();
        for part in 0..1000 {
            streaks.note(frame(part, 0), RecallHint::Unknown);
        }
        assert_eq!(streaks.recent.len(), N_STREAKS_MAX);
    }
}
