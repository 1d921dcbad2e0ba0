//! One log record; what is read is written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let xid = tier_types::Xid::new(7);
    if let Ok(record) = tier_log::LogRecord::from_bytes(xid, bytes) {
        let again = tier_log::LogRecord::from_bytes(xid, &record.to_bytes());
        assert_eq!(again.ok(), Some(record));
    }
});
