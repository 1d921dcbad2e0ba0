//! The bounded local store: a cache in front of another store, whose objects go when their room is
//! wanted.
//!
//! What is written here stays until the caller says that it is *spare*, because the other store has
//! it whole. Spare objects beyond a number of bytes go at once, the first names first, and all of
//! them when the disk is short of room. Nothing comes in by being read: a reader that misses an
//! object here asks the other store for the ranges that it needs, so that nothing enters that was
//! not written and sealed by this machine.
//!
//! A drop unlinks a file. A reader that has it open reads on; one that opens it later finds it
//! missing and goes to the other store. So no drop waits for a reader, and no reader for a drop.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tier_types::{
    CacheStore, Call, Dropped, ErrorKind, ObjectName, ObjectStore, PortError, StagedObject,
    StagingStore, StoreLayer,
};

/// A local store that keeps no more than so many bytes of what another store has as well.
pub struct ObjectCache {
    store: Arc<dyn StagingStore>,
    bytes_max: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Spare objects, and their bytes.
    spare: BTreeMap<ObjectName, u64>,
    spare_bytes: u64,
    /// Objects that are being copied.
    n_copied: u64,
    /// An object that was spare is being dropped.
    is_dropping: bool,
}

impl std::fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectCache").field("url", &self.store.url()).finish_non_exhaustive()
    }
}

impl ObjectCache {
    /// A cache of the objects of a local store, of which `bytes_max` bytes are kept that are spare.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use tier_cloud::{DirStore, ObjectCache};
    /// use tier_types::{CacheStore, Call, ErrorKind, ObjectName, ObjectStore};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let cache = ObjectCache::new(Arc::new(DirStore::create(dir.path())?), 1000);
    /// let (call, name) = (Call::bulk(), ObjectName::new("a").expect("a name"));
    /// cache.put(&call, &name, &&b"hello"[..])?;
    /// assert_eq!(cache.drop_spare(u64::MAX)?.n_objects, 0, "it may be nowhere else");
    /// cache.spare(&name, 5);
    /// assert_eq!(cache.drop_spare(1)?.bytes, 5);
    /// let missing = cache.read_range(&call, &name, 0, &mut [0; 5]).unwrap_err();
    /// assert_eq!(missing.kind(), ErrorKind::Missing);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(store: Arc<dyn StagingStore>, bytes_max: u64) -> Self {
        Self { store, bytes_max, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Drops until no more than `kept_max` bytes are spare, or `freed_min` were dropped.
    fn drop_until(&self, kept_max: u64, freed_min: u64) -> Result<Dropped, PortError> {
        let mut dropped = Dropped::default();
        // One that cannot be dropped keeps no other one from it: they go in order, once.
        let (mut last, mut failed) = (None, None);
        while dropped.bytes < freed_min {
            let Some(dropping) = self.begin_drop(kept_max, last.as_ref()) else { break };
            let Dropping { name, bytes, .. } = &dropping;
            // Without the lock: a disk may take long to forget a large file.
            match self.drop_one(name) {
                Ok(true) => {
                    tracing::debug!(%name, bytes, "a local copy is dropped");
                    dropped.n_objects += 1;
                    dropped.bytes = dropped.bytes.saturating_add(*bytes);
                }
                // It went before.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%name, "a local copy cannot be dropped: {error}");
                    // It is as spare as before: nothing was kept meanwhile.
                    self.state.lock().insert(name.clone(), *bytes);
                    failed = Some(error);
                }
            }
            last = Some(name.clone());
        }
        match failed {
            Some(error) if dropped.n_objects == 0 => Err(error),
            Some(_) | None => Ok(dropped),
        }
    }

    /// The next object to drop behind one, which no call keeps until it is dropped.
    fn begin_drop(&self, kept_max: u64, last: Option<&ObjectName>) -> Option<Dropping<'_>> {
        let mut state = self.at_rest();
        if kept_max > 0 && state.spare_bytes <= kept_max {
            return None;
        }
        let (name, bytes) = state.pop_behind(last)?;
        state.is_dropping = true;
        Some(Dropping { cache: self, name, bytes })
    }

    /// Whether there was one.
    fn drop_one(&self, name: &ObjectName) -> Result<bool, PortError> {
        match self.store.metadata(&Call::bulk(), name) {
            Err(error) if error.kind() == ErrorKind::Missing => return Ok(false),
            found => found.map(drop)?,
        }
        self.store.delete(&Call::bulk(), name, None)?;
        Ok(true)
    }

    /// The state, when no object is being dropped.
    fn at_rest(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        while state.is_dropping {
            self.changed.wait(&mut state);
        }
        state
    }
}

/// An object that is being dropped; calls that keep objects wait until this ends.
struct Dropping<'a> {
    cache: &'a ObjectCache,
    name: ObjectName,
    bytes: u64,
}

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        self.cache.state.lock().is_dropping = false;
        self.cache.changed.notify_all();
    }
}

impl State {
    fn insert(&mut self, name: ObjectName, bytes: u64) {
        self.remove(&name);
        self.spare.insert(name, bytes);
        self.spare_bytes += bytes;
    }

