//! A place for immutable objects: a directory or a cloud.

use std::fmt;
use std::io::Read;

use crate::PortError;

/// The name of an object: parts of `A-Z a-z 0-9 . _ -` joined by slashes, none of them empty or
/// starting with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Longest name in bytes.
    pub const BYTES_MAX: usize = 512;

    /// Checks a name; `None` if it cannot be one.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
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
    /// Stores `len_bytes` bytes under a name that must not be taken. Durable on return. If the
    /// name is taken by an object of the same length the call succeeds and changes nothing, so
    /// that an interrupted push can be repeated; whether the bytes are the same is for the reader
    /// to check.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a b", "ä"] {
            assert_eq!(ObjectName::new(bad), None, "{bad}");
        }
        assert!(ObjectName::new("fs-1/e1/s2-p3.tar.zst.age").is_some());
    }
}
