//! The contract of [`ObjectStore`].
//!
//! What is not there is missing, under every operation, and errors name the object. A range beyond
//! the end is damage. A name is taken once: the same length again changes nothing, another length
//! is a conflict, a put that fails leaves nothing, and of several puts at a time one wins as a
//! whole. Of several creations one is new, and the others learn what is there. Names are listed by
//! prefix, sorted, from any of them on. Deleting what is not there is no error, and another version
//! than the one that was seen stays. A call that was cancelled or is late does nothing.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use tier_types::{
    Call, Created, ErrorKind, ListedObject, ObjectContent, ObjectName, ObjectStore, ObjectVersion,
    PortError, RangeRead, to_u64, to_usize,
};

const CALL: Call<'static> = Call::bulk();

/// How often writers meet at one name. A store with several nodes takes a second for each.
const N_ROUNDS: u32 = 4;

/// Runs the contract of [`ObjectStore`] on an empty store.
pub fn check_object_store(store: &dyn ObjectStore) {
    assert!(store.url().contains(':'), "a URL says where the objects are");
    what_is_not_there_is_missing(store);
    ranges_are_read_and_short_objects_are_damaged(store);
    a_stream_is_the_object_in_order(store);
    a_name_is_taken_once(store);
    a_name_is_created_once(store);
    a_put_that_fails_leaves_nothing(store);
    a_call_that_is_given_up_does_nothing(store);
    names_are_listed_by_prefix(store);
    deleted_objects_are_gone(store);
    listings_go_on_behind_a_name(store);
    one_of_many_puts_wins(store);
    one_of_puts_of_different_lengths_wins(store);
    one_of_many_creations_is_new(store);
}

pub(super) fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

pub(super) fn put(store: &dyn ObjectStore, name: &ObjectName, content: &[u8]) {
    store.put(&CALL, name, &content).unwrap();
}

fn create(store: &dyn ObjectStore, name: &ObjectName, content: &[u8]) -> Created {
    store.create(&CALL, name, &content).unwrap()
}

fn len_bytes(store: &dyn ObjectStore, name: &ObjectName) -> u64 {
    store.metadata(&CALL, name).unwrap().len_bytes
}

pub(super) fn names(store: &dyn ObjectStore, prefix: &str) -> Vec<ObjectName> {
    store.names(&CALL, prefix).unwrap()
}

pub(super) fn read(store: &dyn ObjectStore, name: &ObjectName) -> Vec<u8> {
    let mut bytes = vec![0; to_usize(len_bytes(store, name))];
    store.read_range(&CALL, name, 0, &mut bytes).unwrap();
    bytes
}