    fn remove(&mut self, name: &ObjectName) {
        if let Some(bytes) = self.spare.remove(name) {
            self.spare_bytes -= bytes;
        }
    }

    fn pop_behind(&mut self, last: Option<&ObjectName>) -> Option<(ObjectName, u64)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let name = self.spare.range((from, Bound::Unbounded)).next()?.0.clone();
        let bytes = self.spare.remove(&name)?;
        self.spare_bytes -= bytes;
        Some((name, bytes))
    }
}

impl StoreLayer for ObjectCache {
    fn inner(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }
}

impl StagingStore for ObjectCache {
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
        self.store.stage(name)
    }

    fn discard_staged(&self) -> Result<(), PortError> {
        self.store.discard_staged()
    }
}

impl CacheStore for ObjectCache {
    fn copy_begins(&self) {
        self.state.lock().n_copied += 1;
    }

    fn copy_ends(&self) {
        let mut state = self.state.lock();
        assert!(state.n_copied > 0, "only what was begun ends");
        state.n_copied -= 1;
        self.changed.notify_all();
    }

    fn spare(&self, name: &ObjectName, len_bytes: u64) {
        let mut state = self.state.lock();
        state.insert(name.clone(), len_bytes);
        self.changed.notify_all();
    }

    fn keep(&self, name: &ObjectName) {
        self.at_rest().remove(name);
    }

    fn keep_all(&self) {
        let mut state = self.at_rest();
        state.spare.clear();
        state.spare_bytes = 0;
    }

    fn drop_spare(&self, bytes_min: u64) -> Result<Dropped, PortError> {
        self.drop_until(0, bytes_min)
    }

    fn would_drop(&self, bytes_min: u64) -> Dropped {
        let mut dropped = Dropped::default();
        for bytes in self.state.lock().spare.values() {
            if dropped.bytes >= bytes_min {
                break;
            }
            dropped.n_objects += 1;
            dropped.bytes = dropped.bytes.saturating_add(*bytes);
        }
        dropped
    }

    fn drop_excess(&self) -> Result<Dropped, PortError> {
        self.drop_until(self.bytes_max, u64::MAX)
    }

    fn wait_for_spare(&self) -> bool {
        let mut state = self.state.lock();
        while state.spare.is_empty() && state.n_copied > 0 {
            self.changed.wait(&mut state);
        }
        !state.spare.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tier_testkit::MemoryStore;

    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    fn cache(bytes_max: u64) -> ObjectCache {
        let cache = ObjectCache::new(Arc::new(MemoryStore::default()), bytes_max);
        for text in ["a", "b", "c", "d"] {
            ObjectStore::put(&cache, &Call::bulk(), &name(text), &&[7; 10][..]).unwrap();
        }
        cache
    }

    fn names(cache: &ObjectCache) -> Vec<String> {
        let names = cache.names(&Call::bulk(), "").unwrap();
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_goes_that_is_not_spare_and_the_first_names_go_first() {
        let cache = cache(15);
        assert_eq!(cache.drop_excess().unwrap(), Dropped::default());
        for text in ["d", "b", "a"] {
            cache.spare(&name(text), 10);
            cache.spare(&name(text), 10);
        }
        let all = Dropped { n_objects: 3, bytes: 30 };
        assert_eq!(cache.would_drop(u64::MAX), all, "said twice, it counts once");
        assert_eq!(cache.would_drop(11), Dropped { n_objects: 2, bytes: 20 });
        assert_eq!(cache.drop_excess().unwrap(), Dropped { n_objects: 2, bytes: 20 });
        assert_eq!(names(&cache), ["c", "d"]);
        assert_eq!(cache.drop_spare(1).unwrap(), Dropped { n_objects: 1, bytes: 10 });
        assert_eq!(cache.drop_spare(u64::MAX).unwrap(), Dropped::default());
        assert_eq!(names(&cache), ["c"]);
    }

    #[test]
    fn what_is_taken_back_is_kept() {
        let cache = cache(0);
        cache.spare(&name("a"), 10);
        cache.keep(&name("a"));
        cache.keep(&name("b"));
        assert_eq!(cache.would_drop(u64::MAX), Dropped::default());
        cache.spare(&name("a"), 10);
        cache.keep_all();
        assert_eq!(cache.drop_spare(u64::MAX).unwrap(), Dropped::default());
        assert_eq!(names(&cache).len(), 4);
    }

    #[test]
    fn a_writer_waits_for_what_is_being_copied_and_for_nothing_else() {
        let cache = cache(0);
        assert!(!cache.wait_for_spare(), "nothing will come");
        for is_copied in [true, false] {
            cache.keep_all();
            cache.copy_begins();
            thread::scope(|scope| {
                let waiter = scope.spawn(|| cache.wait_for_spare());
                if is_copied {
                    cache.spare(&name("a"), 10);
                }
                cache.copy_ends();
                assert_eq!(waiter.join().unwrap(), is_copied);
            });
        }
    }
}
