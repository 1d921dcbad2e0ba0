//! Which KVS snapshots live, so that nothing is given back that one of them can see.
//!
//! Snapshots are numbered as they are taken, each before RocksDB takes it. A row that went in a
//! batch that was written before the number `n` was given out is in no snapshot from `n` on. So
//! what was freed until a moment can be given back when every snapshot that lives has a number from
//! that moment on.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The snapshots that live.
#[derive(Debug, Default)]
pub(in crate::store) struct Pins(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    live: BTreeSet<u64>,
}

/// Stands for one snapshot.
#[derive(Debug)]
pub(in crate::store) struct Pin {
    pins: Arc<Pins>,
    number: u64,
}

impl Pins {
    /// To be called before the snapshot is taken.
    pub(in crate::store) fn pin(self: &Arc<Self>) -> Pin {
        let mut numbers = self.0.lock();
        let number = numbers.next;
        numbers.next += 1;
        numbers.live.insert(number);
        Pin { pins: Arc::clone(self), number }
    }

    /// The number of the next snapshot: what was written before is in it.
    pub(in crate::store) fn next(&self) -> u64 {
        self.0.lock().next
    }

    /// Whether a snapshot lives that was taken before the one with this number.
    pub(in crate::store) fn has_before(&self, number: u64) -> bool {
        self.0.lock().live.first().is_some_and(|first| *first < number)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let was_live = self.pins.0.lock().live.remove(&self.number);
        assert!(was_live, "a snapshot ends once");
    }
}
