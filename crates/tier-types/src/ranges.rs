//! Ranges of numbers: half-open, and never empty where an empty one would mean nothing.
//!
//! [`XidRange`] and [`ChunkRange`] hold at least one number, so that `last` and `len` need no
//! special case; a range that might be empty is an `Option`. The largest `u64` lies in no range,
//! because the end of the range would have no number; as a chunk it is [`ChunkNo::END`], the end of
//! every file's address space. [`ByteRange`] counts bytes and may be empty, as a read or a write of
//! none is.

use std::fmt;

use crate::{ChunkNo, Xid};

// A macro and not a generic type: methods of a trait bound cannot be called in `const fn`.
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
                // By the raw numbers, because ids cannot be compared in `const fn`.
                if start.get() < end.get() { Some(Self { start, end }) } else { None }
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
                debug_assert!(self.start.get() < self.end.get(), "a range is never empty");
                // The end is greater than some number, and so is not zero.
                $id::new(self.end.get() - 1)
            }

            /// How many numbers there are; never zero.
            #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
            pub const fn len(self) -> u64 {
                self.end.get() - self.start.get()
            }

            /// Whether `number` lies in the range.
            pub const fn contains(self, number: $id) -> bool {
                self.start.get() <= number.get() && number.get() < self.end.get()
            }

            /// Whether all of `other` lies in the range.
            pub const fn covers(self, other: Self) -> bool {
                self.start.get() <= other.start.get() && other.end.get() <= self.end.get()
            }

            /// What both have in common.
            pub fn intersection(self, other: Self) -> Option<Self> {
                // Of ranges that do not meet the start is not below the end, and there is no range.
                Self::new(self.start.max(other.start), self.end.min(other.end))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..{})"), self.start.get(), self.end.get())
            }
        }
    };
}

range! {
    /// Consecutive transaction ids, half-open and never empty.
    ///
    /// ```
    /// use tier_types::{Xid, XidRange};
    ///
    /// let range = XidRange::new(Xid::new(3), Xid::new(6)).expect("it is not empty");
    /// assert_eq!((range.len(), range.last()), (3, Xid::new(5)));
    /// assert!(range.contains(Xid::new(3)) && !range.contains(range.end()));
    /// assert_eq!(range.to_string(), "3-5");
    /// assert_eq!(XidRange::new(Xid::new(3), Xid::new(3)), None);
    /// ```
    XidRange of Xid
}
range! {
    /// Consecutive chunks of one file, half-open and never empty. An end of [`ChunkNo::END`] means
    /// all the rest of the address space.
    ///
    /// ```
    /// use tier_types::{ChunkNo, ChunkRange};
    ///
    /// // The bytes from 4000 up to 9000 touch chunks 0 to 2 of 4096 bytes each.
    /// let chunks = ChunkRange::touching(4000, 5000, 4096).expect("there are bytes");
    /// assert_eq!((chunks.start(), chunks.end()), (ChunkNo::new(0), ChunkNo::new(3)));
    /// assert_eq!(chunks.len_bytes(4096, 9000), 9000, "cut at the end of the file");
    /// let tail = ChunkRange::from(ChunkNo::new(2)).expect("there is a rest");
    /// assert_eq!(tail.to_string(), "2-");
    /// assert_eq!(tail.intersection(chunks), ChunkRange::one(ChunkNo::new(2)));
    /// ```
    ChunkRange of ChunkNo
}

impl fmt::Display for XidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.last())
    }
}

impl fmt::Display for ChunkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last number before an open end would look like a size that something has.
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

    /// The chunks that the bytes `[offset, offset + len)` touch, as far as the address space
    /// reaches; `None` for no bytes.
    ///
    /// # Panics
    /// If a chunk has no bytes.
    pub const fn touching(offset: u64, len: u64, chunk_bytes: u32) -> Option<Self> {
        assert!(chunk_bytes > 0, "a chunk has bytes");
        // No bytes have no last one, by which the end is found below.
        if len == 0 {
            return None;
        }
        let size = widen(chunk_bytes);
        // By the last byte and not by the one after it, which may not have a number.
        let last_byte = offset.saturating_add(len - 1);
        Self::new(ChunkNo::new(offset / size), ChunkNo::new(last_byte / size).next())
    }

    /// The byte offset at which the range starts.
    pub const fn offset_bytes(self, chunk_bytes: u32) -> u64 {
        // A product that does not fit lies beyond every file, and so does the largest number.
        self.start.get().saturating_mul(widen(chunk_bytes))
    }

    /// The bytes of the range up to the end of a file of `file_bytes`.
    ///
    /// # Panics
    /// If a chunk has no bytes.
    pub fn len_bytes(self, chunk_bytes: u32, file_bytes: u64) -> u64 {
        assert!(chunk_bytes > 0, "a chunk has bytes");
        // An open end lies beyond every file, and so does a product that does not fit.
        let end = self.end.get().saturating_mul(widen(chunk_bytes)).min(file_bytes);
        end.saturating_sub(self.offset_bytes(chunk_bytes))
    }
}

