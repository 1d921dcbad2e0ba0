//! Damage is told with exit code 3 and the name of the object; everything else is still readable.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, FileName, Ino, InodeState, Link, MountedInstance,
    Xid,
};

use crate::harness::{Store, tier};

/// A store with two tarballs, evicted: `/hello` in the first one, `/late` in the second.
fn evicted() -> Store {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/late"), "late\n".repeat(100)).unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    store.bring_back();
    store
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn break_first_tarball(store: &Store, damage: impl Fn(&Path)) {
    for directory in ["store", "cloud"] {
        damage(&store.tarballs(directory)[0]);
    }
}

fn check(store: &Store) {
    let run = store.run("cat", &["/dir/sub/noise"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("s0000000001-p000000-"), "{}", run.err);
    assert_eq!(store.run("cat", &["/late"]).ok(), "late\n".repeat(100));
    let run = store.run("verify", &[]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("s0000000001-p000000-"), "{}", run.out);
}

#[test]
fn a_flipped_bit() {
    let store = evicted();
    break_first_tarball(&store, flip_a_bit);
    check(&store);
}

#[test]
fn a_truncated_tarball() {
    let store = evicted();
    break_first_tarball(&store, |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 3]).unwrap();
    });
    check(&store);
}

#[test]
fn a_missing_tarball() {
    let store = evicted();
    break_first_tarball(&store, |path| fs::remove_file(path).unwrap());
    check(&store);
}

#[test]
fn all_tarballs_and_the_index_lost() {
    let store = evicted();
    fs::remove_dir_all(store.at("store/index")).unwrap();
    for directory in ["store/tarballs", "cloud"] {
        for tarball in store.tarballs(directory) {
            fs::remove_file(tarball).unwrap();
        }
    }
    let run = store.run("cat", &["/late"]);
    assert_eq!(run.code, 3, "{}", run.err);
}

#[test]
fn an_index_that_cannot_even_be_opened_is_made_anew() {
    let store = evicted();
    let whole = store.run("index dump", &[]).ok();
    fs::write(store.at("store/index/1/CURRENT"), "nothing\n").unwrap();
    let run = store.run("cat", &["/late"]);
    assert_ne!(run.code, 0);
    assert!(run.err.contains("index"), "{}", run.err);
    store.run("index rebuild", &[]).ok();
    assert_eq!(store.run("index dump", &[]).ok(), whole);
    assert_eq!(store.run("cat", &["/late"]).ok(), "late\n".repeat(100));
}

#[test]
fn other_names_of_a_damaged_file_are_told_and_the_rest_comes_out() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/whole"), "late\n").unwrap();
    fs::hard_link(store.at("more/whole"), store.at("more/whole-too")).unwrap();
    store.run("import", &[&store.at("more")]).ok();
    store.run("snapshot", &[]).ok();
    store.run("evict", &["--all"]).ok();
    store.bring_back();
    break_first_tarball(&store, flip_a_bit);
    let run = store.run("export", &["/", &store.at("out")]);
    assert_eq!(run.code, 3);
    // `hello` and `dir/hard` are one file.
    assert!(!Path::new(&store.at("out/hello")).exists());
    assert!(!Path::new(&store.at("out/dir/hard")).exists());
    let twins = ["out/whole", "out/whole-too"].map(|name| fs::metadata(store.at(name)).unwrap());
    assert_eq!(twins[0].ino(), twins[1].ino());
}

