//! One flipped bit in the store, from the first snapshot to the restore of a restore: what cannot
//! be read is named with its path and bytes and exit code 3, at every step, and is never zeros; all
//! else of the file is there.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tier_testkit::noise;
use tier_types::to_u64;

use crate::harness::{Store, command, tier};

const CHUNK: usize = 64 << 10;

/// A store with a file that is persisted whole and one that is persisted in parts, of each of which
/// one chunk is damaged on the disk: the 17th and the 81st.
struct Damaged {
    store: Store,
    small: Vec<u8>,
    large: Vec<u8>,
}

const SMALL_LOST: usize = 16 * CHUNK;
const LARGE_LOST: usize = 80 * CHUNK;

fn damaged() -> Damaged {
    let store = Store::new(&[]);
    let (small, large) = (noise(3 << 20, 1), noise(9 << 20, 2));
    let files = store.at("files");
    fs::create_dir(&files).unwrap();
    fs::write(store.at("files/small"), &small).unwrap();
    fs::write(store.at("files/large"), &large).unwrap();
    fs::write(store.at("files/other"), "whole\n").unwrap();
    store.run("import", &[&files]).ok();
    // Opened once more, so that the data is in the store's files and no longer in its log.
    store.run("ls", &["/"]).ok();
    flip_a_bit_of(&store, &small[SMALL_LOST + 1000..][..64]);
    flip_a_bit_of(&store, &large[LARGE_LOST + 1000..][..64]);
    Damaged { store, small, large }
}

/// Flips a bit of these bytes wherever the store has them.
fn flip_a_bit_of(store: &Store, bytes: &[u8]) {
    let mut n_found = 0;
    for path in store.objects("store") {
        let mut content = fs::read(&path).unwrap();
        let windows = content.windows(bytes.len()).enumerate();
        let found: Vec<_> = windows.filter(|(_, w)| *w == bytes).map(|(at, _)| at).collect();
        if found.is_empty() {
            continue;
        }
        n_found += found.len();
        for at in found {
            content[at + bytes.len() / 2] ^= 1;
        }
        fs::write(&path, content).unwrap();
    }
    assert!(n_found > 0, "the bytes are in the store");
}

/// The lost ranges of a report in JSON: path, offset, length.
fn ranges(report: &str, key: &str) -> Vec<(String, u64, u64)> {
    let json: Value = serde_json::from_str(report).unwrap();
    let range = |range: &Value| {
        let path = range["path"].as_str().unwrap().to_string();
        (path, range["offset"].as_u64().unwrap(), range["len"].as_u64().unwrap())
    };
    let mut ranges: Vec<_> = json[key].as_array().unwrap().iter().map(range).collect();
    ranges.sort();
    ranges
}

fn both() -> Vec<(String, u64, u64)> {
    [("/large", LARGE_LOST), ("/small", SMALL_LOST)]
        .map(|(path, offset)| (path.to_string(), to_u64(offset), to_u64(CHUNK)))
        .to_vec()
}

/// All of a file but its lost chunk, which is a hole in the copy.
fn without(content: &[u8], at: usize) -> Vec<u8> {
    let mut content = content.to_vec();
    content[at..at + CHUNK].fill(0);
    content
}

impl Damaged {
    fn restore(&self, name: &str) -> String {
        let (restored, cloud) = (self.store.at(name), self.store.cloud_url());
        let key = self.store.at("store/identity.key");
        let run = tier(&["restore", &restored, "--json", "--cloud", &cloud, "--identity", &key]);
        assert_eq!(run.code, 3, "{}", run.err);
        assert_eq!(ranges(&run.out, "lost"), both());
        restored
    }

    /// What is lost is told of and is no zeros, and all else is there.
    fn check(&self, restored: &str) {
        for (path, content, at) in
            [("/small", &self.small, SMALL_LOST), ("/large", &self.large, LARGE_LOST)]
        {
            let output = command(&["cat", restored, path]).output().unwrap();
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{err}");
            assert!(output.stdout == content[..at], "it ends before what is lost");
            assert!(err.contains(&format!("bytes {at}-{} of inode", at + CHUNK - 1)), "{err}");
        }
        let listed = tier(&["ls", restored, "/", "-l"]).ok();
        assert_eq!(listed.lines().filter(|line| line.contains(" lost ")).count(), 2, "{listed}");
        assert!(tier(&["status", restored]).ok().contains("lost         128.00 KiB"));
        let out = format!("{restored}.out");
        let run = tier(&["export", restored, "/", &out]);
        assert_eq!(run.code, 3, "{}", run.err);
        assert!(run.err.contains("2 files have holes where they could not be read"), "{}", run.err);
        assert!(run.err.contains("small: bytes 1048576-1114111 could not be read"), "{}", run.err);
        let read = |name: &str| fs::read(Path::new(&out).join(name)).unwrap();
        assert!(read("small") == without(&self.small, SMALL_LOST));
        assert!(read("large") == without(&self.large, LARGE_LOST));
        assert_eq!(read("other"), b"whole\n");
        let run = tier(&["fsck", restored]);
        assert_eq!(run.code, 3, "{}", run.err);
        assert_eq!(run.out.lines().filter(|line| line.contains("are lost")).count(), 2);
    }
}

#[test]
fn a_flipped_bit_is_lost_and_stays_lost_in_every_restore_until_it_is_replaced() {
    let damaged = damaged();
    let store = &damaged.store;
    let run = store.run("snapshot", &["--json"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert_eq!(ranges(&run.out, "lost"), both());
    let json: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(json["persisted"]["failed"], Value::Array(Vec::new()));
    let run = store.run("verify", &["--json"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert_eq!(ranges(&run.out, "lost"), both());
    // What is archived is evicted, and what is lost there is not.
    store.run("evict", &["--all"]).ok();
    let run = store.run("cat", &["/small"]);
    assert_eq!(run.code, 3, "{}", run.err);

    let first = damaged.restore("first");
    damaged.check(&first);
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/late"), "late\n").unwrap();
    tier(&["takeover", &first]).ok();
    tier(&["import", &first, &store.at("more")]).ok();
    // Nothing of it is new: the archive knows it, and so does this filesystem.
    tier(&["snapshot", &first]).ok();
    let second = damaged.restore("second");
    damaged.check(&second);
    assert_eq!(tier(&["cat", &second, "/late"]).ok(), "late\n");

    // New content ends it.
    for (name, content) in [("small", &damaged.small), ("large", &damaged.large)] {
        fs::write(store.at(&format!("files/{name}")), content).unwrap();
    }
    tier(&["takeover", &second]).ok();
    tier(&["import", &second, &store.at("files")]).ok();
    tier(&["snapshot", &second]).ok();
    tier(&["verify", &second]).ok();
    tier(&["fsck", &second]).ok();
    let (third, cloud) = (store.at("third"), store.cloud_url());
    let key = store.at("store/identity.key");
    tier(&["restore", &third, "--cloud", &cloud, "--identity", &key]).ok();
    tier(&["export", &third, "/", &store.at("out")]).ok();
    assert!(fs::read(store.at("out/small")).unwrap() == damaged.small);
    assert!(fs::read(store.at("out/large")).unwrap() == damaged.large);
}
