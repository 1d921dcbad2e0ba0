//! Frames that were read ahead, and that no reader has come to yet.
//!
//! They have room of their own, so that what was read and used does not push out what is about to
//! be: a frame leaves when it is taken. When the room is used up nothing more is read ahead, for
//! any reader; only what has been there for so long that its reader must have gone elsewhere makes
//! way.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// After so long a reader does not come any more.
const STALE: Duration = Duration::from_secs(10);

/// Frames as they are stored, or room for them.
pub(crate) struct AheadFrames<K, V> {
    frames: HashMap<K, Ahead<V>>,
    bytes: usize,
    bytes_max: usize,
}

struct Ahead<V> {
    /// None while it is read.
    frame: Option<V>,
    bytes: usize,
    since: Instant,
}

impl<K: Copy + Eq + Hash, V> AheadFrames<K, V> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { frames: HashMap::new(), bytes: 0, bytes_max }
    }

    /// Whether it is there, or being read.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.frames.contains_key(key)
    }

    /// Sets room apart for a frame. Whether there is some.
    pub(crate) fn begin(&mut self, key: K, bytes: usize, now: Instant) -> bool {
        if bytes > self.bytes_max {
            return false;
        }
        while self.bytes + bytes > self.bytes_max {
            // What is being read is not waited for by a reader yet.
            let is_stale = |ahead: &Ahead<V>| {
                ahead.frame.is_some() && now.duration_since(ahead.since) >= STALE
            };
            let stale = self.frames.iter().find(|(_, ahead)| is_stale(ahead));
            let Some(stale) = stale.map(|(key, _)| *key) else { return false };
            self.remove(&stale);
        }
        self.remove(&key);
        self.bytes += bytes;
        self.frames.insert(key, Ahead { frame: None, bytes, since: now });
        true
    }

    /// Puts a frame into its room, if that was not taken back.
    pub(crate) fn fill(&mut self, key: &K, frame: V, now: Instant) {
        if let Some(ahead) = self.frames.get_mut(key) {
            (ahead.frame, ahead.since) = (Some(frame), now);
        }
    }

    /// Takes a frame out, and its room back.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let ahead = self.frames.remove(key)?;
        assert!(ahead.bytes <= self.bytes, "the room is the sum of the frames'");
        self.bytes -= ahead.bytes;
        ahead.frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_not_pushed_out() {
        let now = Instant::now();
        let mut ahead = AheadFrames::new(10);
        assert!(ahead.begin(1, 6, now) && ahead.begin(2, 4, now));
        ahead.fill(&1, "one", now);
        assert!(!ahead.begin(3, 1, now), "all of the room is used");
        assert_eq!(ahead.remove(&1), Some("one"));
        assert!(ahead.begin(3, 6, now));
        assert_eq!((ahead.remove(&2), ahead.remove(&1)), (None, None), "not read yet, and gone");
    }

    #[test]
    fn what_no_reader_comes_to_makes_way() {
        let now = Instant::now();
        let mut ahead = AheadFrames::new(10);
        assert!(ahead.begin(1, 10, now));
        let later = now + STALE;
        assert!(!ahead.begin(2, 5, later), "it is being read, however long that takes");
        ahead.fill(&1, "one", later);
        assert!(!ahead.begin(2, 5, later), "its reader may come any moment");
        let last = later + STALE;
        assert!(ahead.begin(2, 5, last) && ahead.begin(3, 5, last));
        assert!(!ahead.contains(&1), "its room was taken back");
        assert!(!ahead.begin(4, 11, last + STALE), "it is larger than all of the room");
        assert!(ahead.contains(&2), "and nothing goes for it");
    }
}
