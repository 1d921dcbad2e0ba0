//! The disk that never fills, at its full size: 20 GB through a store on a disk of 2.5 GB, with a cloud
//! that is away for two minutes. The test run has a smaller one of the same test.

use std::path::Path;

use anyhow::Result;

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

/// Runs it.
pub(crate) fn space(root: &Path) -> Result<()> {
    let environment = setup::setup(root)?;
    let mut test = cargo(root);
    environment.apply(&mut test);
    // Not through nextest, which ends a test that takes so long.
    test.args(["test", "--locked", "--release", "--package", "tier-cli", "--test", "it", "--"]);
    test.args(["endless::", "--nocapture"]).envs(SIZES);
    run("a disk that never fills", &mut test)
}
