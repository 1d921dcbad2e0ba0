//! A cache of what was used last, up to a total cost.
//!
//! It holds few and large entries (decompressed frames, open tarballs), so that looking for the
//! least recently used one costs less than keeping a list of them in order. The entry that was put
//! in last always stays, whatever it costs: it is in use.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Keeps what was used last.
pub(crate) struct Cache<K, V> {
    entries: HashMap<K, Cached<V>>,
    /// The sum of all entries' costs.
    cost: usize,
    cost_max: usize,
    /// Counts uses.
    tick: u64,
}

struct Cached<V> {
    value: Arc<V>,
    cost: usize,
    last_used: u64,
}

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    pub(crate) fn new(cost_max: usize) -> Self {
        Self { entries: HashMap::new(), cost: 0, cost_max, tick: 0 }
    }

    /// The value, which is now the one that was used last.
    pub(crate) fn get(&mut self, key: &K) -> Option<Arc<V>> {
        self.tick += 1;
        let cached = self.entries.get_mut(key)?;
        cached.last_used = self.tick;
        Some(Arc::clone(&cached.value))
    }

    /// Puts a value in, and takes out as many of the others as it costs.
    pub(crate) fn insert(&mut self, key: K, value: &Arc<V>, cost: usize) {
        self.tick += 1;
        // The same key may come with another value: the start of a frame, and later all of it.
        self.remove(&key);
        self.cost += cost;
        let cached = Cached { value: Arc::clone(value), cost, last_used: self.tick };
        self.entries.insert(key, cached);
        while self.cost > self.cost_max && self.entries.len() > 1 {
            // Linear, in a map of some dozen entries, and only when one was read.
            let by_use = self.entries.iter().min_by_key(|(_, cached)| cached.last_used);
            let Some(oldest) = by_use.map(|(key, _)| *key) else { break };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(old) = self.entries.remove(key) {
            assert!(old.cost <= self.cost, "the cost is the sum of the entries' costs");
            self.cost -= old.cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(cache: &mut Cache<u8, u8>, key: u8, cost: usize) {
        cache.insert(key, &Arc::new(key), cost);
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut cache = Cache::new(3);
        (1..=3).for_each(|key| put(&mut cache, key, 1));
        assert!(cache.get(&1).is_some());
        put(&mut cache, 4, 1);
        let kept: Vec<_> = (1..=4).filter(|key| cache.get(key).is_some()).collect();
        assert_eq!(kept, [1, 3, 4]);
    }

    #[test]
    fn an_entry_that_is_too_large_stays_until_the_next() {
        let mut cache = Cache::new(3);
        put(&mut cache, 1, 1);
        put(&mut cache, 2, 100);
        assert!(cache.get(&1).is_none() && cache.get(&2).is_some());
        put(&mut cache, 3, 1);
        assert!(cache.get(&2).is_none() && cache.get(&3).is_some());
    }

    proptest! {
        #[test]
        fn the_cost_is_bounded(puts in prop::collection::vec((0_u8..8, 0_usize..40), 1..60)) {
            let mut cache = Cache::new(100);
            for (key, cost) in puts {
                put(&mut cache, key, cost);
                prop_assert!(cache.get(&key).is_some(), "the last one stays");
                let sum: usize = cache.entries.values().map(|cached| cached.cost).sum();
                prop_assert_eq!(sum, cache.cost);
                prop_assert!(sum <= 100);
            }
        }
    }
}
