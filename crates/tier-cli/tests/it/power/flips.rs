//! One flipped bit, anywhere in a store or its cloud.
//!
//! Every command reads everything right, or ends with the exit code of damage; then what it gave
//! out is right as well, but for files that it names. It never gives out wrong bytes, and never
//! ends well with something missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Bench, on_stores};
use crate::fragile_disk::flip_bit;
use crate::harness::{Run, tier};
use crate::work::{History, Tolerance, WorkStore, find, remove_directory};

/// Steps before each snapshot, and after the last one.
const N_STEPS: u64 = 100;
/// At least, so that a key is known to fit the archive: a damaged manifest that is the only one
/// looks as if it were for another key.
const N_SNAPSHOTS: usize = 2;
/// Kinds of files that one round damages, each in a store of its own.
const N_KINDS: usize = 6;

/// Works for a while, syncs everything, and dies; then bits are flipped in copies of the disk.
fn flip(bench: &mut Bench, n_rounds: u64) {
    for _ in 0..n_rounds {
        let mounted = bench.mount();
        let on = mounted.directory().to_path_buf();
        for _ in 0..N_SNAPSHOTS {
            work(bench, &on);
            tier(&["snapshot", &bench.store.name()]).ok();
        }
        work(bench, &on);
        bench.work.writers.iter().for_each(|writer| writer.sync(&on).unwrap());
        mounted.kill();
        bench.work.forget_before_synced();
        let image = bench.disk().lose_power().left(&mut || true);
        let histories = bench.work.histories();
        let directory = bench.path("copy");
        let mut kinds = Vec::new();
        for number in 0..N_KINDS {
            image.write(&directory).unwrap();
            let store = WorkStore::moved(&directory, &bench.path("disk"));
            if number == 0 {
                kinds = files_by_kind(&directory).into_keys().collect();
            }
            let kind = kinds.remove(index(bench, kinds.len()));
            let files = files_by_kind(&directory).remove(&kind).unwrap();
            let file = &files[index(bench, files.len())];
            if let Some(flip) = flip_bit(file, bench.random.next()).unwrap() {
                let problems = problems(bench, &store, &histories);
                if !problems.is_empty() {
                    // It is what the image has with this one bit.
                    bench.left = Some(image.clone());
                    panic!("{flip}:\n{}", problems.join("\n"));
                }
            }
            remove_directory(&directory);
        }
    }
}

fn work(bench: &Bench, on: &Path) {
    bench.work.during(&bench.store, on, Tolerance::NONE, |progress| progress.wait(N_STEPS));
}

fn index(bench: &mut Bench, n: usize) -> usize {
    usize::try_from(bench.random.below(u64::try_from(n).unwrap())).unwrap()
}

/// Files that hold something, by directory and extension. Locks and the log of the library tell
/// nothing; the settings and the key belong to the operator.
fn files_by_kind(directory: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut files = BTreeMap::<String, Vec<PathBuf>>::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_left_out = name.starts_with("LOG")
                || ["LOCK", "lock", "tier.toml", "identity.key", "ballast"].contains(&&*name);
            if path.is_dir() {
                pending.push(path);
            } else if !is_left_out && fs::metadata(&path).unwrap().len() > 0 {
                let mut parts = path.strip_prefix(directory).unwrap().components();
                let part = |part: std::path::Component<'_>| {
                    part.as_os_str().to_string_lossy().into_owned()
                };
                let places: Vec<_> = parts.by_ref().take(2).map(part).collect();
                let extension = name.rsplit('.').next().unwrap().to_string();
                let extension = extension.trim_matches(|c: char| c.is_ascii_digit()).to_string();
                files.entry(format!("{} {extension}", places.join("/"))).or_default().push(path);
            }
        }
    }
    files
}

/// What is wrong with what commands say and give out.
fn problems(bench: &Bench, store: &WorkStore, histories: &[History]) -> Vec<String> {
    let (name, out) = (store.name(), bench.path("out"));
    let mut problems = Vec::new();
    for command in ["export", "fsck", "verify", "snapshot", "export"] {
        let target = out.display().to_string();
        let run = match command {
            "export" => {
                remove_directory(&out);
                tier(&["export", &name, "/", &target])
            }
            command => tier(&[command, &name]),
        };
        // An identity with another bit is another identity: the cloud is refused, which is no
        // damage.
        let is_refused =
            run.code == 1 && run.err.contains("is another cloud than that of this store");
        let is_told = (matches!(run.code, 0 | 3) || is_refused) && !run.err.contains("panicked");
        let wrong = if !is_told {
            Some("a wrong exit code".to_string())
        } else if command == "export" {
            wrong_export(bench, &run, &out, histories)
        } else {
            None
        };
        problems
            .extend(wrong.map(|wrong| {
                format!("{command} ({}): {wrong}:\n{}{}", run.code, run.out, run.err)
            }));
    }
    problems
}

/// What is wrong with an export.
fn wrong_export(bench: &Bench, run: &Run, out: &Path, histories: &[History]) -> Option<String> {
    for (writer, history) in bench.work.writers.iter().zip(histories) {
        let directory = out.join(&writer.name);
        let found = if directory.exists() { find(&directory) } else { BTreeMap::new() };
        let wrong = if run.code == 0 {
            history.check(&found)
        } else {
            history
                .check_parts(&found, &|name| run.err.contains(&format!("{}/{name}", writer.name)))
        };
        if let Err(wrong) = wrong {
            return Some(format!("{}: {wrong}", writer.name));
        }
    }
    None
}

#[test]
fn a_flipped_bit_is_told_or_does_no_harm() {
    on_stores(2, 10, flip);
}
