//! The life cycle on a real tree, in release.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{cargo, run};
use crate::setup;

pub(crate) fn demo(root: &Path, args: &[String]) -> Result<()> {
    let mut demo = Command::new(release_program(root)?);
    run("tier demo", demo.arg("demo").args(args))
}

/// The program, built in release.
pub(crate) fn release_program(root: &Path) -> Result<PathBuf> {
    let environment = setup::setup(root)?;
    let mut build = cargo(root);
    environment.apply(&mut build).args(["build", "--release", "--locked", "--package", "tier-cli"]);
    run("building tier in release", &mut build)?;
    Ok(setup::target_directory(root).join("release/tier"))
}
