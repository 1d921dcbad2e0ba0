//! The whole test run.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::process::{cargo, exists, run};
use crate::{layering, posix, setup, tidy};

pub(crate) fn ci(root: &Path) -> Result<()> {
    let start = Instant::now();
    let environment = setup::setup(root)?;
    let with = |args: &[&str]| {
        let mut command = cargo(root);
        environment.apply(&mut command);
        command.args(args);
        command
    };
    run("format", &mut with(&["fmt", "--all", "--check"]))?;
    layering::check(root)?;
    tidy::check(root)?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    run("clippy", &mut with(&clippy))?;
    run("tests", &mut tests(&with))?;
    posix::posix(root)?;
    run("doc tests", &mut with(&["test", "--workspace", "--doc", "--locked"]))?;
    let mut doc =
        with(&["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"]);
    run("documentation", doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("==> everything passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn tests(with: &dyn Fn(&[&str]) -> Command) -> Command {
    if exists("cargo-nextest") {
        with(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])
    } else {
        println!("==> cargo-nextest is not installed; using cargo test");
        with(&["test", "--workspace", "--locked", "--lib", "--bins", "--tests", "--no-fail-fast"])
    }
}
