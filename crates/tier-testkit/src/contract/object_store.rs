//! The contract of [`ObjectStore`].
//!
//! What is not there is missing, under every operation, and errors name the object. A range beyond
//! the end is damage. A name is taken once: the same length again changes nothing, another length is
//! refused, a put that fails leaves nothing, and of several puts at a time one wins as a whole.
//! Names are listed by prefix, sorted. Deleting what is not there is no error.

use std::thread;

use tier_types::{ErrorKind, ObjectName, ObjectStore, to_u64, to_usize};

/// Runs the contract of [`ObjectStore`] on an empty store.
pub fn check_object_store(store: &dyn ObjectStore) {
    what_is_not_there_is_missing(store);
    ranges_are_read_and_short_objects_are_damaged(store);
    a_name_is_taken_once(store);
    a_put_that_fails_leaves_nothing(store);
    names_are_listed_by_prefix(store);
    deleted_objects_are_gone(store);
    one_of_many_puts_wins(store);
}

pub(super) fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

pub(super) fn put(store: &dyn ObjectStore, name: &ObjectName, content: &[u8]) {
    store.put(name, to_u64(content.len()), &mut &*content).unwrap();
}

pub(super) fn read(store: &dyn ObjectStore, name: &ObjectName) -> Vec<u8> {
    let mut bytes = vec![0; to_usize(store.len_bytes(name).unwrap())];
    store.read_range(name, 0, &mut bytes).unwrap();
    bytes
}

pub(super) fn assert_missing(store: &dyn ObjectStore, name: &ObjectName) {
    let error = store.len_bytes(name).expect_err("the object is not there");
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    assert!(error.to_string().contains(name.as_str()), "errors name the object: {error}");
    let error = store.read_range(name, 0, &mut [0]).expect_err("the object is not there");
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    assert!(!store.list("").unwrap().contains(name), "{name} is listed");
}

fn what_is_not_there_is_missing(store: &dyn ObjectStore) {
    assert_eq!(store.list("").unwrap(), []);
    assert_missing(store, &name("x/a"));
}

fn ranges_are_read_and_short_objects_are_damaged(store: &dyn ObjectStore) {
    let (a, empty) = (name("x/a"), name("x/empty"));
    put(store, &a, b"hello");
    put(store, &empty, b"");
    assert_eq!((store.len_bytes(&a).unwrap(), store.len_bytes(&empty).unwrap()), (5, 0));
    assert_eq!(read(store, &a), b"hello");
    let mut buffer = [0; 3];
    store.read_range(&a, 1, &mut buffer).unwrap();
    assert_eq!(&buffer, b"ell");
    for (name, offset) in [(&a, 3), (&a, 5), (&a, u64::from(u32::MAX)), (&empty, 0)] {
        let read = store.read_range(name, offset, &mut buffer);
        let error = read.expect_err("a short read is damage");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(name.as_str()), "errors name the object: {error}");
    }
}

fn a_name_is_taken_once(store: &dyn ObjectStore) {
    let a = name("x/a");
    put(store, &a, b"hello");
    put(store, &a, b"other");
    assert_eq!(read(store, &a), b"hello", "a name of this length is taken: nothing changes");
    let refused = store.put(&a, 4, &mut &b"else"[..]).unwrap_err();
    assert!(refused.to_string().contains(a.as_str()), "errors name the object: {refused}");
    assert_eq!(read(store, &a), b"hello", "an object is immutable");
}

fn a_put_that_fails_leaves_nothing(store: &dyn ObjectStore) {
    let short = name("x/short");
    store.put(&short, 9, &mut &b"short"[..]).expect_err("the content ends before its length");
    assert_missing(store, &short);
    put(store, &short, b"long now");
    assert_eq!(read(store, &short), b"long now");
    store.delete(&short).unwrap();
}

fn names_are_listed_by_prefix(store: &dyn ObjectStore) {
    put(store, &name("x/b/deeper"), b"b");
    put(store, &name("w"), b"w");
    let all = ["w", "x/a", "x/b/deeper", "x/empty"].map(name);
    assert_eq!(store.list("").unwrap(), all, "sorted");
    assert_eq!(store.list("x/").unwrap(), all[1..]);
    assert_eq!(store.list("x/b").unwrap(), all[2..3], "a prefix need not end at a slash");
    assert_eq!(store.list("x/b/deeper").unwrap(), all[2..3]);
    assert_eq!(store.list("y").unwrap(), []);
}

fn deleted_objects_are_gone(store: &dyn ObjectStore) {
    for text in ["w", "x/a", "x/b/deeper", "x/empty"] {
        store.delete(&name(text)).unwrap();
        assert_missing(store, &name(text));
        store.delete(&name(text)).expect("one that is not there is no error");
    }
    assert_eq!(store.list("").unwrap(), []);
}

fn one_of_many_puts_wins(store: &dyn ObjectStore) {
    let contested = name("x/contested");
    thread::scope(|scope| {
        for byte in 1..=4_u8 {
            let contested = &contested;
            scope.spawn(move || put(store, contested, &vec![byte; 10_000]));
        }
    });
    let bytes = read(store, &contested);
    assert_eq!(bytes.len(), 10_000);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "an object is of one put");
    assert_eq!(store.list("").unwrap(), std::slice::from_ref(&contested));
    store.delete(&contested).unwrap();
}
