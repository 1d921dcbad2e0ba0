//! Keys and values of the filesystem.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.len().min(24);
    let (key, value) = bytes.split_at(cut);
    kvfs::fuzzing::pair(key, value);
});
