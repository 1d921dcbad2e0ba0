//! A store whose archive is in a real object store behind HTTP.

use std::fs;
use std::path::PathBuf;

use tier_testkit::servers::{Azurite, FakeGcs, Moto, NetworkFault, Proxy, S3rver, Seaweed};

use crate::harness::{Run, assert_same, command, find, make_tree};

/// A directory with a tree, an identity, and keys for the server.
struct Scene {
    dir: tempfile::TempDir,
    url: String,
    keys: Vec<(&'static str, &'static str)>,
}

impl Scene {
    fn new(url: String) -> Self {
        let keys = Seaweed::ENVIRONMENT.to_vec();
        let scene = Self { dir: tempfile::tempdir().unwrap(), url, keys };
        make_tree(&scene.path("tree"));
        scene.tier(&["keygen", "-o", "DIR/id"]).ok();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command; `DIR` is the directory, `URL` the cloud's.
    fn tier(&self, args: &[&str]) -> Run {
        let dir = self.dir.path().display().to_string();
        let args = args.iter().map(|arg| arg.replace("DIR", &dir).replace("URL", &self.url));
        let args: Vec<_> = args.collect();
        let mut command = command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        // Whatever the environment says of a cloud is another one's.
        let inherited = std::env::vars().map(|(name, _)| name);
        let places = ["AWS_", "AZURE_", "GOOGLE_"];
        for name in inherited.filter(|name| places.iter().any(|place| name.starts_with(place))) {
            command.env_remove(name);
        }
        Run::of(&command.envs(self.keys.iter().copied()).output().unwrap())
    }

    fn init(&self, store: &str) -> Run {
        self.tier(&["init", &format!("DIR/{store}"), "--identity", "DIR/id", "--cloud", "URL"])
    }

    fn check_export(&self, store: &str, name: &str) {
        self.tier(&["export", &format!("DIR/{store}"), "/", &format!("DIR/{name}")]).ok();
        assert_same(&self.path("tree"), &self.path(name));
    }
}

#[test]
fn a_store_lives_in_a_bucket() {
    let Some(server) = Seaweed::start() else { return };
    lives(&Scene::new(server.make_bucket("bucket").replace("bucket?", "bucket/some/prefix?")));
}

#[test]
fn a_store_lives_in_a_container_of_azure() {
    let Some(server) = Azurite::start() else { return };
    let scene = Scene::new(server.make_container("container"));
    lives(&Scene { keys: Azurite::ENVIRONMENT.to_vec(), ..scene });
}

#[test]
fn a_store_lives_in_a_bucket_of_google() {
    let Some(server) = FakeGcs::start() else { return };
    let scene = Scene::new(server.bucket());
    lives(&Scene { keys: FakeGcs::ENVIRONMENT.to_vec(), ..scene });
}

/// The life of a store, whose directory is lost in the middle.
fn lives(scene: &Scene) {
    scene.init("store").ok();
    // Larger than what goes up in one request.
    let noise = tier_testkit::noise(40 << 20, 1);
    fs::write(scene.path("tree").join("large"), noise).unwrap();
    scene.tier(&["import", "DIR/store", "DIR/tree"]).ok();
    scene.tier(&["snapshot", "DIR/store"]).ok();
    let evicted = scene.tier(&["evict", "DIR/store", "--all"]).ok();
    assert!(evicted.contains("Dropped "), "no copy is left here: {evicted}");
    scene.check_export("store", "out");
    scene.tier(&["verify", "DIR/store", "--read-data"]).ok();
    let checked = scene.tier(&["cloud", "check", "DIR/store"]).ok();
    assert!(checked.contains("creates      only under a name"), "{checked}");

    fs::remove_dir_all(scene.path("store")).unwrap();
    scene.tier(&["restore", "DIR/new", "--cloud", "URL", "--identity", "DIR/id"]).ok();
    scene.check_export("new", "out of a follower");
    scene.tier(&["takeover", "DIR/new"]).ok();
    fs::write(scene.path("tree").join("later"), "later").unwrap();
    scene.tier(&["import", "DIR/new", "DIR/tree"]).ok();
    scene.tier(&["snapshot", "DIR/new"]).ok();
    scene.tier(&["evict", "DIR/new", "--all"]).ok();
    scene.check_export("new", "out of a writer");
}

#[test]
fn a_store_goes_on_while_its_bucket_is_away() {
    let Some(server) = Seaweed::start() else { return };
    let scene = Scene::new(server.make_bucket("bucket"));
    scene.init("store").ok();
    scene.tier(&["import", "DIR/store", "DIR/tree"]).ok();
    drop(server);
    let snapshot = scene.tier(&["snapshot", "DIR/store"]);
    assert_eq!(snapshot.code, 1, "{}", snapshot.err);
    assert!(snapshot.out.contains("persisted here, and not uploaded"), "{}", snapshot.out);
    assert!(snapshot.err.contains("cannot be reached"), "{}", snapshot.err);
    assert!(scene.tier(&["status", "DIR/store"]).ok().contains("cannot be reached"));
    scene.check_export("store", "out");
}

#[test]
fn over_a_bucket_that_ignores_conditions_a_takeover_is_the_operators_word() {
    let Some(server) = S3rver::start() else { return };
    let scene = Scene { keys: S3rver::ENVIRONMENT.to_vec(), ..Scene::new(server.bucket()) };
    let made = scene.init("store").ok();
    assert!(made.contains("WARNING: this cloud ignores conditions"), "{made}");
    scene.tier(&["import", "DIR/store", "DIR/tree"]).ok();
    scene.tier(&["snapshot", "DIR/store"]).ok();
    scene.tier(&["evict", "DIR/store", "--all"]).ok();
    let checked = scene.tier(&["cloud", "check", "DIR/store"]).ok();
    for seen in ["NOT only under a name", "NOT only what arrives", "gives        parts"] {
        assert!(checked.contains(seen), "{seen}: {checked}");
    }
    scene.check_export("store", "out");
    scene.tier(&["restore", "DIR/new", "--cloud", "URL", "--identity", "DIR/id"]).ok();
    let refused = scene.tier(&["takeover", "DIR/new"]);
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.err.contains("does not honour conditions"), "{}", refused.err);
    scene.tier(&["takeover", "DIR/new", "--force"]).ok();
    scene.check_export("new", "out of a writer");
}

