//! Keys and values of the index.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.len().min(20);
    let (key, value) = bytes.split_at(cut);
    tier_index::fuzzing::pair(key, value);
});
