//! The disk that never fills, at its full size, the soak, for as long as is wanted, and the
//! cluster. The test run has smaller ones of the same tests, but for the cluster.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cargo, run};
use crate::setup;

/// Sizes in MiB, times in seconds; tarballs are as long as a store makes them.
const SIZES: [(&str, &str); 5] = [
    ("TIER_ENDLESS_DISK_MB", "2500"),
    ("TIER_ENDLESS_DATA_MB", "20000"),
    ("TIER_ENDLESS_FILE_MB", "200"),
    ("TIER_ENDLESS_AWAY_SECONDS", "120"),
    ("TIER_ENDLESS_TARBALL_BYTES", "0"),
];

/// 20 GB through a store on a disk of 2.5 GB, with a cloud that is away for two minutes.
pub(crate) fn space(root: &Path) -> Result<()> {
    run("a disk that never fills", test(root, "endless::")?.envs(SIZES))?;
    let mut bucket = test(root, "endless::")?;
    // A server of one node takes as long for half as much.
    bucket.envs(SIZES).env("TIER_ENDLESS_DATA_MB", "10000").env("TIER_ENDLESS_CLOUD", "seaweed");
    run("a disk that never fills, over a bucket", &mut bucket)
}

/// How long each server of the cluster is away, in seconds.
const AWAY_SECONDS: &str = "20";
const N_UPLOAD_KILLS: &str = "200";

/// A distributed object store whose servers fail one after the other, two machines that use it, and
/// uploads that are killed.
pub(crate) fn cluster(root: &Path) -> Result<()> {
    let mut cluster = test(root, "cluster::")?;
    // Both take the same addresses.
    cluster.arg("--test-threads=1").env("TIER_CLUSTER_SECONDS", AWAY_SECONDS);
    run("a cluster whose servers fail", &mut cluster)?;
    let mut kills = test(root, "upload_kills::")?;
    run("killed uploads", kills.env("TIER_UPLOAD_KILLS", N_UPLOAD_KILLS))
}

/// A store that may take a quarter of its data, killed every few seconds, for so many minutes.
pub(crate) fn soak(root: &Path, args: &[String]) -> Result<()> {
    let minutes = match args {
        [] => 30,
        [minutes, ..] => minutes.parse::<u64>().context("cargo xtask soak MINUTES")?,
    };
    let seconds = minutes.saturating_mul(60).to_string();
    run("a soak", test(root, "soak::")?.env("TIER_SOAK_SECONDS", seconds))
}

/// A test of the program, in release. Not through nextest, which ends one that takes so long.
fn test(root: &Path, name: &str) -> Result<Command> {
    let environment = setup::setup_for_tests(root)?;
    let mut test = cargo(root);
    environment.apply(&mut test);
    test.args(["test", "--locked", "--release", "--package", "tier-cli", "--test", "it", "--"]);
    test.args([name, "--nocapture"]);
    Ok(test)
}