/// Consecutive bytes of a file or an object. May be empty.
///
/// ```
/// use tier_types::ByteRange;
///
/// let read = ByteRange { offset: 4096, len: 100 };
/// assert_eq!(read.end(), Some(4196));
/// assert!(read.overlaps(ByteRange::between(0, 4097)));
/// assert!(!read.overlaps(ByteRange::between(0, 4096)));
/// assert_eq!(ByteRange::between(7, 3).len, 0);
/// ```
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
        // Checked and not saturated: a range that ends at the limit is not one that goes beyond it.
        self.offset.checked_add(self.len)
    }

    /// Whether there is a byte in both. Bytes beyond the address space count as its last ones.
    pub const fn overlaps(self, other: Self) -> bool {
        let end = self.offset.saturating_add(self.len);
        let other_end = other.offset.saturating_add(other.len);
        // Both must have bytes: by its offset alone an empty range within another one would count
        // as an overlap.
        self.len > 0 && other.len > 0 && self.offset < other_end && other.offset < end
    }
}

/// The first and the last byte; of an empty range the byte before which it lies.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len.checked_sub(1) {
            Some(rest) => write!(f, "{}-{}", self.offset, self.offset.saturating_add(rest)),
            None => write!(f, "none before {}", self.offset),
        }
    }
}

#[expect(clippy::as_conversions, reason = "From is not const")]
const fn widen(n: u32) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK_BYTES: u32 = 10;

    #[test]
    fn byte_ranges_are_shown_with_their_last_byte() {
        let shown = |offset, len| ByteRange { offset, len }.to_string();
        assert_eq!(
            [shown(512, 188), shown(7, 1), shown(7, 0)],
            ["512-699", "7-7", "none before 7"]
        );
        assert_eq!(shown(u64::MAX, u64::MAX), format!("{0}-{0}", u64::MAX));
    }

    fn chunks() -> impl Strategy<Value = ChunkRange> {
        (0..30_u64, 1..12_u64).prop_map(|(start, len)| {
            ChunkRange::new(ChunkNo::new(start), ChunkNo::new(start + len)).unwrap()
        })
    }

    fn numbers(range: ChunkRange) -> impl Iterator<Item = u64> {
        range.start().get()..range.end().get()
    }

    fn bytes() -> impl Strategy<Value = ByteRange> {
        (0..100_u64, 0..40_u64).prop_map(|(offset, len)| ByteRange { offset, len })
    }

    proptest! {
        #[test]
        fn an_intersection_holds_what_both_hold(a in chunks(), b in chunks()) {
            let both: Vec<_> = numbers(a).filter(|n| b.contains(ChunkNo::new(*n))).collect();
            let found = a.intersection(b).map(|range| numbers(range).collect::<Vec<_>>());
            prop_assert_eq!(found.unwrap_or_default(), both.clone());
            prop_assert_eq!(a.covers(b), numbers(b).all(|n| a.contains(ChunkNo::new(n))));
            prop_assert_eq!(a.intersection(b), b.intersection(a));
        }

        #[test]
        fn bytes_touch_exactly_the_chunks_that_hold_one(range in bytes()) {
            let chunk = u64::from(CHUNK_BYTES);
            let mut holding: Vec<_> =
                (range.offset..range.end().unwrap()).map(|byte| byte / chunk).collect();
            holding.dedup();
            let touched = ChunkRange::touching(range.offset, range.len, CHUNK_BYTES);
            let touched: Vec<_> = touched.into_iter().flat_map(numbers).collect();
            prop_assert_eq!(touched, holding);
        }

        #[test]
        fn the_bytes_of_a_file_are_those_of_its_chunks(range in chunks(), file_bytes in 0..500_u64) {
            let chunk = u64::from(CHUNK_BYTES);
            let len = numbers(range).flat_map(|n| n * chunk..(n + 1) * chunk);
            let len = len.filter(|byte| *byte < file_bytes).count();
            prop_assert_eq!(range.len_bytes(CHUNK_BYTES, file_bytes), crate::to_u64(len));
        }

        #[test]
        fn byte_ranges_overlap_where_they_share_a_byte(a in bytes(), b in bytes()) {
            let of = |r: ByteRange| r.offset..r.end().unwrap();
            let shared = of(a).any(|byte| of(b).contains(&byte));
            prop_assert_eq!(a.overlaps(b), shared);
            prop_assert_eq!(b.overlaps(a), shared);
            prop_assert_eq!(ByteRange::between(a.offset, a.end().unwrap()), a);
        }
    }

    #[test]
    fn nothing_lies_beyond_the_address_space() {
        let end = ByteRange { offset: u64::MAX - 1, len: 5 };
        assert_eq!(end.end(), None);
        assert!(end.overlaps(ByteRange { offset: u64::MAX - 2, len: 2 }));
        let touched = ChunkRange::touching(u64::MAX - 1, 5, 1);
        assert_eq!(touched.map(ChunkRange::end), Some(ChunkNo::END));
        let all = ChunkRange::ALL;
        assert_eq!(all.len_bytes(CHUNK_BYTES, u64::MAX), u64::MAX);
    }

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