/// The names of the tarballs that lie in a store.
fn tarballs(scene: &Scene, store: &str) -> Vec<String> {
    let root = scene.path(store).join("tarballs");
    let mut found = Vec::new();
    find(&root, &mut found);
    found.retain(|path| path.to_string_lossy().contains(".tar.zst"));
    found.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
}

#[test]
fn what_is_frozen_is_thawed_when_it_is_read() {
    let Some(server) = Moto::start() else { return };
    let url = server.make_bucket("bucket");
    let scene = Scene { keys: Moto::ENVIRONMENT.to_vec(), ..Scene::new(url) };
    scene.init("store").ok();
    fs::write(scene.path("tree").join("large"), tier_testkit::noise(3 << 20, 1)).unwrap();
    scene.tier(&["import", "DIR/store", "DIR/tree"]).ok();
    scene.tier(&["snapshot", "DIR/store"]).ok();
    let tarballs = tarballs(&scene, "store");
    let freeze = || tarballs.iter().for_each(|tarball| server.freeze("bucket", tarball));
    freeze();
    scene.tier(&["evict", "DIR/store", "--all"]).ok();
    let verified = scene.tier(&["verify", "DIR/store"]).ok();
    assert!(verified.contains("are frozen in the cloud"), "{verified}");
    let planned = scene.tier(&["recall", "DIR/store", "/", "--dry-run"]).ok();
    assert!(planned.contains("in the cloud, in "), "{planned}");
    let refused = scene.tier(&["cat", "DIR/store", "/large"]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("being thawed, which takes up to 5 h more"), "{}", refused.err);
    let listed = scene.tier(&["ls", "DIR/store", "/", "-l"]).ok();
    let large = listed.lines().find(|line| line.ends_with("large")).unwrap();
    assert!(large.contains(" thawing "), "{large}");
    // The server thaws at once.
    scene.tier(&["cat", "DIR/store", "/large"]).ok();
    freeze();
    scene.tier(&["evict", "DIR/store", "--all"]).ok();
    let recalled = scene.tier(&["recall", "DIR/store", "/"]);
    assert_eq!(recalled.code, 1, "{}", recalled.out);
    assert!(recalled.err.contains("repeat this then"), "{}", recalled.err);
    scene.tier(&["recall", "DIR/store", "/"]).ok();
    scene.check_export("store", "out");
    let listed = scene.tier(&["ls", "DIR/store", "/", "-l"]).ok();
    assert!(!listed.contains("thawing"), "{listed}");
}

