//! Real servers that speak the protocols of clouds keep the contract of the port.

use tier_cloud::{RemoteStore, RemoteUrl};
use tier_testkit::contract;
use tier_testkit::servers::{Azurite, Seaweed};

/// The store at a URL, with keys.
pub(crate) fn open(url: &str, environment: &[(&str, &str)]) -> RemoteStore {
    let url = RemoteUrl::parse(url).unwrap().unwrap();
    let variables = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    RemoteStore::open_with(&url, &variables.collect::<Vec<_>>()).unwrap()
}

#[test]
fn seaweedfs_keeps_the_contract() {
    let Some(server) = Seaweed::start() else { return };
    let (bucket, query) = (server.make_bucket("bucket"), "?endpoint");
    let within = bucket.replacen(query, "/some/prefix?endpoint", 1);
    for url in [bucket, within] {
        contract::check_object_store(&open(&url, &Seaweed::ENVIRONMENT));
    }
}

#[test]
fn azure_keeps_the_contract() {
    let Some(server) = Azurite::start() else { return };
    let store = open(&server.make_container("container"), &Azurite::ENVIRONMENT);
    contract::check_object_store(&store);
}
