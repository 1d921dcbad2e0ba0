//! Everything a developer runs. `cargo xtask help` lists it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod backups;
mod bench;
mod ci;
mod demo;
mod fuzz;
mod layering;
mod mounted;
mod posix;
mod process;
mod real;
mod setup;
mod source;
mod space;
mod stress;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const HELP: &str = "\
cargo xtask ci          format, spelling, licences, layers, clippy, all tests, documentation
cargo xtask full        the same, and what takes longer: 500 kills and losses of power, real
                        programs, stress-ng, fuzzing, a filled disk, mutants
cargo xtask demo [DIR]  build in release, run the whole life cycle on a real tree
cargo xtask bench       measure against other programs; cargo xtask bench help says what
cargo xtask fuzz [SECONDS] [TARGET]…  every decoder for 60 seconds each
cargo xtask posix       pjdfstest and fsx on a mount
cargo xtask real        programs that people use on a mount, hot and evicted; backups of cold files
cargo xtask space       20 GB through a store on a disk of 2.5 GB, its cloud away for two minutes;
                        once into a directory, and once into a bucket
cargo xtask cluster     a distributed object store whose servers fail, two machines that use it, and
                        200 kills of uploads (root, network namespaces)
cargo xtask stress      stress-ng's stressors of filesystems on a mount, hot and evicted
cargo xtask soak [MINUTES]  a store that may take a quarter of its data, killed every few seconds
cargo xtask setup       install what is missing, compile RocksDB once for all
cargo xtask layering    which crate may depend on which
cargo xtask tidy        rules of the house that no other tool checks
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = root()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = args.split_first().map_or(("help", &args[..]), |(t, rest)| (t, rest));
    match task {
        "bench" => bench::bench(&root, rest),
        "ci" => ci::ci(&root),
        "full" => ci::full(&root),
        "demo" => demo::demo(&root, rest),
        "setup" => setup::setup_for_tests(&root).map(drop),
        "fuzz" => fuzz::fuzz(&root, rest),
        "real" => real::real(&root),
        "posix" => posix::posix(&root),
        "space" => space::space(&root),
        "cluster" => space::cluster(&root),
        "stress" => stress::stress(&root),
        "soak" => space::soak(&root, rest),
        "layering" => layering::check(&root),
        "tidy" => tidy::check(&root),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("there is no task {other}\n{HELP}"),
    }
}

/// The workspace's directory.
fn root() -> Result<PathBuf> {
    // As cargo says it now: a program in a shared target directory may have been compiled for
    // another checkout.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    here.parent().map(Path::to_path_buf).context("xtask lies in the workspace")
}