#[test]
fn an_index_is_not_made_of_fewer_snapshots_than_there_were() {
    let store = evicted();
    let dump = store.run("index dump", &[]).ok();
    let newest = |path: &PathBuf| path.to_string_lossy().ends_with("s0000000002.manifest");
    let [local, cloud] = ["store", "cloud"]
        .map(|directory| store.objects(directory).into_iter().find(newest).unwrap());
    let manifest = fs::read(&local).unwrap();
    // The cloud has it.
    fs::remove_file(&local).unwrap();
    for how in [[].as_slice(), &["--from-cloud"], &["--full-scan"]] {
        let said = store.run("index rebuild", how).ok();
        assert!(said.contains("from 2 tarballs"), "{said}");
    }
    // It is nowhere: only a scan of all tarballs finds what it committed.
    fs::rename(&cloud, store.at("kept")).unwrap();
    let refused = store.run("index rebuild", &[]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains("manifest of snapshot 2 is missing"), "{}", refused.err);
    store.run("index rebuild", &["--full-scan"]).ok();
    // It does not need the cloud for that.
    fs::rename(store.at("cloud"), store.at("cloud.away")).unwrap();
    fs::write(store.at("cloud"), "").unwrap();
    drop(store.run("index rebuild", &["--full-scan"]));
    fs::remove_file(store.at("cloud")).unwrap();
    fs::rename(store.at("cloud.away"), store.at("cloud")).unwrap();
    fs::write(&local, manifest).unwrap();
    fs::rename(store.at("kept"), &cloud).unwrap();
    store.run("index rebuild", &[]).ok();
    assert_eq!(store.run("index dump", &[]).ok(), dump);
    assert_eq!(store.run("cat", &["/late"]).ok(), "late\n".repeat(100));
}

#[test]
fn settings_that_were_not_those_of_the_store_are_refused() {
    let store = evicted();
    let path = store.at("store/tier.toml");
    let settings = fs::read_to_string(&path).unwrap();
    fs::write(&path, settings.replace("chunk_bytes = 65536", "chunk_bytes = 4096")).unwrap();
    let run = store.run("cat", &["/late"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("chunk_bytes = 4096"), "{}", run.err);
    // Rebuilding does not open the filesystem, and must not put a wrong index in place either.
    let run = store.run("index rebuild", &[]);
    assert_eq!(run.code, 3);
    assert!(run.err.contains("chunks of 4096 bytes"), "{}", run.err);
    fs::write(&path, settings.replace("chunk_bytes = 65536", "chunk_bytes = 0")).unwrap();
    assert!(store.run("cat", &["/late"]).err.contains("from 512 to 1048576"));
    fs::write(&path, settings).unwrap();
    assert_eq!(store.run("cat", &["/late"]).ok(), "late\n".repeat(100));
}

#[test]
fn a_wrong_identity() {
    let store = evicted();
    let other = store.at("other.key");
    tier(&["keygen", "-o", &other]).ok();
    let restored = store.at("restored");
    let run = tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &other]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.err.contains("cannot be decrypted with this identity"), "{}", run.err);
    let tarball = store.tarballs("cloud")[0].display().to_string();
    let run = tier(&["tarball", "ls", &tarball, "-i", &other]);
    assert_eq!(run.code, 1, "{}", run.err);
    let own = store.at("store/identity.key");
    assert!(tier(&["tarball", "cat", &tarball, "-i", &own]).ok().contains("ustar"));
}

#[test]
fn an_export_goes_on_after_a_damaged_file_and_leaves_no_part_of_it() {
    let store = evicted();
    break_first_tarball(&store, flip_a_bit);
    let run = store.run("export", &["/", &store.at("out")]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("could not be read; all others are exported"), "{}", run.err);
    assert!(!fs::exists(store.at("out/dir/sub/noise")).unwrap());
    assert_eq!(fs::read_to_string(store.at("out/late")).unwrap(), "late\n".repeat(100));
    assert_eq!(fs::read_dir(store.at("out/dir/sub")).unwrap().count(), 0);
}