/// A command that fails once, with one message that says what to do, and leaves nothing.
fn refused(scene: &Scene, why: &str) {
    let run = scene.init("refused");
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    let last = run.err.lines().last().unwrap();
    assert!(last.starts_with("tier: ") && last.contains(why), "{}", run.err);
    assert!(!scene.path("refused").exists(), "nothing is made");
}

#[test]
fn what_a_provider_refuses_is_told_with_what_to_do() {
    let Some(server) = Seaweed::start() else { return };
    server.make_bucket("bucket");
    let proxy = Proxy::to(server.port());
    let scene = Scene::new(Seaweed::url_at(proxy.port(), "bucket"));
    for (status, code, why) in [
        ("403", "RequestTimeTooSkewed", "set this machine's clock"),
        ("301", "PermanentRedirect", "is the region of the URL right"),
        ("400", "AuthorizationHeaderMalformed", "is the region of the URL right"),
        ("404", "NoSuchBucket", "make the bucket, or correct the URL"),
        ("403", "QuotaExceeded", "the quota is used up"),
    ] {
        let body = format!("<Error><Code>{code}</Code></Error>");
        let head = format!("Content-Length: {}\r\nConnection: close", body.len());
        let answer = format!("HTTP/1.1 {status} Because\r\n{head}\r\n\r\n{body}");
        proxy.fail([NetworkFault::Answer(answer)]);
        refused(&scene, why);
    }
    // A quota that is full later keeps nothing but uploads.
    scene.init("store").ok();
    scene.tier(&["import", "DIR/store", "DIR/tree"]).ok();
    let body = "<Error><Code>QuotaExceeded</Code></Error>";
    let head = format!("Content-Length: {}\r\nConnection: close", body.len());
    let answer = format!("HTTP/1.1 403 Because\r\n{head}\r\n\r\n{body}");
    proxy.fail(vec![NetworkFault::Answer(answer); 40]);
    let snapshot = scene.tier(&["snapshot", "DIR/store"]);
    assert_eq!(snapshot.code, 1, "{}", snapshot.out);
    assert!(snapshot.err.contains("the quota is used up"), "{}", snapshot.err);
    let status = scene.tier(&["status", "DIR/store"]).ok();
    assert!(status.contains("the quota is used up"), "{status}");
    scene.check_export("store", "out");
}

#[test]
fn a_bucket_that_cannot_be_used_is_named_with_what_to_do() {
    let Some(server) = Seaweed::start() else { return };
    let right = server.make_bucket("bucket");
    let scene = |url: &str, keys: &[(&'static str, &'static str)]| {
        let scene = Scene::new(url.to_owned());
        Scene { keys: keys.to_vec(), ..scene }
    };
    let keys = Seaweed::ENVIRONMENT;
    let [(id, _), (secret, _)] = keys;
    refused(&scene(&right, &[(id, "test-key"), (secret, "another")]), "are the keys");
    refused(&scene(&right, &[(id, "no-key"), (secret, "test-secret")]), "are the keys");
    refused(&scene(&right, &[]), "AWS_ACCESS_KEY_ID");
    refused(&scene("s3://bucket?endpoint=http://127.0.0.1:1", &keys), "cannot be reached");
    refused(&scene("s3://bucket?endpoint=127.0.0.1:1", &keys), "is no parameter");
    refused(&scene("az://container", &[]), "AZURE_STORAGE_ACCOUNT_NAME");
}
