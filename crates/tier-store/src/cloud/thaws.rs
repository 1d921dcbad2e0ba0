//! Frozen objects that were asked for, and a cloud that knows of them.
//!
//! Thawing takes hours and costs money, so that what was asked for is written down: a later process
//! can say which files are on their way. While an object is being thawed its cloud is asked for it
//! now and then only; what is read meanwhile is refused at once.
//!
//! The file has a line for each object: when it was asked for (seconds of Unix time), how long that
//! takes at most (seconds), its name, and the URL of its cloud: another one may have it as well.
//! What cannot be read of it is asked for again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_types::{
    Call, Clock, ObjectName, ObjectStore, PortError, RangeRead, StoreLayer, with_causes,
};

use crate::durable;

/// The cloud is asked for an object that is being thawed so often at most, and at least once in
/// such a part of the time that it takes.
const LOOK_INTERVAL_MAX: Duration = Duration::from_mins(5);
const N_LOOKS: u32 = 60;

/// What was asked for.
pub(crate) struct Thaws {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// `None` until the file was read.
    asked: Mutex<Option<Book>>,
    /// Held while the file is written. Readers do not wait for that.
    writing: Mutex<()>,
}

/// By name, and by the URL of the cloud.
type Book = BTreeMap<(ObjectName, String), Asked>;

#[derive(Clone, Copy)]
struct Asked {
    /// Seconds of Unix time.
    at: i64,
    within: Duration,
    /// Until then the cloud is not asked for it. `None` in a process that has not asked yet.
    looked_until: Option<Instant>,
}

impl Asked {
    fn left(&self, now: i64) -> Duration {
        let passed = u64::try_from(now.saturating_sub(self.at)).unwrap_or(0);
        self.within.saturating_sub(Duration::from_secs(passed))
    }

    /// Whether it may have come, gone unread, and be frozen again.
    fn is_over(&self, now: i64) -> bool {
        self.left(now).is_zero()
    }
}

fn parse(line: &str) -> Option<((ObjectName, String), Asked)> {
    let mut words = line.splitn(4, ' ');
    let at = words.next()?.parse().ok()?;
    let within = Duration::from_secs(words.next()?.parse().ok()?);
    let (name, url) = (ObjectName::new(words.next()?)?, words.next()?.to_owned());
    Some(((name, url), Asked { at, within, looked_until: None }))
}

impl Thaws {
    /// The book in a file, which need not be there, and is read when it is first needed.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { path: path.to_path_buf(), clock, asked: Mutex::default(), writing: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Book, i64) -> T) -> T {
        let mut asked = self.asked.lock();
        let asked = asked.get_or_insert_with(|| {
            let text = fs::read_to_string(&self.path).unwrap_or_else(|error| {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!("what is being thawed cannot be read: {error}");
                }
                String::new()
            });
            text.lines().filter_map(parse).collect()
        });
        work(asked, self.clock.now().seconds)
    }

    /// How long an object still takes of which the cloud need not be asked now.
    fn refused(&self, object: &(ObjectName, String)) -> Option<Duration> {
        self.with(|asked, now| {
            let one = asked.get(object)?;
            one.looked_until.filter(|until| *until > Instant::now()).map(|_| one.left(now))
        })
    }

    /// Notes that an object was asked for, which takes so long.
    fn note(&self, object: (ObjectName, String), within: Duration) {
        let is_new = self.with(|asked, now| {
            let looked_until = Some(Instant::now() + (within / N_LOOKS).min(LOOK_INTERVAL_MAX));
            let known = asked.get_mut(&object).filter(|one| !one.is_over(now));
            if let Some(one) = known {
                one.looked_until = looked_until;
                return false;
            }
            asked.retain(|_, one| !one.is_over(now));
            asked.insert(object, Asked { at: now, within, looked_until });
            true
        });
        if is_new {
            self.write();
        }
    }

    /// Notes that an object can be read.
    fn forget(&self, object: &(ObjectName, String)) {
        if self.with(|asked, _| asked.remove(object)).is_some() {
            self.write();
        }
    }

    /// Objects that are on their way.
    pub(crate) fn thawing(&self) -> Vec<ObjectName> {
        self.with(|asked, now| {
            let under_way = asked.iter().filter(|(_, one)| !one.is_over(now));
            under_way.map(|((name, _), _)| name.clone()).collect()
        })
    }

    /// What is not written down is asked for again, which is no reason to fail.
    fn write(&self) {
        // Taken before the book is looked at: an older state never replaces a newer one.
        let _writing = self.writing.lock();
        let text: String = self.with(|asked, _| {
            let lines = asked.iter().map(|((name, url), one)| {
                format!("{} {} {name} {url}\n", one.at, one.within.as_secs())
            });
            lines.collect()
        });
        if let Err(error) = durable::replace(&self.path, text.as_bytes()) {
            tracing::warn!("what is being thawed is not written down: {}", with_causes(&error));
        }
    }
}

/// Objects of a cloud, with what is known of those that are being thawed.
pub(crate) struct ThawingCloud {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) thaws: Arc<Thaws>,
}

