//! `u64` and `usize` have the same width on every platform that this software supports; that is
//! stated here once, so that no other place needs a cast.

const _: () = assert!(usize::BITS == u64::BITS, "a 64-bit platform is required");

/// The same number as a `usize`.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "asserted above")]
pub const fn to_usize(n: u64) -> usize {
    // `TryFrom` is not `const`, and would have an error that cannot occur.
    n as usize
}

/// The same number as a `u64`.
#[expect(clippy::as_conversions, reason = "asserted above")]
pub const fn to_u64(n: usize) -> u64 {
    n as u64
}
