//! Stores that break on purpose.

use std::sync::Arc;

use tier_testkit::{Fault, FaultyStore, MemoryStore};
use tier_types::{ObjectName, ObjectStore};

#[test]
fn a_faulty_store_breaks_where_it_was_told() {
    let store = FaultyStore::new(Arc::new(MemoryStore::default()));
    let name = ObjectName::new("a").unwrap();
    store.break_at(1, Fault::Crash);
    store.put(&name, 1, &mut &b"x"[..]).unwrap();
    store.len_bytes(&name).unwrap_err();
    store.len_bytes(&name).unwrap_err();
    assert_eq!(store.broken().unwrap(), "Crash in operation 1, len a");
    store.break_at(0, Fault::FlippedBit);
    let mut buffer = [0];
    store.read_range(&name, 0, &mut buffer).unwrap();
    assert_eq!(buffer, [b'x' ^ 1]);
}