fn streamed(store: &dyn ObjectStore, name: &ObjectName, offset: u64) -> Result<Vec<u8>, PortError> {
    let mut bytes = Vec::new();
    store.stream(&CALL, name, offset, &mut |piece| {
        assert!(!piece.is_empty(), "a piece has bytes");
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

pub(super) fn assert_missing(store: &dyn ObjectStore, name: &ObjectName) {
    let mut buffer = [0];
    let answers = [
        store.metadata(&CALL, name).map(drop),
        store.read_range(&CALL, name, 0, &mut buffer),
        streamed(store, name, 0).map(drop),
    ];
    for answer in answers {
        let error = answer.expect_err("the object is not there");
        assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
        assert!(error.to_string().contains(name.as_str()), "errors name the object: {error}");
    }
    assert!(!names(store, "").contains(name), "{name} is listed");
}

fn what_is_not_there_is_missing(store: &dyn ObjectStore) {
    assert_eq!(names(store, ""), []);
    assert_missing(store, &name("x/a"));
}

fn ranges_are_read_and_short_objects_are_damaged(store: &dyn ObjectStore) {
    let (a, empty) = (name("x/a"), name("x/empty"));
    put(store, &a, b"hello");
    put(store, &empty, b"");
    assert_eq!((len_bytes(store, &a), len_bytes(store, &empty)), (5, 0));
    assert_eq!(read(store, &a), b"hello");
    let (mut end, mut start) = ([0; 3], [0; 2]);
    let ranges = &mut [
        RangeRead { offset_bytes: 2, buffer: &mut end },
        RangeRead { offset_bytes: 0, buffer: &mut start },
    ];
    store.read_ranges(&CALL, &a, ranges).unwrap();
    assert_eq!((&end, &start), (b"llo", b"he"), "each range in its buffer, in any order");
    let mut buffer = [0; 3];
    for (name, offset) in [(&a, 3), (&a, 5), (&a, u64::from(u32::MAX)), (&empty, 0)] {
        let read = store.read_range(&CALL, name, offset, &mut buffer);
        let error = read.expect_err("a short read is damage");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(name.as_str()), "errors name the object: {error}");
    }
}

fn a_stream_is_the_object_in_order(store: &dyn ObjectStore) {
    let long = name("x/long");
    let content: Vec<u8> = (0..750_000_u32).flat_map(u32::to_le_bytes).collect();
    put(store, &long, &content);
    assert_eq!(streamed(store, &long, 0).unwrap(), content, "all of it, in order");
    let rest = streamed(store, &long, 2_999_999).unwrap();
    assert_eq!(rest, content[2_999_999..], "from its offset on");
    assert_eq!(streamed(store, &long, 3_000_000).unwrap(), b"");
    let error = streamed(store, &long, 3_000_001).expect_err("it ends before");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let mut n_pieces = 0;
    let ended = store.stream(&CALL, &long, 0, &mut |_| {
        n_pieces += 1;
        Err(PortError::new(ErrorKind::Cancelled, "enough"))
    });
    assert_eq!((n_pieces, ended.unwrap_err().kind()), (1, ErrorKind::Cancelled));
    store.delete(&CALL, &long, None).unwrap();
}

fn a_name_is_taken_once(store: &dyn ObjectStore) {
    let a = name("x/a");
    put(store, &a, b"hello");
    put(store, &a, b"other");
    assert_eq!(read(store, &a), b"hello", "a name of this length is taken: nothing changes");
    let refused = store.put(&CALL, &a, &&b"else"[..]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(refused.to_string().contains(a.as_str()), "errors name the object: {refused}");
    assert_eq!(read(store, &a), b"hello", "an object is immutable");
}

fn a_name_is_created_once(store: &dyn ObjectStore) {
    let (a, made) = (name("x/a"), name("x/made"));
    assert_eq!(create(store, &made, b"first"), Created::New);
    let there = store.metadata(&CALL, &made).unwrap();
    assert_eq!(there.len_bytes, 5);
    for content in [b"first".as_slice(), b"other", b"longer than that", b""] {
        assert_eq!(create(store, &made, content), Created::Exists(there.clone()), "it is taken");
    }
    assert_eq!(read(store, &made), b"first", "an object is immutable");
    let there = store.metadata(&CALL, &a).unwrap();
    assert_eq!(create(store, &a, b"mine"), Created::Exists(there), "also by what was put");
    store.delete(&CALL, &made, None).unwrap();
}

/// So much of it can be read, more than a store takes at once.
const GOOD_BYTES: usize = 3 << 20;

/// Content that cannot be read to its end.
struct Unreadable;

impl ObjectContent for Unreadable {
    fn len_bytes(&self) -> u64 {
        2 * to_u64(GOOD_BYTES)
    }

    fn read_at(&self, _: &Call<'_>, offset_bytes: u64, buffer: &mut [u8]) -> Result<(), PortError> {
        if offset_bytes < to_u64(GOOD_BYTES) && to_usize(offset_bytes) + buffer.len() <= GOOD_BYTES
        {
            buffer.fill(7);
            return Ok(());
        }
        Err(PortError::new(ErrorKind::Damaged, "the content of x/short ends too early"))
    }
}

fn a_put_that_fails_leaves_nothing(store: &dyn ObjectStore) {
    let short = name("x/short");
    let put_error = store.put(&CALL, &short, &Unreadable).expect_err("it cannot be read");
    assert_eq!(put_error.kind(), ErrorKind::Damaged, "the error of the content: {put_error}");
    assert_missing(store, &short);
    store.create(&CALL, &short, &Unreadable).expect_err("it cannot be read");
    assert_missing(store, &short);
    put(store, &short, b"long now");
    assert_eq!(read(store, &short), b"long now");
    store.delete(&CALL, &short, None).unwrap();
}

fn a_call_that_is_given_up_does_nothing(store: &dyn ObjectStore) {
    let (a, other) = (name("x/a"), name("x/other"));
    let flag = AtomicBool::new(true);
    let given_up = [
        (Call::interactive().cancelled_by(&flag), ErrorKind::Cancelled),
        (Call::bulk().within(Duration::ZERO), ErrorKind::Away),
    ];
    for (call, kind) in given_up {
        let content = &&b"bytes"[..];
        let mut buffer = [0];
        let answers = [
            store.put(&call, &other, content),
            store.create(&call, &other, content).map(drop),
            store.metadata(&call, &a).map(drop),
            store.read_range(&call, &a, 0, &mut buffer),
            store.stream(&call, &a, 0, &mut |_| unreachable!("nothing is streamed")),
            store.list(&call, "", None).map(drop),
            store.delete(&call, &a, None),
        ];
        for answer in answers {
            assert_eq!(answer.expect_err("it is given up").kind(), kind);
        }
    }
    assert_missing(store, &other);
    assert_eq!(read(store, &a), b"hello");
}

fn names_are_listed_by_prefix(store: &dyn ObjectStore) {
    put(store, &name("x/b/deeper"), b"b");
    put(store, &name("x/b-c"), b"b");
    put(store, &name("w"), b"w");
    let all = ["w", "x/a", "x/b-c", "x/b/deeper", "x/empty"].map(name);
    assert_eq!(names(store, ""), all, "sorted");
    assert_eq!(names(store, "x/"), all[1..]);
    assert_eq!(names(store, "x/b"), all[2..4], "a prefix need not end at a slash");
    assert_eq!(names(store, "x/b/"), all[3..4]);
    assert_eq!(names(store, "x/b/deeper"), all[3..4]);
    assert_eq!(names(store, "y"), []);
    let w = ListedObject { name: name("w"), len_bytes: 1 };
    assert_eq!(store.list(&CALL, "w", None).unwrap().objects, [w], "with lengths");
}

fn deleted_objects_are_gone(store: &dyn ObjectStore) {
    let w = name("w");
    let seen = store.metadata(&CALL, &w).unwrap().version;
    let another = ObjectVersion("another".into());
    let error = store.delete(&CALL, &w, Some(&another)).expect_err("it is not that one");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(read(store, &w), b"w", "another version than the one that was seen stays");
    store.delete(&CALL, &w, Some(&seen)).unwrap();
    store.delete(&CALL, &w, Some(&seen)).expect("one that is not there is no error");
    put(store, &w, b"v");
    let error = store.delete(&CALL, &w, Some(&seen)).expect_err("it is not that one");
    assert_eq!(error.kind(), ErrorKind::Conflict, "other bytes are another object: {error}");
    for text in ["w", "x/a", "x/b-c", "x/b/deeper", "x/empty"] {
        store.delete(&CALL, &name(text), None).unwrap();
        assert_missing(store, &name(text));
        store.delete(&CALL, &name(text), None).expect("one that is not there is no error");
    }
    assert_eq!(names(store, ""), []);
}

fn listings_go_on_behind_a_name(store: &dyn ObjectStore) {
    let mut all: Vec<_> = (0..40).map(|n| name(&format!("p{}/q-{}/{n}", n % 3, n % 2))).collect();
    all.extend((0..5).map(|n| name(&format!("p{n}-"))));
    all.extend((0..5).map(|n| name(&format!("p1/q{n}-"))));
    all.sort();
    for object in &all {
        put(store, object, b"x");
    }
    assert_eq!(names(store, ""), all, "page by page, none twice and none left out");
    for after in &all {
        let mut behind = all.iter().filter(|object| *object > after);
        let page = store.list(&CALL, "", Some(after)).unwrap();
        let first = page.objects.first().map(|object| &object.name);
        assert_eq!(first, behind.next(), "behind {after}");
    }
    for object in &all {
        store.delete(&CALL, object, None).unwrap();
    }
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
    assert_eq!(names(store, ""), std::slice::from_ref(&contested));
    store.delete(&CALL, &contested, None).unwrap();
}

fn one_of_puts_of_different_lengths_wins(store: &dyn ObjectStore) {
    for round in 0..N_ROUNDS {
        let contested = name(&format!("x/lengths-{round}"));
        let n_done = thread::scope(|scope| {
            let put_some = |len: usize| {
                let contested = &contested;
                scope.spawn(move || store.put(&CALL, contested, &vec![7; len].as_slice()).is_ok())
            };
            let threads: Vec<_> = [10, 20, 30, 40].map(put_some).into_iter().collect();
            threads.into_iter().filter_map(|thread| thread.join().ok().filter(|done| *done)).count()
        });
        assert_eq!(n_done, 1, "an object that was put is not replaced");
        store.delete(&CALL, &contested, None).unwrap();
    }
}

fn one_of_many_creations_is_new(store: &dyn ObjectStore) {
    for round in 0..N_ROUNDS {
        let contested = name(&format!("x/claim-{round}"));
        let winners: Vec<_> = thread::scope(|scope| {
            let create_with = |byte: u8| {
                let contested = &contested;
                scope.spawn(move || (byte, create(store, contested, &[byte; 100])))
            };
            let threads: Vec<_> = (1..=4).map(create_with).collect();
            let answers = threads.into_iter().map(|thread| thread.join().unwrap());
            answers.filter(|(_, created)| *created == Created::New).map(|(byte, _)| byte).collect()
        });
        assert_eq!(winners.len(), 1, "one of them is told that it is new");
        assert_eq!(read(store, &contested), [winners[0]; 100], "and its object is the one");
        store.delete(&CALL, &contested, None).unwrap();
    }
}
