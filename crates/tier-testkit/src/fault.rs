//! Fault injection: an object store that breaks when it is told to.
//!
//! Operations are counted, and a test names the one that is to break. Run once without a fault it
//! learns how many there are, and then breaks each in turn, so that no point at which a store can
//! fail is left out. The store says which operation broke, for the message of a test that failed.

use std::io::Read;
use std::sync::Arc;

use parking_lot::Mutex;
use tier_types::{ErrorKind, ObjectName, ObjectStore, PortError};

/// What goes wrong at the chosen operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails, and later ones work.
    Error,
    /// It fails, and so does everything after it: the other side is gone.
    Crash,
    /// A put says that it worked and did nothing.
    LostPut,
    /// A read returns bytes of which one bit is wrong.
    FlippedBit,
}

/// Passes everything on to another store, until an operation breaks.
///
/// ```
/// use std::sync::Arc;
///
/// use tier_testkit::{Fault, FaultyStore, MemoryStore};
/// use tier_types::{ErrorKind, ObjectName, ObjectStore};
///
/// let store = FaultyStore::new(Arc::new(MemoryStore::default()));
/// let name = ObjectName::new("a").expect("a valid name");
/// store.break_at(1, Fault::Error);
/// store.put(&name, 1, &mut &b"x"[..])?;
/// let error = store.len_bytes(&name).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// assert_eq!(store.broken().as_deref(), Some("Error in operation 1, len a"));
/// assert_eq!(store.len_bytes(&name)?, 1, "later ones work");
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

    /// Lets operation number `n` from now (0 is the next one) break.
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
        let now = number == at || (fault == Fault::Crash && number > at);
        if !now {
            return Ok(None);
        }
        let description = format!("{fault:?} in operation {number}, {what} {name}");
        state.broken.get_or_insert(description.clone());
        match fault {
            Fault::Error | Fault::Crash => {
                Err(PortError::new(ErrorKind::Unavailable, format!("injected: {description}")))
            }
            Fault::LostPut | Fault::FlippedBit => Ok(Some(fault)),
        }
    }
}

impl ObjectStore for FaultyStore {
    fn put(
        &self,
        name: &ObjectName,
        len_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        match self.step("put", name.as_str())? {
            Some(Fault::LostPut) => Ok(()),
            _ => self.inner.put(name, len_bytes, content),
        }
    }

    fn len_bytes(&self, name: &ObjectName) -> Result<u64, PortError> {
        self.step("len", name.as_str())?;
        self.inner.len_bytes(name)
    }

    fn read_range(
        &self,
        name: &ObjectName,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError> {
        let fault = self.step("read", name.as_str())?;
        self.inner.read_range(name, offset_bytes, buffer)?;
        if fault == Some(Fault::FlippedBit)
            && let Some(byte) = buffer.first_mut()
        {
            *byte ^= 1;
        }
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>, PortError> {
        self.step("list", prefix)?;
        self.inner.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), PortError> {
        self.step("delete", name.as_str())?;
        self.inner.delete(name)
    }
}
