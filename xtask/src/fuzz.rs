//! Fuzzing of every decoder of untrusted bytes, with libFuzzer and stable Rust: there is no unsafe
//! code of ours that a sanitizer could watch.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, run};
use crate::setup;

/// What libFuzzer needs of the compiler.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
const SECONDS: u32 = 60;

/// Runs each target, or only those that are named, for 60 seconds or as many as are given.
pub(crate) fn fuzz(root: &Path, args: &[String]) -> Result<()> {
    let (numbers, names): (Vec<&String>, Vec<&String>) =
        args.iter().partition(|arg| arg.parse::<u32>().is_ok());
    let seconds = numbers.first().map_or(Ok(SECONDS), |seconds| seconds.parse())?;
    let directory = root.join("fuzz");
    let environment = setup::setup(root)?;
    let mut build = cargo(&directory);
    // With a target, the flags are not for build scripts and macros.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    environment.apply(&mut build).args(["build", "--release", "--locked", "--target", &triple]);
    build.env("RUSTFLAGS", RUSTFLAGS).env("CARGO_TARGET_DIR", directory.join("target"));
    run("building the fuzz targets", &mut build)?;
    let mut all = targets(&directory)?;
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; fuzz/targets has them all");
    }
    all.retain(|target| names.is_empty() || names.contains(&target));
    for target in all {
        let corpus = directory.join("corpus").join(&target);
        fs::create_dir_all(&corpus).with_context(|| format!("no {}", corpus.display()))?;
        let found = directory.join("target/corpus").join(&target);
        fs::create_dir_all(&found).with_context(|| format!("no {}", found.display()))?;
        // What is found goes into the first directory; the kept corpus only feeds it.
        let program = directory.join("target").join(&triple).join("release").join(&target);
        let mut fuzz = Command::new(program);
        fuzz.current_dir(&directory).arg(found).arg(corpus);
        fuzz.arg(format!("-max_total_time={seconds}"));
        fuzz.args(["-max_len=65536", "-rss_limit_mb=2048", "-timeout=10", "-verbosity=0"]);
        fuzz.arg(format!("-artifact_prefix=target/crash-{target}-"));
        run(&format!("fuzzing {target} for {seconds} s"), &mut fuzz)?;
    }
    Ok(())
}

fn targets(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory.join("targets")).context("cannot list fuzz/targets")?;
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.path().file_stem()?.to_str().map(String::from))
        .collect();
    names.sort();
    Ok(names)
}
