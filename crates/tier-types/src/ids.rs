//! Numbers that must not be confused with each other.
//!
//! Each is a `u64` in a type of its own, so that an inode number never stands where a transaction
//! id is meant. They are raw numbers by [`get`](Ino::get) in formats and keys only. Each name says
//! what is counted, where counting starts, and whether there are gaps.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw number.
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
                // Wrapped around, it would be a number in use. Where it stays as it is, a range of
                // one number would be empty, and there is none.
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Handed on, so that width and padding of a caller's format count.
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // With its type, so that a failed assertion tells an inode number from a
                // transaction id.
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// An inode number, never reused.
    ///
    /// ```
    /// use tier_types::{Ino, Xid};
    ///
    /// assert_eq!(Ino::ROOT, Ino::new(1));
    /// assert_eq!(Ino::new(7).next().get(), 8);
    /// assert_eq!(format!("{} is {:?}", Ino::new(7), Ino::new(7)), "7 is Ino(7)");
    /// ```
    Ino
}
id! {
    /// A transaction id: one for each logged operation, strictly increasing without gaps, in the
    /// key-value store's own commit order. Zero is before the first operation.
    ///
    /// ```
    /// use tier_types::Xid;
    ///
    /// let first = Xid::new(0).next();
    /// assert!(first < first.next());
    /// assert_eq!(Xid::new(u64::MAX).next(), Xid::new(u64::MAX), "it stays at the end");
    /// ```
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
