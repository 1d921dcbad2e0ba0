//! Copying a snapshot's objects, and reading them back.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use tier_persist::{PersistError, StoredObject, check_object};
use tier_status::{Event, StatusSink};
use tier_types::{ObjectStore, to_u64, to_usize};

use crate::AgentError;

/// Copies objects in order, and compares each with what it must be once it is there: only what was
/// read back counts.
pub(crate) fn push(
    objects: &[StoredObject],
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    status: &dyn StatusSink,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    for object in objects {
        if stop.load(Ordering::Relaxed) {
            return Err(AgentError::Stopped);
        }
        let mut content = Content { store: from, object, at: 0 };
        to.put(&object.name, object.len_bytes, &mut content)?;
        check_object(to, object)?;
        let (name, bytes) = (object.name.to_string(), object.len_bytes);
        status.report(Event::Pushed { name, bytes })?;
    }
    Ok(())
}

/// Checks objects where they are.
pub(crate) fn read_back(
    objects: &[StoredObject],
    store: &dyn ObjectStore,
    stop: &AtomicBool,
) -> Result<(), AgentError> {
    for object in objects {
        if stop.load(Ordering::Relaxed) {
            return Err(AgentError::Persist(PersistError::Cancelled));
        }
        check_object(store, object)?;
    }
    Ok(())
}

/// An object's bytes, one piece after another.
struct Content<'a> {
    store: &'a dyn ObjectStore,
    object: &'a StoredObject,
    at: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.object.len_bytes - self.at;
        let n = to_usize(left.min(to_u64(buffer.len())));
        let piece = buffer.get_mut(..n).unwrap_or_default();
        self.store.read_range(&self.object.name, self.at, piece).map_err(io::Error::other)?;
        self.at += to_u64(n);
        Ok(n)
    }
}