#[test]
fn a_lost_manifest_is_named_and_its_tarballs_are_left_alone() {
    let store = evicted();
    let manifests = |directory: &str| {
        let mut found = store.objects(directory);
        found.retain(|path| path.to_string_lossy().ends_with("s0000000002.manifest"));
        found
    };
    let (local, cloud) = (manifests("store").remove(0), manifests("cloud").remove(0));
    fs::remove_file(&local).unwrap();
    let before = store.tarballs("store");
    for command in ["index rebuild", "verify", "snapshot", "push"] {
        drop(store.run(command, &[]));
    }
    assert_eq!(store.tarballs("store"), before);
    // The index knows it, and the cloud has it.
    store.run("evict", &["--all"]).ok();
    let run = store.run("verify", &[]);
    assert_eq!(run.code, 3, "{}", run.out);
    assert!(run.out.contains("s0000000002.manifest"), "{}", run.out);
    fs::copy(cloud, local).unwrap();
    assert_eq!(store.run("cat", &["/late"]).ok(), "late\n".repeat(100));
    store.run("verify", &[]).ok();
}

#[test]
fn an_extra_recipient_restores_a_store_that_lives_on() {
    let key = tempfile::tempdir().unwrap();
    let recovery = key.path().join("recovery.key").display().to_string();
    let public = tier(&["keygen", "-o", &recovery]);
    let public = public.err.trim().rsplit(' ').next().unwrap().to_string();
    let store = Store::new(&["--recipient", &public]);
    store.import();
    store.run("snapshot", &[]).ok();
    let (restored, cloud) = (store.at("restored"), store.cloud_url());
    let base = ["restore", &restored, "--cloud", &cloud, "--identity", &recovery];
    let refused = tier(&base);
    assert_eq!(refused.code, 1, "{}", refused.err);
    let signer = refused.err.split("signed by ").nth(2).unwrap().get(..32).unwrap();
    assert!(refused.err.contains("--signer"), "{}", refused.err);
    tier(&[&base[..], &["--signer", signer]].concat()).ok();
    store.check_export(&restored, "out");
    assert_eq!(tier(&["takeover", &restored]).code, 1, "the signer is not believed by itself");
    tier(&["takeover", &restored, "--signer", signer]).ok();
    fs::create_dir(store.at("more")).unwrap();
    fs::write(store.at("more/late"), "late\n").unwrap();
    tier(&["import", &restored, &store.at("more")]).ok();
    tier(&["snapshot", &restored]).ok();
    tier(&["evict", &restored, "--all"]).ok();
    assert_eq!(tier(&["cat", &restored, "/late"]).ok(), "late\n");
    tier(&["verify", &restored]).ok();
}

#[test]
fn a_detour_to_another_version_is_an_error_and_never_other_data() {
    let store = evicted();
    let path = PathBuf::from(store.path());
    {
        let clock = Arc::new(tier_types::SystemClock);
        let fs = kvfs::Core::open(&path, &kvfs::KvfsOptions::default(), clock).unwrap();
        let late = FileName::new(b"late").unwrap();
        let attr = fs.lookup(Ino::ROOT, &late).unwrap();
        // The inode goes and comes back with a detour to a version that was never archived, while
        // the index still knows the one that was.
        fs.unlink(Ino::ROOT, &late).unwrap();
        let links = vec![Link { parent: Ino::ROOT, name: late }];
        let (chunks, state) = (ChunkRange::one(ChunkNo::new(0)).unwrap(), ChunkState::Cold);
        let data_xid = Xid::new(attr.xid.get() + 1000);
        let inode = InodeState { attr, links, xattrs: Vec::new() };
        let run = ChunkRun { chunks, state, data_xid };
        fs.restore_inode(&inode, &mut std::iter::once(Ok(run))).unwrap();
        fs.fsync().unwrap();
    }
    let run = store.run("cat", &["/late"]);
    assert_eq!((run.code, run.out.as_str()), (3, ""), "{}", run.err);
    assert!(run.err.contains("is missing from the archive"), "{}", run.err);
    assert_eq!(store.run("cat", &["/hello"]).ok(), "hello\n");
}

