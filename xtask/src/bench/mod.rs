//! Measurements against other programs, on the same data in the same run.

mod archive;
mod data;
mod evict;
mod foreground;
mod fs;
mod measure;
mod persist;
mod requests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::demo::release_program;
use crate::process::{cargo, exists, run};
use crate::setup;

const HELP: &str = "\
cargo xtask bench persist [OPTIONS]   persisting, against tar | zstd | age, restic, borg and others
cargo xtask bench archive [OPTIONS]   second snapshot, rebuild, full scan, one cold file, against restic
cargo xtask bench fs [OPTIONS]        the mount, against the host's filesystem and bindfs
cargo xtask bench evict [OPTIONS]     evicting from 10 GiB, what comes back, what others see of it
cargo xtask bench foreground [OPTIONS]  what persisting costs those who use the mount meanwhile
cargo xtask bench micro [ARGS]        the criterion benches

  --data DIR   where test data and stores are kept (about 15 GB); default target/bench
  --tree DIR   a tree of sources to measure with, may be given several times
  --set X      only this set: a (sources), b (incompressible), c (small files)
  --files N    files of set c; default 1000000
  --runs N     runs of each program; default 3
  --tier FILE  the program that is measured; default: this tree's, built in release
  --before FILE  fs: another build of it to measure against, in place of bindfs
";

/// What to measure, and with what.
pub(crate) struct Plan {
    /// The program that is measured.
    pub(crate) tier: PathBuf,
    /// Another build, to compare with.
    pub(crate) before: Option<PathBuf>,
    pub(crate) data: PathBuf,
    pub(crate) trees: Vec<PathBuf>,
    pub(crate) sets: Vec<String>,
    pub(crate) n_files: u32,
    pub(crate) n_runs: usize,
}

pub(crate) fn bench(root: &Path, args: &[String]) -> Result<()> {
    let (what, rest) = args.split_first().map_or(("help", args), |(w, rest)| (w.as_str(), rest));
    match what {
        "persist" => persist::persist(&prepare(root, rest)?),
        "archive" => archive::archive(&prepare(root, rest)?),
        "fs" => fs::fs(&prepare(root, rest)?),
        "evict" => evict::evict(&prepare(root, rest)?),
        "foreground" => foreground::foreground(&prepare(root, rest)?),
        "micro" => {
            let environment = setup::setup(root)?;
            let mut bench = cargo(root);
            environment.apply(&mut bench).args(["bench", "--workspace", "--locked", "--benches"]);
            run("criterion benches", bench.args(rest))
        }
        "help" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no bench {other}\n{HELP}"),
    }
}

fn prepare(root: &Path, args: &[String]) -> Result<Plan> {
    let mut plan = Plan {
        tier: PathBuf::new(),
        before: None,
        data: root.join("target/bench"),
        trees: Vec::new(),
        sets: Vec::new(),
        n_files: 1_000_000,
        n_runs: 3,
    };
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let value = args.next().with_context(|| format!("{option} wants a value\n{HELP}"))?;
        match option.as_str() {
            "--data" => plan.data = value.into(),
            "--tree" => plan.trees.push(value.into()),
            "--set" => plan.sets.push(value.clone()),
            "--files" => plan.n_files = value.parse().context("--files wants a number")?,
            "--tier" => plan.tier = value.into(),
            "--before" => plan.before = Some(value.into()),
            "--runs" => plan.n_runs = value.parse().context("--runs wants a number")?,
            other => bail!("there is no option {other}\n{HELP}"),
        }
    }
    if plan.trees.is_empty() {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        plan.trees.push(home.context("HOME is not set")?.join("registry/src"));
    }
    require(&["time", "tar", "zstd", "age", "age-keygen", "restic", "borg", "dd"])?;
    if plan.tier.as_os_str().is_empty() {
        plan.tier = release_program(root)?;
    }
    std::fs::create_dir_all(&plan.data)
        .with_context(|| format!("cannot create {}", plan.data.display()))?;
    Ok(plan)
}

fn require(programs: &[&str]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|program| !exists(program)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    bail!("{missing} missing; as root: apt-get install -y time age zstd tar restic borgbackup")
}
