//! A network that fails between a store and its server: what is repeated, and how often.

use std::time::Duration;

use tier_cloud::{RemoteStore, RequestCounts};
use tier_testkit::noise;
use tier_testkit::servers::{NetworkFault, Proxy, Seaweed};
use tier_types::{
    Call, Created, ErrorKind, ObjectName, ObjectStore, PortError, RangeRead, StoredContent, to_u64,
};

use crate::remote::open;

const CALL: Call<'static> = Call::bulk();
const LARGE_BYTES: usize = 40 << 20;

struct Scene {
    server: Seaweed,
    proxy: Proxy,
}

impl Scene {
    /// `None`, said loudly, on a machine without the server.
    fn new() -> Option<Self> {
        let server = Seaweed::start()?;
        server.make_bucket("bucket");
        Some(Self { proxy: Proxy::to(server.port()), server })
    }

    /// A store without connections, of which the first ones will fail.
    fn store(&self, faults: impl IntoIterator<Item = NetworkFault>) -> RemoteStore {
        self.proxy.fail(faults);
        open(&Seaweed::url_at(self.proxy.port(), "bucket"), &Seaweed::ENVIRONMENT)
    }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn put(store: &RemoteStore, text: &str, content: &[u8]) -> Result<(), PortError> {
    store.put(&CALL, &name(text), &content)
}

fn read(store: &RemoteStore, text: &str, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; len_bytes];
    store.read_range(&CALL, &name(text), 0, &mut bytes).unwrap();
    bytes
}

fn answer(status: &str, code: &str) -> NetworkFault {
    let body = format!("<Error><Code>{code}</Code></Error>");
    let head = format!("Content-Length: {}\r\nRetry-After: 1\r\nConnection: close", body.len());
    NetworkFault::Answer(format!("HTTP/1.1 {status} Because\r\n{head}\r\n\r\n{body}"))
}

#[test]
fn what_passes_is_repeated() {
    let Some(scene) = Scene::new() else { return };
    let store = scene.store([answer("503", "SlowDown"), answer("500", "InternalError")]);
    put(&store, "a", b"hello").unwrap();
    assert_eq!(store.counts().n_writes, 3, "two that failed, and one");
    let store = scene.store([answer("403", "AccessDenied")]);
    assert_eq!(put(&store, "b", b"hello").unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(store.counts().n_requests(), 1, "what does not pass is not repeated");
}

#[test]
fn a_lost_acknowledgement_is_no_conflict() {
    let Some(scene) = Scene::new() else { return };
    let store = scene.store([NetworkFault::Cut(0)]);
    put(&store, "a", b"hello").unwrap();
    assert_eq!(store.counts().n_writes, 2, "it is sent again, and finds itself");
    assert_eq!(read(&store, "a", 5), b"hello");
    // A creation is its caller's to repeat.
    let store = scene.store([NetworkFault::Cut(0)]);
    let create = || store.create(&CALL, &name("claim"), &&b"mine"[..]);
    assert_eq!(create().unwrap_err().kind(), ErrorKind::Away);
    assert_eq!(store.counts().n_requests(), 1, "it is not repeated");
    let created = loop {
        match create() {
            // The store is left alone for a moment after an error.
            Err(error) if error.kind() == ErrorKind::Away => std::thread::yield_now(),
            created => break created.unwrap(),
        }
    };
    assert!(matches!(created, Created::Exists(there) if there.len_bytes == 4));
}

#[test]
fn an_answer_that_breaks_off_is_gone_on_with() {
    let Some(scene) = Scene::new() else { return };
    let content = noise(8 << 20, 1);
    put(&scene.store([]), "a", &content).unwrap();
    let half = to_u64(content.len() / 2);
    let store = scene.store([NetworkFault::Cut(half)]);
    assert!(read(&store, "a", content.len()) == content, "the bytes are those that were put");
    let RequestCounts { n_reads, received_bytes, .. } = store.counts();
    assert_eq!(n_reads, 2);
    assert!(received_bytes < 2 * to_u64(content.len()), "only the rest is read again");
    let store = scene.store([NetworkFault::Cut(half), NetworkFault::Cut(half / 2)]);
    let mut streamed = Vec::new();
    let take = &mut |piece: &[u8]| {
        streamed.extend_from_slice(piece);
        Ok(())
    };
    store.stream(&CALL, &name("a"), 0, take).unwrap();
    assert!(streamed == content, "each byte once");
    assert_eq!(store.counts().n_reads, 3);
}

#[test]
fn of_a_large_object_a_part_is_repeated() {
    let Some(scene) = Scene::new() else { return };
    let content = noise(LARGE_BYTES, 1);
    // Questions come through, and parts do not: they take a connection each.
    let store = scene.store(vec![NetworkFault::CutRequest(1 << 20); 3]);
    put(&store, "large", &content).unwrap();
    let RequestCounts { n_heads, n_writes, sent_bytes, .. } = store.counts();
    assert_eq!(n_heads, 1);
    assert!((8..=10).contains(&n_writes), "{n_writes}: a beginning, five parts, an end, and again");
    assert!(sent_bytes < to_u64(LARGE_BYTES) * 2, "{sent_bytes}");
    assert!(read(&store, "large", LARGE_BYTES) == content, "it is whole");
    let store = scene.store([]);
    put(&store, "large", &content).unwrap();
    assert_eq!(store.counts().n_requests(), 1, "nothing is sent again");
    let other = put(&store, "large", &content[1..]).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict);
}

