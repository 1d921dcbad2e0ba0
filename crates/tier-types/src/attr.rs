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

/// RFC 3339 in UTC, to the second: `2016-12-18T00:04:05Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In days of 86,400 seconds, rounded down: the time of day counts forward before 1970 too.
        let (year, month, day) = civil(self.seconds.div_euclid(86_400));
        let of_day = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    // From 0000-03-01 on, so that a leap day is the last of its year. Days of 64-bit seconds leave
    // room for the sum.
    let shifted = days + 719_468;
    // The calendar repeats after 400 years, which are 146,097 days.
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on the lengths of months repeat: 153 days for each five of them.
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    // January and February belong to the year that began in the March before.
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
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

impl FileAttr {
    /// The attributes of a new inode: its own transaction's number, one name, no data, no
    /// permissions, times of zero.
    pub fn new(ino: Ino, kind: FileKind) -> Self {
        let zero = Timestamp::default();
        Self {
            ino,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes: 0,
            accessed: zero,
            modified: zero,
            changed: zero,
            created: zero,
            // An inode number is the id of the transaction that made the inode.
            xid: Xid::new(ino.get()),
        }
    }
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
        // No longer than Linux lets a name be; an empty one would stand for the directory itself.
        let fits = (1..=Self::BYTES_MAX).contains(&bytes.len());
        let plain = !bytes.iter().any(|&byte| byte == 0 || byte == b'/');
        // With the last two a path made of names would lead somewhere else.
        fits && plain && bytes != b"." && bytes != b".."
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may hold control sequences of a terminal, and none may reach it.
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
    fn times_are_those_of_the_calendar() {
        let text = |seconds| Timestamp { seconds, nanos: 0 }.to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(text(1_482_019_445), "2016-12-18T00:04:05Z");
    }

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
