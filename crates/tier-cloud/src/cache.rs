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
//!
//! The disk below is this machine's own. What it cannot read of an object is as bad as what it
//! reads wrongly, and stays so: the object is damaged, and the caller goes on to another copy of
//! it, or writes it again. Of a directory elsewhere, which may be whole the next time, the same
//! error says nothing of an object.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::io::Errno;
use tier_types::{
    CacheStore, Call, Dropped, ErrorKind, ObjectMetadata, ObjectName, ObjectStore, PortError,
    RangeRead, StagedObject, StagingStore, StoreLayer,
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

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        self.store.metadata(call, name).map_err(|error| damaged_if_unreadable(name, error))
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        self.store
            .read_ranges(call, name, ranges)
            .map_err(|error| damaged_if_unreadable(name, error))
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let mut is_taken = true;
        let streamed = self.store.stream(call, name, offset_bytes, &mut |piece| {
            let taken = take(piece);
            is_taken = taken.is_ok();
            taken
        });
        // What takes the bytes has a disk, or a cloud, of its own.
        streamed.map_err(|error| if is_taken { damaged_if_unreadable(name, error) } else { error })
    }
}

/// An error of the disk below, if it says that the disk, or the filesystem on it, has lost what it
/// was asked for.
fn damaged_if_unreadable(name: &ObjectName, error: PortError) -> PortError {
    // A filesystem that checks sums tells damage of its own by the latter two.
    const UNREADABLE: [Errno; 3] = [Errno::IO, Errno::UCLEAN, Errno::BADMSG];
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let errno = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    if !errno.filter_map(Errno::from_io_error).any(|errno| UNREADABLE.contains(&errno)) {
        return error;
    }
    let problem = "the disk of the store cannot read it; see what the kernel says of the disk";
    PortError::new(ErrorKind::Damaged, format!("local object {name}: {problem}")).with_source(error)
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

    /// A disk of which one file cannot be read.
    struct BadSector(MemoryStore, Errno);

    impl BadSector {
        fn error(&self) -> PortError {
            PortError::new(ErrorKind::Failed, "cannot read").with_source(io::Error::from(self.1))
        }
    }

    impl StoreLayer for BadSector {
        fn inner(&self) -> &dyn ObjectStore {
            &self.0
        }

        fn metadata(&self, _: &Call<'_>, _: &ObjectName) -> Result<ObjectMetadata, PortError> {
            Err(self.error())
        }

        fn read_ranges(
            &self,
            _: &Call<'_>,
            _: &ObjectName,
            _: &mut [RangeRead<'_>],
        ) -> Result<(), PortError> {
            Err(self.error())
        }

        fn stream(
            &self,
            _: &Call<'_>,
            _: &ObjectName,
            _: u64,
            take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
        ) -> Result<(), PortError> {
            take(&[7])?;
            Err(self.error())
        }
    }

    impl StagingStore for BadSector {
        fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
            self.0.stage(name)
        }

        fn discard_staged(&self) -> Result<(), PortError> {
            self.0.discard_staged()
        }
    }

    #[test]
    fn what_the_disk_cannot_read_is_damaged() {
        let kinds = [
            (Errno::IO, ErrorKind::Damaged),
            (Errno::UCLEAN, ErrorKind::Damaged),
            (Errno::BADMSG, ErrorKind::Damaged),
            (Errno::MFILE, ErrorKind::Failed),
        ];
        for (errno, kind) in kinds {
            let store = BadSector(MemoryStore::default(), errno);
            let cache = ObjectCache::new(Arc::new(store), 0);
            let read = |take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>| {
                ObjectStore::stream(&cache, &Call::bulk(), &name("a"), 0, take).unwrap_err()
            };
            assert_eq!(read(&mut |_| Ok(())).kind(), kind, "{errno}");
            let ranges = cache.read_range(&Call::bulk(), &name("a"), 0, &mut [0]).unwrap_err();
            assert_eq!(ranges.kind(), kind, "{errno}");
            let metadata = ObjectStore::metadata(&cache, &Call::bulk(), &name("a")).unwrap_err();
            assert_eq!(metadata.kind(), kind, "{errno}");
            let of_taker = read(&mut |_| {
                let error = io::Error::from(errno);
                Err(PortError::new(ErrorKind::Failed, "cannot write").with_source(error))
            });
            assert_eq!(of_taker.kind(), ErrorKind::Failed, "{errno} of what takes the bytes");
        }
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