#[test]
fn a_store_that_is_away_is_left_alone_and_found_again() {
    let Some(scene) = Scene::new() else { return };
    let store = scene.store([]);
    put(&store, "a", &noise(1 << 20, 1)).unwrap();
    scene.proxy.set_away(true);
    let (mut near, mut far) = ([0], [0]);
    // Two requests.
    let mut ask = || {
        let ranges = &mut [
            RangeRead { offset_bytes: 0, buffer: &mut near },
            RangeRead { offset_bytes: 1_000_000, buffer: &mut far },
        ];
        store.read_ranges(&Call::interactive(), &name("a"), ranges)
    };
    assert_eq!(ask().unwrap_err().kind(), ErrorKind::Away);
    let n_connections = scene.proxy.n_connections();
    let error = ask().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away, "at once: {error}");
    assert!(error.to_string().contains("asked again"), "{error}");
    assert_eq!(scene.proxy.n_connections(), n_connections, "without a request");
    scene.proxy.set_away(false);
    while ask().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn an_error_of_one_object_is_no_absence_of_the_store() {
    let Some(scene) = Scene::new() else { return };
    let store = scene.store([answer("409", "ConditionalRequestConflict")]);
    let error = store.create(&CALL, &name("claim"), &&b"mine"[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away, "its caller may repeat it: {error}");
    assert_eq!(store.create(&CALL, &name("claim"), &&b"mine"[..]).unwrap(), Created::New);
}

#[test]
fn what_is_in_one_bucket_goes_into_another() {
    let Some(scene) = Scene::new() else { return };
    let content = noise(LARGE_BYTES, 1);
    let from = scene.store([]);
    put(&from, "large", &content).unwrap();
    scene.server.make_bucket("another");
    let to = open(&scene.server.url("another"), &Seaweed::ENVIRONMENT);
    let (large, len_bytes) = (name("large"), to_u64(LARGE_BYTES));
    let stored = StoredContent { store: &from, name: &large, len_bytes };
    to.put(&CALL, &large, &stored).unwrap();
    assert!(read(&to, "large", LARGE_BYTES) == content, "it is the same");
}

#[test]
fn a_request_that_takes_longer_than_others_is_made_again() {
    let Some(scene) = Scene::new() else { return };
    let store = scene.store([]);
    put(&store, "a", b"hello").unwrap();
    let reads = |n: u64| {
        let before = store.counts().n_reads;
        for _ in 0..n {
            let mut bytes = [0; 5];
            store.read_range(&Call::interactive(), &name("a"), 0, &mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
        }
        store.counts().n_reads - before
    };
    // Some of them may be slow by themselves.
    assert!((40..=42).contains(&reads(40)));
    scene.proxy.fail([NetworkFault::Hang]);
    assert_eq!(reads(1), 2, "the second one is answered");
    let of_bulk = store.counts().n_reads;
    assert_eq!(read(&store, "a", 5), b"hello");
    assert_eq!(store.counts().n_reads - of_bulk, 1, "nothing waits for it");
}

#[test]
fn a_server_that_hangs_costs_a_reader_its_deadline() {
    let Some(scene) = Scene::new() else { return };
    put(&scene.store([]), "a", b"hello").unwrap();
    let store = scene.store([NetworkFault::Hang]);
    let call = Call::interactive().within(Duration::from_millis(300));
    let error = store.read_range(&call, &name("a"), 0, &mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away, "{error}");
    assert!(error.to_string().contains("takes too long"), "{error}");
    assert_eq!(read(&store, "a", 5), b"hello", "the next one is answered");
}
