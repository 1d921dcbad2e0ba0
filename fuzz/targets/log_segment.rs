//! A published log segment.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::path::Path::new("fuzz");
    if let Ok(reader) = tier_log::SegmentReader::new(bytes, path) {
        for record in reader {
            if record.is_err() {
                break;
            }
        }
    }
});
