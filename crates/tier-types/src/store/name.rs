//! Names of objects.

use std::fmt;

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
