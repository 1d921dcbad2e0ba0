//! A table of contents.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    tier_persist::fuzzing::table_of_contents(bytes);
});
