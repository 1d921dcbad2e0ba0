//! The contract of [`StagingStore`].
//!
//! An object that is being written is not there: no listing shows it and no read finds it, however
//! much was written and flushed. Committed it is there as a whole; dropped it leaves nothing. What
//! was committed survives the removal of what was not.

use tier_types::{Call, StagingStore};

use super::object_store::{assert_missing, name, names, read};

/// Runs the contract of [`StagingStore`] on an empty store.
pub fn check_staging_store(store: &dyn StagingStore) {
    let (a, b, c) = (name("x/a"), name("x/b"), name("c"));
    let mut first = store.stage(&a).unwrap();
    let mut second = store.stage(&c).unwrap();
    first.write(b"hel").unwrap();
    let flush = first.flush_handle().unwrap();
    second.write(b"other").unwrap();
    first.write(b"lo").unwrap();
    std::thread::spawn(move || flush().unwrap()).join().unwrap();
    assert_missing(store, &a);
    assert_eq!(names(store, ""), [], "not committed");
    first.commit().unwrap();
    assert_eq!(read(store, &a), b"hello");
    assert_missing(store, &c);
    second.commit().unwrap();
    assert_eq!(read(store, &c), b"other");
    store.stage(&b).unwrap().commit().unwrap();
    assert_eq!(read(store, &b), b"", "an object may be empty");
    store.delete(&Call::bulk(), &b, None).unwrap();

    let mut given_up = store.stage(&b).unwrap();
    given_up.write(b"never").unwrap();
    drop(given_up);
    assert_missing(store, &b);
    store.discard_staged().unwrap();
    assert_eq!(names(store, ""), [c, a], "what was committed stays");
}
