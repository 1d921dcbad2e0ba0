//! A zstd seek table.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    tier_persist::fuzzing::seek_table(bytes);
});
