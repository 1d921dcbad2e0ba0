//! Wire structs as postcard bytes (<https://postcard.jamesmunns.com/wire-format>).
//!
//! Postcard writes a struct and a tuple alike: the fields one after another, without names. So a
//! wire struct may have field names where an earlier program had a tuple, and the bytes stay.

use postcard::{from_bytes, take_from_bytes, to_extend};
use serde::{Deserialize, Serialize};

/// Appends a value.
#[expect(clippy::expect_used, reason = "the wire structs have no sequence of unknown length")]
pub(crate) fn append(value: &impl Serialize, out: &mut Vec<u8>) {
    // The serialiser takes the vector by value and gives it back: nothing is copied.
    let taken = std::mem::take(out);
    *out = to_extend(value, taken).expect("plain values are serialised into memory");
}

/// The bytes of a value.
pub(crate) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    append(value, &mut out);
    out
}

/// The value at the start of some bytes, whatever follows it.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    from_bytes(bytes).ok()
}

/// The value at the start of some bytes, and the rest of them.
pub(crate) fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(T, &'a [u8])> {
    take_from_bytes(bytes).ok()
}
