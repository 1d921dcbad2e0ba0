//! Frozen objects that were asked for, and a cloud that asks for them when they are read.
//!
//! Thawing takes hours and costs money, so that what was asked for is written down: a later process
//! does not ask again, and can say which files are on their way. While an object is being thawed
//! the cloud is asked for it now and then only; what is read meanwhile is refused at once.
//!
//! The file has a line for each object: when it was asked for (seconds of Unix time), how long that
//! takes at most (seconds), and its name. What cannot be read of it is asked for again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_types::{
    Call, Clock, ErrorKind, ObjectName, ObjectStore, PortError, RangeRead, StoreLayer, with_causes,
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
    asked: Mutex<Option<BTreeMap<ObjectName, Asked>>>,
}

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
        let passed = u64::try_from(now - self.at).unwrap_or(0);
        self.within.saturating_sub(Duration::from_secs(passed))
    }
}

fn parse(line: &str) -> Option<(ObjectName, Asked)> {
    let mut words = line.splitn(3, ' ');
    let at = words.next()?.parse().ok()?;
    let within = Duration::from_secs(words.next()?.parse().ok()?);
    Some((ObjectName::new(words.next()?)?, Asked { at, within, looked_until: None }))
}

impl Thaws {
    /// The book in a file, which need not be there, and is read when it is first needed.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { path: path.to_path_buf(), clock, asked: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<ObjectName, Asked>, i64) -> T) -> T {
        let mut asked = self.asked.lock();
        let asked = asked.get_or_insert_with(|| {
            let text = fs::read_to_string(&self.path).unwrap_or_default();
            text.lines().filter_map(parse).collect()
        });
        work(asked, self.clock.now().seconds)
    }

    /// How long an object still takes of which the cloud need not be asked now.
    fn refused(&self, name: &ObjectName) -> Option<Duration> {
        self.with(|asked, now| {
            let one = asked.get(name)?;
            one.looked_until.filter(|until| *until > Instant::now()).map(|_| one.left(now))
        })
    }

    /// Notes that objects were asked for, each with how long that takes.
    pub(crate) fn note(&self, names: impl IntoIterator<Item = (ObjectName, Duration)>) {
        self.with(|asked, now| {
            let mut is_new = false;
            for (name, within) in names {
                let until = Instant::now() + (within / N_LOOKS).min(LOOK_INTERVAL_MAX);
                let one = asked.entry(name).or_insert_with(|| {
                    is_new = true;
                    Asked { at: now, within, looked_until: None }
                });
                one.looked_until = Some(until);
            }
            if is_new {
                self.write(asked);
            }
        });
    }

    /// Notes that an object can be read.
    fn forget(&self, name: &ObjectName) {
        self.with(|asked, _| {
            if asked.remove(name).is_some() {
                self.write(asked);
            }
        });
    }

    /// Objects that are on their way.
    pub(crate) fn thawing(&self) -> Vec<ObjectName> {
        self.with(|asked, now| {
            let under_way = asked.iter().filter(|(_, one)| !one.left(now).is_zero());
            under_way.map(|(name, _)| name.clone()).collect()
        })
    }

    /// What is not written down is asked for again, which is no reason to fail.
    fn write(&self, asked: &BTreeMap<ObjectName, Asked>) {
        let lines =
            asked.iter().map(|(name, one)| format!("{} {} {name}\n", one.at, one.within.as_secs()));
        let text: String = lines.collect();
        if let Err(error) = durable::replace(&self.path, text.as_bytes()) {
            tracing::warn!("what is being thawed is not written down: {}", with_causes(&error));
        }
    }
}

/// Objects of a cloud, of which frozen ones are thawed when they are read.
pub(crate) struct ThawingCloud {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) thaws: Arc<Thaws>,
}

fn frozen(name: &ObjectName, left: Duration) -> PortError {
    let hours = left.as_secs().div_ceil(3600);
    let message = format!(
        "{name} is frozen in the cloud and being thawed, which takes up to {hours} h more: read it \
         again then"
    );
    PortError::new(ErrorKind::Frozen { within: Some(left) }, message)
}

impl ThawingCloud {
    fn read<T>(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        read: impl FnOnce() -> Result<T, PortError>,
    ) -> Result<T, PortError> {
        if let Some(left) = self.thaws.refused(name) {
            return Err(frozen(name, left));
        }
        match read() {
            Err(error) if matches!(error.kind(), ErrorKind::Frozen { .. }) => {
                // Thawed between the two, it can be read next time.
                let within = self.inner.thaw(call, name)?.unwrap_or_default();
                tracing::info!(%name, ?within, "an object is being thawed");
                self.thaws.note([(name.clone(), within)]);
                Err(frozen(name, self.thaws.refused(name).unwrap_or(within)))
            }
            read => {
                if read.is_ok() {
                    self.thaws.forget(name);
                }
                read
            }
        }
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
        self.read(call, name, || self.inner.read_ranges(call, name, ranges))
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        self.read(call, name, || self.inner.stream(call, name, offset_bytes, take))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tier_testkit::{MemoryStore, VirtualClock};

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
            ObjectStore::read_range(cloud, &CALL, &name, 0, &mut [0]).map_err(|e| e.kind())
        };
        let counts = || [&store.n_reads, &store.n_thaws].map(|count| count.load(Ordering::Relaxed));
        let cloud = open();
        assert_eq!(cloud.thaws.thawing(), []);
        for _ in 0..3 {
            assert_eq!(read(&cloud), Err(ErrorKind::Frozen { within: Some(HOURS) }));
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
        fs::write(&path, "torn\n999000 3600 a\n900000 3600 b\n1 2\n5 -5 c\n").unwrap();
        let thaws = Thaws::open(&path, clock);
        assert_eq!(thaws.thawing(), [ObjectName::new("a").unwrap()]);
    }
}
