//! A status log.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(log)) = tier_status::StatusLog::parse(bytes, std::path::Path::new("fuzz")) {
        let _ = log.status();
    }
});
