//! Real servers that speak the protocols of clouds keep the contract of the port.

use tier_cloud::{RemoteStore, RemoteUrl};
use tier_testkit::contract;
use tier_testkit::servers::{Azurite, FakeGcs, S3rver, Seaweed};
use tier_types::{Call, Created, ErrorKind, ObjectName, ObjectStore, StorageClass};

/// The store at a URL, with keys.
pub(crate) fn open(url: &str, environment: &[(&str, &str)]) -> RemoteStore {
    let url = RemoteUrl::parse(url).unwrap().unwrap();
    let variables = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    RemoteStore::open_with(&url, &variables.collect::<Vec<_>>()).unwrap()
}

#[test]
fn seaweedfs_keeps_the_contract() {
    let Some(server) = Seaweed::start() else { return };
    let store = open(&server.make_bucket("bucket"), &Seaweed::ENVIRONMENT);
    contract::check_object_store(&store);
}

#[test]
fn google_keeps_the_contract() {
    let Some(server) = FakeGcs::start() else { return };
    let store = open(&server.bucket(), &FakeGcs::ENVIRONMENT);
    contract::check_object_store(&store);
}

#[test]
fn large_objects_go_up_in_parts_everywhere() {
    let content = tier_testkit::noise(17 << 20, 1);
    let put = |store: &dyn ObjectStore| {
        let name = ObjectName::new("large").unwrap();
        store.put(&Call::bulk(), &name, &content.as_slice()).unwrap();
        let mut bytes = vec![0; content.len()];
        store.read_range(&Call::bulk(), &name, 0, &mut bytes).unwrap();
        assert!(bytes == content, "{}", store.url());
    };
    if let Some(server) = FakeGcs::start() {
        put(&open(&server.bucket(), &FakeGcs::ENVIRONMENT));
    }
    if let Some(server) = Azurite::start() {
        put(&open(&server.make_container("container"), &Azurite::ENVIRONMENT));
    }
    if let Some(server) = S3rver::start() {
        put(&open(&server.bucket(), &S3rver::ENVIRONMENT));
    }
}

#[test]
fn some_stores_refuse_what_changed_on_its_way() {
    let name = ObjectName::new("fs/probes/one").unwrap();
    let refuses = |store: &dyn ObjectStore| {
        let refuses = store.refuses_changed(&Call::bulk(), &name).unwrap();
        assert_eq!(store.names(&Call::bulk(), "").unwrap(), [], "nothing is left");
        refuses
    };
    if let Some(server) = Seaweed::start() {
        assert!(refuses(&open(&server.make_bucket("bucket"), &Seaweed::ENVIRONMENT)));
    }
    if let Some(server) = S3rver::start() {
        assert!(!refuses(&open(&server.bucket(), &S3rver::ENVIRONMENT)));
    }
    if let Some(server) = Azurite::start() {
        let store = open(&server.make_container("container"), &Azurite::ENVIRONMENT);
        assert!(!refuses(&store), "the library sends no checksum");
    }
}

#[test]
fn what_is_frozen_says_so_and_is_thawed_once() {
    let Some(server) = Azurite::start() else { return };
    let store = open(&server.make_container("container"), &Azurite::ENVIRONMENT);
    let (call, name) = (Call::bulk(), ObjectName::new("a/b").unwrap());
    store.put(&call, &name, &&b"hello"[..]).unwrap();
    assert_eq!(store.thaw(&call, &name).unwrap(), None, "it can be read");
    server.freeze("container", "a/b");
    let class = || store.metadata(&call, &name).unwrap().class;
    let StorageClass::Frozen { within } = class() else { panic!("{:?}", class()) };
    let error = store.read_range(&call, &name, 0, &mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Frozen { .. }), "{error}");
    let streamed = store.stream(&call, &name, 0, &mut |_| Ok(())).unwrap_err();
    assert!(matches!(streamed.kind(), ErrorKind::Frozen { .. }), "{streamed}");
    assert_eq!(store.thaw(&call, &name).unwrap(), Some(within));
    // The emulator may thaw it at once.
    let n_writes = store.counts().n_writes;
    if class() != StorageClass::Online {
        assert_eq!(class(), StorageClass::Thawing { within });
        assert_eq!(store.thaw(&call, &name).unwrap(), Some(within));
    }
    assert_eq!(store.counts().n_writes, n_writes, "it is not asked for again");
}

#[test]
fn the_url_says_which_place_it_is_and_the_environment_nothing_of_it() {
    let Some(server) = Seaweed::start() else { return };
    let url = server.make_bucket("bucket").replacen("?endpoint", "/some/prefix?endpoint", 1);
    let [id, secret] = Seaweed::ENVIRONMENT;
    let elsewhere = [
        id,
        secret,
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_REGION", "elsewhere"),
        ("AWS_BUCKET", "another"),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
        ("AWS_CONDITIONAL_PUT", "disabled"),
    ];
    let (call, name) = (Call::bulk(), ObjectName::new("a").unwrap());
    let store = open(&url, &elsewhere);
    assert_eq!(store.url(), url);
    assert_eq!(store.create(&call, &name, &&b"hello"[..]).unwrap(), Created::New);
    let whole = open(&server.url("bucket"), &Seaweed::ENVIRONMENT);
    let names = whole.names(&call, "").unwrap();
    assert_eq!(names, [ObjectName::new("some/prefix/a").unwrap()], "below its prefix");
}

#[test]
fn azure_keeps_the_contract() {
    let Some(server) = Azurite::start() else { return };
    let store = open(&server.make_container("container"), &Azurite::ENVIRONMENT);
    contract::check_object_store(&store);
}
