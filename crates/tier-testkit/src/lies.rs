//! A store that lies: what networks, proxies and stores do to answers, drawn by chance.
//!
//! Which call is answered wrongly, and how, follows from a seed, the object and how often it was
//! asked for, and not from the order in which threads come: a run that failed can be repeated. What
//! a lie leaves in the store below is what a real one would: a put whose answer was lost is there,
//! one that was not done is not.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use tier_types::{
    Call, Created, ErrorKind, ListPage, ObjectContent, ObjectMetadata, ObjectName, ObjectStore,
    ObjectVersion, PortError, RangeRead, StoreLayer, to_u64, to_usize,
};

/// What a store says when it does not give an object.
const ERROR_BODY: &[u8] = b"<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
/// So many of the newest objects may be missing from a listing.
const N_STALE: usize = 3;

/// A way of answering wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Lie {
    /// Nothing is done, and the answer is an error.
    Unavailable,
    /// The call takes as long as it may.
    Hang,
    /// It is done half, and the connection ends.
    Reset,
    /// It is done, and the answer is an error.
    LostAnswer,
    /// It is not done, and the answer is a success that has an error in its body.
    ErrorBody,
    /// It is done, and once more later.
    Duplicate,
    /// A name that is taken is taken again.
    IgnoredCondition,
    /// Fewer bytes come than were asked for, as a success.
    Short,
    /// One bit is another one.
    FlippedBit,
    /// The bytes are another object's.
    OtherObject,
    /// What came last is not listed.
    Stale,
}

const PUTS: [Lie; 6] =
    [Lie::Unavailable, Lie::Hang, Lie::Reset, Lie::LostAnswer, Lie::ErrorBody, Lie::Duplicate];
const CREATIONS: [Lie; 7] = [
    Lie::Unavailable,
    Lie::Hang,
    Lie::Reset,
    Lie::LostAnswer,
    Lie::ErrorBody,
    Lie::Duplicate,
    Lie::IgnoredCondition,
];
const READS: [Lie; 7] = [
    Lie::Unavailable,
    Lie::Hang,
    Lie::Reset,
    Lie::Short,
    Lie::FlippedBit,
    Lie::OtherObject,
    Lie::ErrorBody,
];
const QUESTIONS: [Lie; 2] = [Lie::Unavailable, Lie::Hang];
const LISTINGS: [Lie; 3] = [Lie::Unavailable, Lie::Hang, Lie::Stale];
const DELETIONS: [Lie; 4] = [Lie::Unavailable, Lie::Hang, Lie::LostAnswer, Lie::ErrorBody];

/// Calls, and the bytes of content that they carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "they are what the port calls them")]
pub struct CallCounts {
    pub n_puts: u64,
    pub n_creations: u64,
    pub n_questions: u64,
    pub n_reads: u64,
    pub n_streams: u64,
    pub n_listings: u64,
    pub n_deletions: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// Passes calls on to another store, and answers some of them wrongly.
///
/// ```
/// use std::sync::Arc;
///
/// use tier_testkit::{LyingStore, MemoryStore};
/// use tier_types::{Call, ObjectName, ObjectStore};
///
/// let (call, store) = (Call::bulk(), LyingStore::new(Arc::new(MemoryStore::default())));
/// let name = ObjectName::new("a").expect("a valid name");
/// store.put(&call, &name, &&b"hello"[..])?;
/// assert_eq!(store.counts().sent_bytes, 5);
/// store.lie(7, 1);
/// let mut bytes = [0; 5];
/// let read = store.read_range(&call, &name, 0, &mut bytes);
/// assert!(read.is_err() || &bytes != b"hello");
/// store.be_honest();
/// store.read_range(&call, &name, 0, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), tier_types::PortError>(())
/// ```
pub struct LyingStore {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seed: u64,
    /// One call of so many is answered wrongly; zero for none.
    one_of: u64,
    /// How often each call was made.
    n_asked: HashMap<(&'static str, String), u64>,
    /// The newest objects, the last one last.
    newest: Vec<ObjectName>,
    /// What is put once more before the next call.
    again: Option<(ObjectName, Vec<u8>)>,
    told: Vec<String>,
    counts: CallCounts,
}

impl std::fmt::Debug for LyingStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LyingStore").finish_non_exhaustive()
    }
}

