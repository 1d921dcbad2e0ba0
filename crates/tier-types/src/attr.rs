//! What is known of an inode besides its data.

use std::fmt;

use crate::{Ino, Xid};

/// A point in time: seconds since the Unix epoch (negative before it) and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// The rest, below 1,000,000,000.
    pub nanos: u32,
}

/// A device's major and minor number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

/// What an inode is, with what only that kind has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum FileKind {
    /// A file with data.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link and its target, which may be any bytes but NUL.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

/// An inode's attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileAttr {
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits: the lower 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What `st_nlink` says.
    pub nlink: u32,
    /// File size in bytes; zero for what has no data.
    pub size_bytes: u64,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of data.
    pub modified: Timestamp,
    /// Last change of anything.
    pub changed: Timestamp,
    /// Creation.
    pub created: Timestamp,
    /// The transaction that last changed the inode in any way: its metadata xid.
    pub xid: Xid,
}

/// One name in a directory: 1 to 255 bytes, neither NUL nor slash in them, not `.` or `..`.
///
/// ```
/// use tier_types::FileName;
///
/// let name = FileName::new(b"caf\xe9.txt").expect("names are bytes, not text");
/// assert_eq!(name.to_string(), "caf\\xe9.txt");
/// assert_eq!(FileName::new(b"a/b"), None);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Box<[u8]>);

impl FileName {
    /// Longest name in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Checks the bytes of a name; `None` if they cannot be one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Self::is_name(bytes).then(|| Self(bytes.into()))
    }

    /// Whether bytes can be a name.
    pub fn is_name(bytes: &[u8]) -> bool {
        let fits = (1..=Self::BYTES_MAX).contains(&bytes.len());
        let plain = !bytes.iter().any(|&byte| byte == 0 || byte == b'/');
        fits && plain && bytes != b"." && bytes != b".."
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A directory entry, seen from the inode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link {
    /// The directory.
    pub parent: Ino,
    /// The name in it.
    pub name: FileName,
}

/// An extended attribute.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Xattr {
    /// Name with its namespace, such as `user.comment`.
    pub name: Vec<u8>,
    /// Value, any bytes.
    pub value: Vec<u8>,
}

/// All of an inode but its data: what a metadata member of a tarball carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InodeState {
    /// Attributes.
    pub attr: FileAttr,
    /// Names, sorted; none for an inode that is open and unlinked, and for the root.
    pub links: Vec<Link>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert_eq!(FileName::new(bad), None);
        }
        for good in [&b"a"[..], b"...", b"a\nb", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(FileName::new(good).unwrap().as_bytes(), good);
        }
    }
}
