//! The port of an object store: immutable objects by name, in a directory or a cloud.
//!
//! An object is put whole and never changes; a name is used for one content only, so that a put that
//! is repeated after a lost acknowledgement does no harm. A store knows names, lengths and byte
//! ranges, and nothing of what is in an object. What it answers is not trusted: its reader checks
//! digests, and an object that ends too early is damage.
//!
//! [`StagingStore`] is what the local store can do besides: an object grows piece by piece under a
//! temporary name and becomes visible in one step, which is how a tarball is written while its
//! length is not yet known.

use std::fmt;
use std::io::Read;

use crate::PortError;

/// The name of an object: parts of `A-Z a-z 0-9 . _ -` joined by slashes, none of them empty or
/// starting with a dot.
///
/// ```
/// use tier_types::ObjectName;
///
/// let name = ObjectName::new("fs-1/e1/s2-p3.tar.zst.age").expect("a valid name");
/// assert_eq!(name.as_str(), "fs-1/e1/s2-p3.tar.zst.age");
/// assert_eq!(ObjectName::new("../etc/passwd"), None);
/// assert_eq!(ObjectName::new("a//b"), None);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Longest name in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Checks a name; `None` if it cannot be one.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        // Every store takes these as they are: none needs to be escaped in a URL or a path.
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        // Without a dot in front no part is `..`, which would lead out of a directory store.
        let part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
        // An empty part would give one file two names, because a path joins `a//b` to `a/b`.
        (name.len() <= Self::BYTES_MAX && name.split('/').all(part)).then_some(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Immutable objects by name. All errors name the object; one that is not there is an error of
/// kind `Missing`.
pub trait ObjectStore: Send + Sync {
    /// Stores `len_bytes` bytes of `content` under a name that must not be taken. Durable on
    /// return; when it fails, either nothing is visible under the name or the whole object, which
    /// may not be durable yet. If the name is taken by an object of the same length the call makes
    /// it durable and changes nothing else, so that an interrupted upload can be repeated; whether
    /// the bytes are the same is for the reader to check. If it is taken by an
    /// object of another length the call fails and changes nothing.
    fn put(
        &self,
        name: &ObjectName,
        len_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError>;

    /// The object's length in bytes.
    fn len_bytes(&self, name: &ObjectName) -> Result<u64, PortError>;

    /// Fills `buffer` from `offset_bytes` on; an object that ends before is an error of kind
    /// `Damaged`.
    fn read_range(
        &self,
        name: &ObjectName,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError>;

    /// The names that start with `prefix`, sorted.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>, PortError>;

    /// Removes the object; one that is not there is no error.
    fn delete(&self, name: &ObjectName) -> Result<(), PortError>;
}

/// Sends what was written to an object so far to the disk, from another thread than the writer's.
pub type Flush = Box<dyn Fn() -> Result<(), PortError> + Send>;

/// A local [`ObjectStore`] in which an object can be written piece by piece, under a temporary name
/// until it is whole.
pub trait StagingStore: ObjectStore {
    /// Starts an object. Its name, which must not be taken, becomes visible when it is committed;
    /// until then no listing and no read shows it.
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError>;

    /// Removes what a crash left half written. No object may be staged meanwhile.
    fn discard_staged(&self) -> Result<(), PortError>;
}

/// An object that is being written. Dropped before it is committed, it leaves nothing; a crash
/// leaves at most what [`StagingStore::discard_staged`] removes.
pub trait StagedObject: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), PortError>;

    /// A way to send what is written to the disk while more is written, so that little is left for
    /// the commit. An error of it is an error of the object: it may not come again at the commit.
    fn flush_handle(&self) -> Result<Flush, PortError>;

    /// Makes the object durable under its name.
    fn commit(self: Box<Self>) -> Result<(), PortError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_directory() {
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a b", "ä", "a\0"] {
            assert_eq!(ObjectName::new(bad), None, "{bad}");
        }
        assert!(ObjectName::new("x".repeat(ObjectName::BYTES_MAX)).is_some());
        assert_eq!(ObjectName::new("x".repeat(ObjectName::BYTES_MAX + 1)), None);
        assert!(ObjectName::new("fs-1/e1/s2-p3.tar.zst.age").is_some());
    }
}
