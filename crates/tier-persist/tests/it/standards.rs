//! Other people's programs read our tarballs: age, zstd and tar.

use std::path::Path;
use std::process::{Command, Stdio};

use tier_persist::Keys;
use tier_testkit::FakeKvs;

use crate::common::{CHUNK, Fixture, noise};

fn run(script: &str, dir: &Path) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).unwrap()
}

fn sample() -> FakeKvs {
    let file = noise(5000, 3);
    FakeKvs::new(CHUNK).file("small", b"hello").file("noise", &file).symlink("link", "small")
}

fn check_extracted(dir: &Path) {
    assert_eq!(std::fs::read(dir.join("small")).unwrap(), b"hello");
    assert_eq!(std::fs::read(dir.join("noise")).unwrap(), noise(5000, 3));
    assert_eq!(std::fs::read_link(dir.join("link")).unwrap(), Path::new("small"));
}

#[test]
fn stock_tar_and_zstd_read_a_tarball_in_clear() {
    let mut fixture = Fixture::new(sample(), Keys::generate().unwrap().without_encryption());
    fixture.persist();
    let tarball = fixture.root().join(fixture.tarballs()[0].as_str());
    let out = tempfile::tempdir().unwrap();
    let path = tarball.display();
    run(&format!("zstd -dc '{path}' | tar -xf -"), out.path());
    check_extracted(out.path());
    let listed = run(&format!("zstd -dc '{path}' | tar -tf -"), out.path());
    assert!(listed.starts_with(".tier/tarball\n./\n"), "{listed}");
}

#[test]
fn stock_tar_keeps_the_holes_of_a_sparse_file() {
    let kvs = FakeKvs::new(CHUNK).file("s", &[1; 512]).write("s", 100 * 512, &[2; 700]);
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap().without_encryption());
    fixture.persist();
    let tarball = fixture.root().join(fixture.tarballs()[0].as_str());
    let out = tempfile::tempdir().unwrap();
    run(&format!("zstd -dc '{}' | tar -xf -", tarball.display()), out.path());
    let mut expected = vec![1; 512];
    expected.resize(100 * 512, 0);
    expected.extend([2; 700]);
    assert_eq!(std::fs::read(out.path().join("s")).unwrap(), expected);
}

#[test]
fn the_script_of_the_documentation_gets_the_files_out_for_every_recipient() {
    let recovery = Keys::generate().unwrap();
    let mut keys = Keys::generate().unwrap();
    keys.add_recipient(&recovery.public_key()).unwrap();
    let identities = [keys.to_identity_file("now"), recovery.to_identity_file("now")];
    let mut fixture = Fixture::new(sample().file("later", b"old"), keys);
    fixture.persist();
    fixture.change(|kvs| kvs.write("later", 0, b"newer"));
    fixture.persist();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/extract.sh");
    for identity in identities {
        let out = tempfile::tempdir().unwrap();
        let key = out.path().join("key");
        std::fs::write(&key, identity).unwrap();
        let (root, key) = (fixture.root(), key.display().to_string());
        let to = out.path().join("files");
        run(&format!("sh '{script}' '{}' '{key}' '{}'", root.display(), to.display()), out.path());
        check_extracted(&to);
        assert_eq!(std::fs::read(to.join("later")).unwrap(), b"newer");
    }
}
