//! The contents of checkpoints.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    tier_persist::fuzzing::checkpoint(bytes);
});