impl ThawingCloud {
    fn read(
        &self,
        name: &ObjectName,
        read: impl FnOnce() -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let object = (name.clone(), self.inner.url());
        if let Some(left) = self.thaws.refused(&object) {
            return Err(PortError::frozen(name, left));
        }
        read()?;
        self.thaws.forget(&object);
        Ok(())
    }
}

impl StoreLayer for ThawingCloud {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        self.read(name, || self.inner.read_ranges(call, name, ranges))
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        self.read(name, || self.inner.stream(call, name, offset_bytes, take))
    }

    fn thaw(&self, call: &Call<'_>, name: &ObjectName) -> Result<Option<Duration>, PortError> {
        let Some(within) = self.inner.thaw(call, name)? else { return Ok(None) };
        tracing::info!(%name, ?within, "an object is being thawed");
        let object = (name.clone(), self.inner.url());
        self.thaws.note(object.clone(), within);
        // It may have been asked for before.
        Ok(Some(self.thaws.refused(&object).unwrap_or(within)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tier_testkit::{MemoryStore, VirtualClock};
    use tier_types::ErrorKind;

    use super::*;

    const CALL: Call<'static> = Call::bulk();
    const HOURS: Duration = Duration::from_hours(5);

    /// A store with frozen objects.
    #[derive(Default)]
    struct Frozen {
        objects: MemoryStore,
        n_thaws: AtomicU64,
        n_reads: AtomicU64,
        is_thawed: AtomicU64,
    }

    impl StoreLayer for Frozen {
        fn inner(&self) -> &dyn ObjectStore {
            &self.objects
        }

        fn read_ranges(
            &self,
            call: &Call<'_>,
            name: &ObjectName,
            ranges: &mut [RangeRead<'_>],
        ) -> Result<(), PortError> {
            self.n_reads.fetch_add(1, Ordering::Relaxed);
            if self.is_thawed.load(Ordering::Relaxed) == 0 {
                return Err(PortError::new(ErrorKind::Frozen { within: None }, "frozen"));
            }
            self.objects.read_ranges(call, name, ranges)
        }

        fn thaw(&self, _: &Call<'_>, _: &ObjectName) -> Result<Option<Duration>, PortError> {
            self.n_thaws.fetch_add(1, Ordering::Relaxed);
            Ok(Some(HOURS))
        }
    }

    #[test]
    fn what_is_read_is_asked_for_once_and_refused_until_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thaws");
        let clock = Arc::new(VirtualClock::at(1_000_000));
        let store = Arc::new(Frozen::default());
        let name = ObjectName::new("a").unwrap();
        ObjectStore::put(store.as_ref(), &CALL, &name, &&b"x"[..]).unwrap();
        let open = || {
            let thaws = Arc::new(Thaws::open(&path, clock.clone()));
            ThawingCloud { inner: store.clone(), thaws }
        };
        let read = |cloud: &ThawingCloud| {
            let read = ObjectStore::read_range(cloud, &CALL, &name, 0, &mut [0]);
            // As a reader does that finds it nowhere else.
            read.map_err(|error| {
                let ErrorKind::Frozen { within } = error.kind() else { panic!("{error}") };
                within.or_else(|| ObjectStore::thaw(cloud, &CALL, &name).unwrap())
            })
        };
        let counts = || [&store.n_reads, &store.n_thaws].map(|count| count.load(Ordering::Relaxed));
        let cloud = open();
        assert_eq!(cloud.thaws.thawing(), []);
        for _ in 0..3 {
            assert_eq!(read(&cloud), Err(Some(HOURS)));
        }
        assert_eq!(counts(), [1, 1]);
        assert_eq!(cloud.thaws.thawing(), std::slice::from_ref(&name));
        // Another process looks, and asks the store, which knows that it was asked.
        let cloud = open();
        assert_eq!(cloud.thaws.thawing(), std::slice::from_ref(&name));
        store.is_thawed.store(1, Ordering::Relaxed);
        assert_eq!(read(&cloud), Ok(()));
        assert_eq!(cloud.thaws.thawing(), []);
        assert_eq!(counts(), [2, 1]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn what_takes_longer_than_it_should_is_not_on_its_way_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thaws");
        let clock = Arc::new(VirtualClock::at(1_000_000));
        fs::write(&path, "torn\n999000 3600 a s3://b\n900000 3600 b s3://b\n1 2\n5 -5 c s3://b\n")
            .unwrap();
        let thaws = Thaws::open(&path, clock);
        let [a, b] = ["a", "b"].map(|name| ObjectName::new(name).unwrap());
        assert_eq!(thaws.thawing(), std::slice::from_ref(&a));
        // Asked for anew, it is on its way again; what is over is struck out.
        thaws.note((b.clone(), "s3://b".into()), HOURS);
        assert_eq!(thaws.thawing(), [a.clone(), b.clone()]);
        assert_eq!(thaws.refused(&(b.clone(), "s3://b".into())), Some(HOURS));
        assert_eq!(thaws.refused(&(b, "s3://other".into())), None, "another copy may be at hand");
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