/// Flips a bit in the middle of every file of a directory of the store.
fn break_files(store: &Store, directory: &str) -> Vec<String> {
    let files = fs::read_dir(store.at(directory)).unwrap().map(|entry| entry.unwrap().path());
    let mut names = Vec::new();
    for path in files {
        flip_a_bit(&path);
        names.push(path.file_name().unwrap().to_str().unwrap().to_string());
    }
    names
}

#[test]
fn a_damaged_log_segment_is_named_and_all_data_is_still_there() {
    let store = Store::new(&[]);
    store.import();
    store.run("snapshot", &[]).ok();
    let names = break_files(&store, "store/segments");
    // An eviction goes on without it, by what the filesystem has.
    for (command, args, code) in [("log", &[][..], 3), ("evict", &["--all"], 0)] {
        let run = store.run(command, args);
        assert_eq!(run.code, code, "{command}: {}", run.err);
        assert!(run.err.contains(&names[0]), "{command}: {}", run.err);
        assert!(run.err.contains("at offset"), "{command}: {}", run.err);
    }
    assert!(!store.run("ls", &["/", "-l", "-R"]).ok().contains(" hot "));
    for command in ["status", "snapshot", "verify"] {
        store.run(command, &[]).ok();
    }
    let own = store.at("store/identity.key");
    let restored = store.at("restored");
    tier(&["restore", &restored, "--cloud", &store.cloud_url(), "--identity", &own]).ok();
    let noise = store.run("cat", &["/dir/sub/noise"]).ok();
    assert_eq!(tier(&["cat", &restored, "/dir/sub/noise"]).ok(), noise);
}

#[test]
fn a_damaged_status_log_is_named_and_can_be_done_without() {
    let store = evicted();
    let names = break_files(&store, "store/status");
    for command in ["status", "snapshot", "verify"] {
        let run = store.run(command, &[]);
        assert_eq!(run.code, 3, "{command}: {}", run.err);
        assert!(names.iter().any(|name| run.err.contains(name)), "{command}: {}", run.err);
        assert!(run.err.contains("move it away"), "{command}: {}", run.err);
    }
    assert_eq!(store.run("cat", &["/late"]).ok(), "late\n".repeat(100));
    for name in names {
        fs::remove_file(store.at(&format!("store/status/{name}"))).unwrap();
    }
    store.run("snapshot", &[]).ok();
    assert!(store.run("status", &[]).ok().contains("in the cloud"));
}

#[test]
fn names_that_lead_in_a_circle_end_a_walk_with_an_error() {
    let store = Store::new(&[]);
    store.import();
    let path = PathBuf::from(store.path());
    {
        let clock = Arc::new(tier_types::SystemClock);
        let fs = kvfs::Core::open(&path, &kvfs::KvfsOptions::default(), clock).unwrap();
        let template = fs.getattr(Ino::ROOT).unwrap();
        let name = |text: &str| FileName::new(text.as_bytes()).unwrap();
        let (upper, lower) = (Ino::new(1000), Ino::new(1001));
        // The lower one has the upper one as an entry, which lies in the root as well.
        let link = |parent: Ino, text: &str| Link { parent, name: name(text) };
        let names = [
            (upper, vec![link(Ino::ROOT, "circle"), link(lower, "again")]),
            (lower, vec![link(upper, "lower")]),
        ];
        for (ino, links) in names {
            let attr = tier_types::FileAttr { ino, ..template.clone() };
            let inode = InodeState { attr, links, xattrs: Vec::new() };
            fs.restore_inode(&inode, &mut std::iter::empty()).unwrap();
        }
        fs.fsync().unwrap();
    }
    let run = store.run("ls", &["-R", "/"]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert!(run.err.contains("circle/lower/again"), "{}", run.err);
    // An export goes on past it.
    let out = store.at("out");
    let run = store.run("export", &["/", &out]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("circle/lower/again"), "{}", run.err);
    assert_eq!(fs::read_to_string(Path::new(&out).join("hello")).unwrap(), "hello\n");
}