fn away(what: &str, name: &str) -> PortError {
    PortError::new(ErrorKind::Away, format!("injected: {what} {name}"))
}

fn all_of(call: &Call<'_>, content: &dyn ObjectContent) -> Result<Vec<u8>, PortError> {
    let mut bytes = vec![0; to_usize(content.len_bytes())];
    content.read_at(call, 0, &mut bytes)?;
    Ok(bytes)
}

/// A number that follows from others.
fn drawn(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl LyingStore {
    /// A store that is honest.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// From now on one call of so many is answered wrongly.
    pub fn lie(&self, seed: u64, one_of: u64) {
        let mut state = self.state.lock();
        (state.seed, state.one_of) = (seed, one_of);
    }

    /// From now on each call is answered rightly.
    pub fn be_honest(&self) {
        self.state.lock().one_of = 0;
    }

    /// The lies so far.
    pub fn told(&self) -> Vec<String> {
        self.state.lock().told.clone()
    }

    /// The calls so far.
    pub fn counts(&self) -> CallCounts {
        self.state.lock().counts
    }

    /// Whether and how this call is answered wrongly, with a number by chance. What is still to be
    /// put again comes first.
    fn lie_of(
        &self,
        operation: &'static str,
        name: &str,
        lies: &[Lie],
    ) -> Result<Option<(Lie, u64)>, PortError> {
        let (lie, again) = {
            let mut state = self.state.lock();
            let again = state.again.take();
            let State { seed, one_of, .. } = *state;
            let n_asked = state.n_asked.entry((operation, name.to_owned())).or_default();
            *n_asked += 1;
            let chance = drawn((seed, operation, name, *n_asked));
            let is_lie = one_of > 0 && chance % one_of == 0;
            let chance = drawn(chance);
            let lie = lies.get(to_usize(chance % to_u64(lies.len()))).filter(|_| is_lie);
            if let Some(lie) = lie {
                state.told.push(format!("{lie:?} of {operation} {name}"));
            }
            (lie.map(|lie| (*lie, drawn(chance))), again)
        };
        if let Some((name, bytes)) = again {
            // It comes late; another object may have the name by then.
            let late = self.inner.put(&Call::bulk(), &name, &bytes.as_slice());
            late.or_else(
                |error| {
                    if error.kind() == ErrorKind::Conflict { Ok(()) } else { Err(error) }
                },
            )?;
        }
        match lie {
            Some((Lie::Unavailable, _)) => Err(away("503 to", name)),
            Some((Lie::Hang, _)) => Err(away("no answer in time to", name)),
            lie => Ok(lie),
        }
    }

    fn count(&self, count: impl FnOnce(&mut CallCounts)) {
        count(&mut self.state.lock().counts);
    }

    fn note_new(&self, name: &ObjectName) {
        self.state.lock().newest.push(name.clone());
    }

    /// An object that is not this one, if there is any.
    fn other_than(&self, name: &ObjectName, chance: u64) -> Option<ObjectName> {
        let newest = &self.state.lock().newest;
        let others: Vec<_> = newest.iter().filter(|other| *other != name).collect();
        others.get(to_usize(chance) % others.len().max(1)).map(|other| (*other).clone())
    }

    /// Spoils bytes that were read. Whether nothing comes behind them.
    fn spoil(&self, call: &Call<'_>, lie: Lie, chance: u64, name: &ObjectName, bytes: &mut [u8]) {
        let at = to_usize(chance) % bytes.len().max(1);
        match lie {
            Lie::FlippedBit => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
            Lie::Short => bytes.iter_mut().skip(at).for_each(|byte| *byte = 0),
            Lie::ErrorBody => bytes.iter_mut().zip(ERROR_BODY).for_each(|(to, from)| *to = *from),
            Lie::OtherObject => {
                let other = self.other_than(name, chance);
                let read = other.map(|other| self.inner.read_range(call, &other, 0, bytes));
                // One that is shorter has no such bytes.
                if !matches!(read, Some(Ok(()))) {
                    bytes.fill(0xA5);
                }
            }
            Lie::Unavailable
            | Lie::Hang
            | Lie::Reset
            | Lie::LostAnswer
            | Lie::Duplicate
            | Lie::IgnoredCondition
            | Lie::Stale => unreachable!("{lie:?} is no lie of bytes"),
        }
    }
}

impl StoreLayer for LyingStore {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        self.count(|counts| {
            counts.n_puts += 1;
            counts.sent_bytes += content.len_bytes();
        });
        let lie = self.lie_of("put", name.as_str(), &PUTS)?.map(|(lie, _)| lie);
        match lie {
            Some(Lie::Reset) => return Err(away("reset in", name.as_str())),
            // It is sent all the same.
            Some(Lie::ErrorBody) => return all_of(call, content).map(drop),
            Some(Lie::Duplicate) => {
                self.state.lock().again = Some((name.clone(), all_of(call, content)?));
            }
            _ => {}
        }
        self.inner.put(call, name, content)?;
        self.note_new(name);
        match lie {
            Some(Lie::LostAnswer) => Err(away("no answer to", name.as_str())),
            _ => Ok(()),
        }
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        self.count(|counts| {
            counts.n_creations += 1;
            counts.sent_bytes += content.len_bytes();
        });
        let lie = self.lie_of("create", name.as_str(), &CREATIONS)?.map(|(lie, _)| lie);
        match lie {
            Some(Lie::Reset) => return Err(away("reset in", name.as_str())),
            Some(Lie::ErrorBody) => return all_of(call, content).map(|_| Created::New),
            Some(Lie::Duplicate) => {
                self.state.lock().again = Some((name.clone(), all_of(call, content)?));
            }
            Some(Lie::IgnoredCondition) => self.inner.delete(call, name, None)?,
            _ => {}
        }
        let created = self.inner.create(call, name, content)?;
        self.note_new(name);
        match lie {
            Some(Lie::LostAnswer) => Err(away("no answer to", name.as_str())),
            _ => Ok(created),
        }
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        self.count(|counts| counts.n_questions += 1);
        self.lie_of("metadata", name.as_str(), &QUESTIONS)?;
        self.inner.metadata(call, name)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        let lie = self.lie_of("read", name.as_str(), &READS)?;
        self.inner.read_ranges(call, name, ranges)?;
        self.count(|counts| {
            counts.n_reads += 1;
            counts.received_bytes += ranges.iter().map(|r| to_u64(r.buffer.len())).sum::<u64>();
        });
        match lie {
            Some((Lie::Reset, _)) => Err(away("reset in", name.as_str())),
            Some((lie, chance)) => {
                for range in ranges {
                    self.spoil(call, lie, chance, name, range.buffer);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let lie = self.lie_of("stream", name.as_str(), &READS)?;
        let mut bytes = Vec::new();
        self.inner.stream(call, name, offset_bytes, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        self.count(|counts| {
            counts.n_streams += 1;
            counts.received_bytes += to_u64(bytes.len());
        });
        match lie {
            Some((Lie::Reset | Lie::Short, chance)) => {
                bytes.truncate(to_usize(chance) % bytes.len().max(1));
            }
            Some((lie, chance)) => self.spoil(call, lie, chance, name, &mut bytes),
            None => {}
        }
        bytes.chunks(1000).try_for_each(take)?;
        match lie {
            Some((Lie::Reset, _)) => Err(away("reset in", name.as_str())),
            _ => Ok(()),
        }
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        self.count(|counts| counts.n_listings += 1);
        let lie = self.lie_of("list", prefix, &LISTINGS)?;
        let mut page = self.inner.list(call, prefix, after)?;
        if lie.is_some() {
            let newest = self.state.lock().newest.clone();
            let is_stale =
                |name: &ObjectName| newest.iter().rev().take(N_STALE).any(|new| new == name);
            page.objects.retain(|object| !is_stale(&object.name));
            // Without any it does not go on.
            page.is_last |= page.objects.is_empty();
        }
        Ok(page)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        self.count(|counts| counts.n_deletions += 1);
        match self.lie_of("delete", name.as_str(), &DELETIONS)? {
            Some((Lie::ErrorBody, _)) => Ok(()),
            Some(_) => {
                self.inner.delete(call, name, only)?;
                Err(away("no answer to", name.as_str()))
            }
            None => self.inner.delete(call, name, only),
        }
    }
}
