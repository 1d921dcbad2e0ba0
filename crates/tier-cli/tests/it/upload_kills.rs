//! Kills at random moments of uploading into a bucket: what was verified is never sent again, no
//! manifest in the bucket names what is not there, and the next run completes.
//!
//! `TIER_UPLOAD_KILLS=200` makes the long run of it, which `cargo xtask cluster` does; a test that
//! fails names its seed, which `TIER_UPLOAD_KILLS_SEED` gives to the next run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tier_testkit::noise;
use tier_testkit::servers::Seaweed;
use tier_types::to_usize;

use crate::harness::{Run, assert_same, command, find};
use crate::random::{Random, number, seed};

const N_USUAL: u64 = 6;
/// A snapshot of one file takes less than two to the power of this, in milliseconds, on a machine
/// that is busy.
const POWER_MAX: u64 = 12;
/// More than goes up in one request.
const LARGE_BYTES: u64 = 24 << 20;

struct Scene {
    dir: tempfile::TempDir,
    server: Seaweed,
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let (dir, url) = (self.dir.path().display().to_string(), self.server.url("bucket"));
        let args: Vec<_> =
            args.iter().map(|arg| arg.replace("DIR", &dir).replace("URL", &url)).collect();
        let mut command = command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.envs(Seaweed::ENVIRONMENT);
        command
    }

    fn tier(&self, args: &[&str]) -> Run {
        Run::of(&self.command(args).output().unwrap())
    }

    /// Takes a snapshot that is killed after a while, unless it ends before. Whether it was killed.
    fn killed_snapshot(&self, after: Duration) -> bool {
        let mut snapshot = self.command(&["snapshot", "DIR/store"]);
        let mut child = snapshot.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (began, (_never, timer)) = (Instant::now(), mpsc::channel::<()>());
        while began.elapsed() < after {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            let _ = timer.recv_timeout(Duration::from_millis(1));
        }
        child.kill().unwrap();
        !child.wait().unwrap().success()
    }

    /// What is recorded as verified in the bucket, with when each object was last written there.
    fn verified(&self) -> BTreeMap<String, String> {
        let mut logs = Vec::new();
        find(&self.path("store/status"), &mut logs);
        let mut verified = BTreeMap::new();
        for log in logs {
            let text = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
            let pushed = text.lines().filter_map(|line| line.split_once(" pushed name="));
            for (_, rest) in pushed {
                let name = rest.split(' ').next().unwrap_or_default();
                if let Some(written) = self.server.written("bucket", name) {
                    verified.insert(name.to_owned(), written);
                }
            }
        }
        verified
    }

    /// A restore of what is in the bucket finds all that its manifests name.
    fn check_restore(&self, round: u64) {
        let new = format!("DIR/new-{round}");
        let restored = self.tier(&["restore", &new, "--cloud", "URL", "--identity", "DIR/id"]);
        if restored.err.contains("there is no filesystem") || restored.err.contains("no snapshot") {
            return;
        }
        restored.ok();
        self.tier(&["verify", &new]).ok();
        fs::remove_dir_all(self.path(&format!("new-{round}"))).unwrap();
    }
}

/// Early moments are as likely as late ones, however long it takes.
fn moment(random: &mut Random) -> Duration {
    let most = 1 << (1 + random.below(POWER_MAX));
    Duration::from_millis(random.below(most))
}

fn write(tree: &Path, number: u64, random: &mut Random) {
    let len = if random.one_of(3) { LARGE_BYTES } else { 1 + random.below(3 << 20) };
    fs::write(tree.join(number.to_string()), noise(to_usize(len), number)).unwrap();
}

#[test]
fn a_killed_upload_is_gone_on_with() {
    let Some(server) = Seaweed::start() else { return };
    server.make_bucket("bucket");
    let seed = seed("TIER_UPLOAD_KILLS_SEED");
    println!("TIER_UPLOAD_KILLS_SEED={seed}");
    let n_kills = number("TIER_UPLOAD_KILLS").unwrap_or(N_USUAL);
    let (scene, mut random) =
        (Scene { dir: tempfile::tempdir().unwrap(), server }, Random::new(seed));
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    scene.tier(&["keygen", "-o", "DIR/id"]).ok();
    scene.tier(&["init", "DIR/store", "--identity", "DIR/id", "--cloud", "URL"]).ok();
    let (mut n_killed, mut round, mut n_compared) = (0, 0, 0);
    // Until enough were killed, and something was there to be sent again.
    while n_killed < n_kills || n_compared == 0 {
        round += 1;
        assert!(round < 30 * n_kills, "{n_killed} of {round} were killed");
        write(&tree, round, &mut random);
        scene.tier(&["import", "DIR/store", "DIR/tree"]).ok();
        let before = scene.verified();
        n_killed += u64::from(scene.killed_snapshot(moment(&mut random)));
        let after = scene.verified();
        for (name, written) in &before {
            assert_eq!(after.get(name), Some(written), "{name} was sent again");
        }
        n_compared += before.len();
        scene.check_restore(round);
        // Files that are large enough to be killed in, and a tree that stays small.
        fs::remove_dir_all(&tree).unwrap();
        fs::create_dir(&tree).unwrap();
    }
    scene.tier(&["snapshot", "DIR/store"]).ok();
    println!("{n_killed} of {round} snapshots were killed; {n_compared} objects were compared");
    scene.tier(&["evict", "DIR/store", "--all"]).ok();
    scene.tier(&["verify", "DIR/store", "--read-data"]).ok();
    scene.tier(&["export", "DIR/store", "/", "DIR/out"]).ok();
    fs::remove_dir(&tree).unwrap();
    fs::create_dir(&tree).unwrap();
    let mut random = Random::new(seed);
    for number in 1..=round {
        write(&tree, number, &mut random);
        moment(&mut random);
    }
    assert_same(&tree, &scene.path("out"));
}
