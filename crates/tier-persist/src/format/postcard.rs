//! Wire structs as postcard bytes (<https://postcard.jamesmunns.com/wire-format>).
//!
//! Postcard writes a struct and a tuple alike: the fields one after another, without names. So a
//! wire struct may have field names where an earlier program had a tuple, and the bytes stay.

use postcard::{from_bytes, take_from_bytes, to_extend};
use serde::{Deserialize, Serialize};
use tier_types::to_u64;

/// Appends a value.
#[expect(clippy::expect_used, reason = "the wire structs have no sequence of unknown length")]
pub(crate) fn append(value: &impl Serialize, out: &mut Vec<u8>) {
    // The serialiser takes the vector by value and gives it back: nothing is copied.
    let taken = std::mem::take(out);
    *out = to_extend(value, taken).expect("plain values are serialised into memory");
}

/// Appends a value with its length in front, as a postcard number. A reader finds what follows also
/// behind a value of a later version, which has more fields than it knows.
pub(crate) fn append_with_length(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    append(value, out);
    // Behind the value first, where there is room, and then turned round: nothing is allocated.
    let value_bytes = out.len() - start;
    append(&to_u64(value_bytes), out);
    if let Some(both) = out.get_mut(start..) {
        both.rotate_left(value_bytes);
    }
}

/// The value at the start of some bytes that has its length in front, and the rest of them.
pub(crate) fn take_with_length<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(T, &'a [u8])> {
    let (value_bytes, rest) = take::<u64>(bytes)?;
    let value_bytes = usize::try_from(value_bytes).ok()?;
    let (value, rest) = rest.split_at_checked(value_bytes)?;
    Some((parse(value)?, rest))
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
