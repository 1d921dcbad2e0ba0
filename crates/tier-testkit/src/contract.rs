//! What every implementation of a port must do.

use tier_types::{ErrorKind, LogService, ObjectName, ObjectStore, StagingStore, Xid, XidRange};

/// Runs the contract of [`ObjectStore`] on an empty store.
pub fn check_object_store(store: &dyn ObjectStore) {
    let name = |text: &str| ObjectName::new(text).unwrap();
    let (a, b) = (name("x/a"), name("x/b"));
    assert_eq!(store.len_bytes(&a).unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(store.read_range(&a, 0, &mut [0]).unwrap_err().kind(), ErrorKind::Missing);
    store.put(&a, 5, &mut &b"hello"[..]).unwrap();
    store.put(&b, 0, &mut &b""[..]).unwrap();
    assert_eq!((store.len_bytes(&a).unwrap(), store.len_bytes(&b).unwrap()), (5, 0));
    let mut buffer = [0; 3];
    store.read_range(&a, 1, &mut buffer).unwrap();
    assert_eq!(&buffer, b"ell");
    let beyond = store.read_range(&a, 3, &mut buffer).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::Damaged, "a short read is damage: {beyond}");
    // The same again is no error, other bytes under the same name are.
    store.put(&a, 5, &mut &b"hello"[..]).unwrap();
    assert!(store.put(&a, 4, &mut &b"else"[..]).is_err());
    assert!(store.put(&name("x/c"), 9, &mut &b"short"[..]).is_err());
    assert_eq!(store.list("x/").unwrap(), [a.clone(), b.clone()]);
    assert_eq!(store.list("x/b").unwrap(), [b]);
    store.delete(&a).unwrap();
    store.delete(&a).unwrap();
    assert_eq!(store.len_bytes(&a).unwrap_err().kind(), ErrorKind::Missing);
}

/// Runs the contract of [`StagingStore`] on an empty store.
pub fn check_staging_store(store: &dyn StagingStore) {
    let name = |text: &str| ObjectName::new(text).unwrap();
    let (a, b) = (name("x/a"), name("x/b"));
    let mut staged = store.stage(&a).unwrap();
    staged.write(b"hel").unwrap();
    let flush = staged.flush_handle().unwrap();
    staged.write(b"lo").unwrap();
    flush().unwrap();
    assert_eq!(store.len_bytes(&a).unwrap_err().kind(), ErrorKind::Missing, "not committed");
    assert_eq!(store.list("").unwrap(), []);
    staged.commit().unwrap();
    let mut buffer = [0; 5];
    store.read_range(&a, 0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    let mut given_up = store.stage(&b).unwrap();
    given_up.write(b"never").unwrap();
    drop(given_up);
    store.discard_staged().unwrap();
    assert_eq!(store.list("").unwrap(), [a]);
}

/// Runs the contract of [`LogService`]. `act` does something that is logged, at least once.
pub fn check_log_service(log: &dyn LogService, act: &dyn Fn()) {
    act();
    let before = log.last_xid();
    let first = log.publish().unwrap().expect("something was logged");
    assert_eq!(first.range.last(), before);
    assert_eq!(log.publish().unwrap(), None, "nothing was logged since");
    act();
    let second = log.publish().unwrap().expect("something was logged");
    assert_eq!(second.range.start(), first.range.end(), "published segments have no gaps");
    let all = XidRange::new(first.range.start(), second.range.end()).unwrap();
    let mut seen = Vec::new();
    tier_log::read_range(log, all, |_, record| {
        seen.push(record.xid);
        Ok::<(), tier_log::LogError>(())
    })
    .unwrap();
    let expected: Vec<_> = (all.start().get()..all.end().get()).map(Xid::new).collect();
    assert_eq!(seen, expected, "every transaction once, in order");
    let beyond = XidRange::new(all.start(), all.end().next()).unwrap();
    let gap = tier_log::read_range(log, beyond, |_, _| Ok::<(), tier_log::LogError>(()));
    assert!(matches!(gap, Err(tier_log::LogError::Gap { .. })), "{gap:?}");
    log.retire_segments(first.range.last()).unwrap();
    let left: Vec<_> = log.segments(all).unwrap().iter().map(|info| info.range).collect();
    assert_eq!(left, [second.range]);
}
