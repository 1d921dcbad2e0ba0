//! Numbers that must not be confused with each other, and ranges of them.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// Wraps the raw number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The raw number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number after this one; the largest stays as it is.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// An inode number, never reused.
    Ino
}
id! {
    /// A transaction id: one for each logged operation, strictly increasing without gaps, in the
    /// key-value store's own commit order. Zero is before the first operation.
    Xid
}
id! {
    /// The number of a chunk within its file: byte offset divided by the chunk size.
    ChunkNo
}
id! {
    /// The number of a persisted snapshot, starting at 1.
    SnapshotId
}
id! {
    /// One writer's term over a filesystem's archive, starting at 1.
    Epoch
}

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

impl ChunkNo {
    /// The end of every file's address space: no chunk has this number.
    pub const END: Self = Self(u64::MAX);
}

macro_rules! range {
    ($(#[$doc:meta])* $name:ident of $id:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            start: $id,
            end: $id,
        }

        impl $name {
            /// The range from `start` up to and not including `end`; `None` if it were empty.
            pub const fn new(start: $id, end: $id) -> Option<Self> {
                if start.0 < end.0 { Some(Self { start, end }) } else { None }
            }

            /// The range that holds just `only`; the largest number cannot be in a range.
            pub const fn one(only: $id) -> Option<Self> {
                Self::new(only, only.next())
            }

            /// The first number.
            pub const fn start(self) -> $id {
                self.start
            }

            /// The number after the last.
            pub const fn end(self) -> $id {
                self.end
            }

            /// The last number.
            pub const fn last(self) -> $id {
                $id(self.end.0 - 1)
            }

            /// How many numbers there are; never zero.
            #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
            pub const fn len(self) -> u64 {
                self.end.0 - self.start.0
            }

            /// Whether `number` lies in the range.
            pub const fn contains(self, number: $id) -> bool {
                self.start.0 <= number.0 && number.0 < self.end.0
            }

            /// Whether all of `other` lies in the range.
            pub const fn covers(self, other: Self) -> bool {
                self.start.0 <= other.start.0 && other.end.0 <= self.end.0
            }

            /// What both have in common.
            pub fn intersection(self, other: Self) -> Option<Self> {
                Self::new(self.start.max(other.start), self.end.min(other.end))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..{})"), self.start.0, self.end.0)
            }
        }
    };
}

range! {
    /// Consecutive transaction ids, half-open and never empty.
    XidRange of Xid
}
range! {
    /// Consecutive chunks of one file, half-open and never empty. An end of [`ChunkNo::END`] means
    /// all the rest of the address space.
    ChunkRange of ChunkNo
}

impl fmt::Display for XidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.last())
    }
}

impl fmt::Display for ChunkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.end == ChunkNo::END {
            write!(f, "{}-", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.last())
        }
    }
}

impl ChunkRange {
    /// All chunks of a file.
    pub const ALL: Self = Self { start: ChunkNo::new(0), end: ChunkNo::END };

    /// The chunks from `start` to the end of the address space.
    pub const fn from(start: ChunkNo) -> Option<Self> {
        Self::new(start, ChunkNo::END)
    }

    /// The chunks that the bytes `[offset, offset + len)` touch; `None` for no bytes.
    pub const fn touching(offset: u64, len: u64, chunk_bytes: u32) -> Option<Self> {
        if len == 0 {
            return None;
        }
        let size = widen(chunk_bytes);
        let last_byte = offset.saturating_add(len - 1);
        Self::new(ChunkNo(offset / size), ChunkNo((last_byte / size).saturating_add(1)))
    }

    /// The byte offset at which the range starts.
    pub const fn offset_bytes(self, chunk_bytes: u32) -> u64 {
        self.start.0.saturating_mul(widen(chunk_bytes))
    }

    /// The bytes of the range up to the end of a file of `file_bytes`.
    pub fn len_bytes(self, chunk_bytes: u32, file_bytes: u64) -> u64 {
        let end = self.end.0.saturating_mul(widen(chunk_bytes)).min(file_bytes);
        end.saturating_sub(self.offset_bytes(chunk_bytes))
    }
}

/// Consecutive bytes of a file or an object. May be empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ByteRange {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl ByteRange {
    /// The bytes from `offset` up to and not including `end`; none if that lies before it.
    pub const fn between(offset: u64, end: u64) -> Self {
        Self { offset, len: end.saturating_sub(offset) }
    }

    /// The byte after the last one; `None` beyond the address space.
    pub const fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// Whether there is a byte in both.
    pub const fn overlaps(self, other: Self) -> bool {
        let end = self.offset.saturating_add(self.len);
        let other_end = other.offset.saturating_add(other.len);
        self.len > 0 && other.len > 0 && self.offset < other_end && other.offset < end
    }
}

#[expect(clippy::as_conversions, reason = "From is not const")]
const fn widen(n: u32) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(XidRange::new(Xid::new(3), Xid::new(3)), None);
        assert_eq!(ChunkRange::one(ChunkNo::END), None);
        let range = XidRange::new(Xid::new(3), Xid::new(5)).unwrap();
        assert_eq!((range.last(), range.len()), (Xid::new(4), 2));
    }

    #[test]
    fn bytes_touch_the_chunks_that_hold_them() {
        let touching = |offset, len| {
            ChunkRange::touching(offset, len, 10).map(|r| (r.start().get(), r.end().get()))
        };
        assert_eq!(touching(0, 0), None);
        assert_eq!(touching(0, 10), Some((0, 1)));
        assert_eq!(touching(9, 2), Some((0, 2)));
        assert_eq!(touching(25, 1), Some((2, 3)));
    }

    #[test]
    fn the_last_chunk_is_cut_at_the_end_of_the_file() {
        let range = ChunkRange::new(ChunkNo::new(1), ChunkNo::new(3)).unwrap();
        assert_eq!(range.len_bytes(10, 25), 15);
        assert_eq!(range.len_bytes(10, 100), 20);
        assert_eq!(range.len_bytes(10, 5), 0);
        assert_eq!(ChunkRange::ALL.len_bytes(10, 25), 25);
    }
}
