//! Tarballs are what the standards say: stock age, zstd and tar read them, and what these write is
//! read.

use std::path::Path;
use std::process::{Command, Stdio};

use tier_index::{Index, IndexOptions};
use tier_persist::{Keys, Watch, list_members, rebuild_without_manifests, write_tar};
use tier_testkit::FakeKvs;

use crate::common::{CHUNK, FILESYSTEM, Fixture, dump, noise};

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
fn stock_programs_read_every_tarball_in_clear() {
    let mut fixture = Fixture::new(sample(), Keys::generate().unwrap().without_encryption());
    fixture.persist();
    fixture.change(|kvs| kvs.write("noise", 512, &[1; 512]).remove("small"));
    fixture.persist();
    let tarballs = fixture.tarballs();
    assert_eq!(tarballs.len(), 2);
    for program in ["tar --zstd", "bsdtar"] {
        let out = tempfile::tempdir().unwrap();
        for tarball in &tarballs {
            let path = fixture.root().join(tarball.as_str());
            let path = path.display();
            let listed = run(&format!("{program} -tvf '{path}'"), out.path());
            assert!(listed.contains(".tier/tarball"), "{program}: {listed}");
            assert!(listed.contains(".tier/toc/root"), "{program}: {listed}");
            run(&format!("{program} -xf '{path}'"), out.path());
            run(&format!("zstd -dc '{path}' | tar -tf -"), out.path());
        }
        // Later tarballs overwrite nothing with less than it was.
        check_extracted(out.path());
    }
}

/// Any byte of the tar stream, through the seek table, by another implementation of the format.
#[test]
fn an_independent_reader_accepts_the_seek_table() {
    let mut fixture = Fixture::new(sample(), Keys::generate().unwrap().without_encryption());
    fixture.persist();
    let name = fixture.tarballs().remove(0);
    let mut tar = Vec::new();
    write_tar(&fixture.store(), &name, &fixture.keys, &mut tar).unwrap();
    let file = std::fs::File::open(fixture.root().join(name.as_str())).unwrap();
    let mut decoder = zeekstd::Decoder::new(file).unwrap();
    assert!(decoder.seek_table().num_frames() > 3);
    for offset in [0, 1, tar.len() / 3, tar.len() - 10] {
        let end = (offset + 3000).min(tar.len());
        decoder.set_offset(offset as u64).unwrap();
        decoder.set_offset_limit(end as u64).unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut decoder, &mut read).unwrap();
        assert!(read == tar[offset..end], "{offset}");
    }
}

/// What the age program encrypts is opened: a tarball that was decrypted and encrypted again by it
/// is the same tarball.
#[test]
fn a_tarball_that_the_age_program_encrypted_is_read() {
    let mut fixture = Fixture::new(sample(), Keys::generate().unwrap());
    fixture.persist();
    let name = fixture.tarballs().remove(0);
    let out = tempfile::tempdir().unwrap();
    let key = out.path().join("key");
    std::fs::write(&key, fixture.keys.to_identity_file("now")).unwrap();
    let tarball = fixture.root().join(name.as_str());
    let (recipient, tarball, key) =
        (fixture.keys.public_key(), tarball.display(), key.display().to_string());
    let mut written = Vec::new();
    write_tar(&fixture.store(), &name, &fixture.keys, &mut written).unwrap();
    let script = format!(
        "age -d -i '{key}' -o plain '{tarball}'; rm '{tarball}'; age -r {recipient} -o '{tarball}' plain"
    );
    run(&script, out.path());
    let mut encrypted_again = Vec::new();
    write_tar(&fixture.store(), &name, &fixture.keys, &mut encrypted_again).unwrap();
    assert!(written == encrypted_again);
    list_members(&fixture.store(), &name, &fixture.keys, &mut Vec::new()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    let (_, damages) = rebuild_without_manifests(
        &index,
        &fixture.store(),
        &fixture.keys,
        FILESYSTEM,
        &mut Watch::default(),
    )
    .unwrap();
    assert_eq!((damages, dump(&index)), (Vec::new(), fixture.dump()));
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
