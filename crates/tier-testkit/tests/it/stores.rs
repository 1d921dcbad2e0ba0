//! Stores that break on purpose.

use std::sync::Arc;

use tier_testkit::{Fault, FaultyStore, MemoryStore};
use tier_types::{Call, Created, ErrorKind, ObjectName, ObjectStore};

#[test]
fn a_faulty_store_breaks_where_it_was_told() {
    let call = Call::bulk();
    let store = FaultyStore::new(Arc::new(MemoryStore::default()));
    let name = ObjectName::new("a").unwrap();
    store.break_at(1, Fault::Crash);
    store.put(&call, &name, &&b"x"[..]).unwrap();
    store.metadata(&call, &name).unwrap_err();
    store.metadata(&call, &name).unwrap_err();
    assert_eq!(store.broken().unwrap(), "Crash in operation 1, metadata a");
    store.break_at(0, Fault::FlippedBit);
    let mut buffer = [0];
    store.read_range(&call, &name, 0, &mut buffer).unwrap();
    assert_eq!(buffer, [b'x' ^ 1]);
    let claim = ObjectName::new("claim").unwrap();
    store.break_at(0, Fault::LostAnswer);
    let unanswered = store.create(&call, &claim, &&b"mine"[..]).unwrap_err();
    assert_eq!(unanswered.kind(), ErrorKind::Away);
    let again = store.create(&call, &claim, &&b"mine"[..]).unwrap();
    assert!(matches!(again, Created::Exists(there) if there.len_bytes == 4), "it was done");
}
