//! A zstd frame, and the row that the index keeps of a tarball.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    tier_persist::fuzzing::compressed_frame(bytes);
});
