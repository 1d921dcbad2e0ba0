//! A manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;

static KEYS: std::sync::OnceLock<tier_persist::Keys> = std::sync::OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let keys = KEYS.get_or_init(|| tier_persist::Keys::generate().unwrap());
    tier_persist::fuzzing::manifest(bytes, keys);
});
