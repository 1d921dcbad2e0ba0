//! Fault injection: an object store that breaks when it is told to.
//!
//! Operations are counted, and a test names the one that is to break. Run once without a fault it
//! learns how many there are, and then breaks each in turn, so that no point at which a store can
//! fail is left out. The store says which operation broke, for the message of a test that failed.

use std::sync::Arc;

use parking_lot::Mutex;
use tier_types::{
    Call, Created, ErrorKind, ListPage, ObjectContent, ObjectMetadata, ObjectName, ObjectStore,
    ObjectVersion, PortError, RangeRead, StoreLayer,
};

/// What goes wrong at the chosen operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails, and later ones work.
    Error,
    /// It fails, and so does everything after it: the other side is gone.
    Crash,
    /// A put says that it worked and did nothing.
    LostPut,
    /// A put works, and its answer does not arrive.
    LostAnswer,
    /// A read returns bytes of which one bit is wrong.
    FlippedBit,
}

/// Passes everything on to another store, until an operation breaks.
///
/// ```
/// use std::sync::Arc;
///
/// use tier_testkit::{Fault, FaultyStore, MemoryStore};
/// use tier_types::{Call, ErrorKind, ObjectName, ObjectStore};
///
/// let call = Call::bulk();
/// let store = FaultyStore::new(Arc::new(MemoryStore::default()));
/// let name = ObjectName::new("a").expect("a valid name");
/// store.break_at(1, Fault::Error);
/// store.put(&call, &name, &&b"x"[..])?;
/// let error = store.metadata(&call, &name).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Away);
/// assert_eq!(store.broken().as_deref(), Some("Error in operation 1, metadata a"));
/// assert_eq!(store.metadata(&call, &name)?.len_bytes, 1, "later ones work");
/// # Ok::<(), tier_types::PortError>(())
/// ```
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    n_operations: u64,
    fault: Option<(u64, Fault)>,
    broken: Option<String>,
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyStore").field("state", &self.state).finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// A store in which nothing breaks yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Mutex::new(State::default()) }
    }

    /// Lets operation number `n` from now (0 is the next one) break; a fault of puts or of reads,
    /// the first such operation from there on.
    pub fn break_at(&self, n: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((state.n_operations + n, fault));
        state.broken = None;
    }

    /// Operations so far.
    pub fn count(&self) -> u64 {
        self.state.lock().n_operations
    }

    /// What broke, if anything did.
    pub fn broken(&self) -> Option<String> {
        self.state.lock().broken.clone()
    }

    /// The fault of this operation, if it is the one.
    fn step(&self, what: &str, name: &str) -> Result<Option<Fault>, PortError> {
        let mut state = self.state.lock();
        let number = state.n_operations;
        state.n_operations += 1;
        let Some((at, fault)) = state.fault else { return Ok(None) };
        let is_first = number >= at && state.broken.is_none();
        let now = match fault {
            Fault::Error => number == at,
            Fault::Crash => number >= at,
            Fault::LostPut | Fault::LostAnswer => is_first && matches!(what, "put" | "create"),
            Fault::FlippedBit => is_first && matches!(what, "read" | "stream"),
        };
        if !now {
            return Ok(None);
        }
        let description = format!("{fault:?} in operation {number}, {what} {name}");
        state.broken.get_or_insert(description.clone());
        match fault {
            Fault::Error | Fault::Crash => {
                Err(PortError::new(ErrorKind::Away, format!("injected: {description}")))
            }
            Fault::LostPut | Fault::LostAnswer | Fault::FlippedBit => Ok(Some(fault)),
        }
    }
}

impl StoreLayer for FaultyStore {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        match self.step("put", name.as_str())? {
            Some(Fault::LostPut) => Ok(()),
            Some(Fault::LostAnswer) => {
                self.inner.put(call, name, content)?;
                Err(lost_answer("put", name))
            }
            _ => self.inner.put(call, name, content),
        }
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        match self.step("create", name.as_str())? {
            Some(Fault::LostPut) => Ok(Created::New),
            Some(Fault::LostAnswer) => {
                self.inner.create(call, name, content)?;
                Err(lost_answer("create", name))
            }
            _ => self.inner.create(call, name, content),
        }
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        self.step("metadata", name.as_str())?;
        self.inner.metadata(call, name)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        let fault = self.step("read", name.as_str())?;
        self.inner.read_ranges(call, name, ranges)?;
        if fault == Some(Fault::FlippedBit)
            && let Some(byte) = ranges.iter_mut().find_map(|range| range.buffer.first_mut())
        {
            *byte ^= 1;
        }
        Ok(())
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let fault = self.step("stream", name.as_str())?;
        let mut flips = fault == Some(Fault::FlippedBit);
        self.inner.stream(call, name, offset_bytes, &mut |piece| {
            let mut piece = piece.to_vec();
            if std::mem::take(&mut flips) {
                piece[0] ^= 1;
            }
            take(&piece)
        })
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        self.step("list", prefix)?;
        self.inner.list(call, prefix, after)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        self.step("delete", name.as_str())?;
        self.inner.delete(call, name, only)
    }
}

fn lost_answer(what: &str, name: &ObjectName) -> PortError {
    PortError::new(ErrorKind::Away, format!("injected: no answer to {what} {name}"))
}
