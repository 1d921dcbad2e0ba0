//! The whole test run, and what is too long for it.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::process::{cargo, exists, run};
use crate::setup::{self, Environment};
use crate::{fuzz, layering, posix, real, space, stress, tidy};

/// Crates whose concurrency kernels a model checker runs.
const MODELLED: [&str; 3] = ["kvfs", "tier-agent", "tier-persist"];
/// Crates that are policy and formats, small enough for every mutant to be tried.
const MUTATED: [&str; 4] = ["tier-types", "tier-log", "tier-status", "tier-evict"];
/// Kills, and losses of power.
const N_FAULTS: &str = "500";
/// Sessions of the long test of a disk that another program fills.
const FULL_SESSIONS: &str = "60";

/// What every change must pass.
pub(crate) fn ci(root: &Path) -> Result<()> {
    let start = Instant::now();
    let workspace = Workspace { root, environment: setup::setup_for_tests(root)? };
    workspace.run("format", &["fmt", "--all", "--check"])?;
    layering::check(root)?;
    tidy::check(root)?;
    workspace.words_and_licences()?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    workspace.run("clippy", &clippy)?;
    workspace.tests()?;
    workspace.model_checks()?;
    let example = ["run", "--locked", "--package", "tier-store", "--example", "embed"];
    workspace.run("the example of an embedder", &example)?;
    posix::posix(root)?;
    workspace.run("doc tests", &["test", "--workspace", "--doc", "--locked"])?;
    let doc = ["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"];
    run("documentation", workspace.cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("==> everything passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The same, and what takes longer: hundreds of kills and losses of power, real programs on a
/// mount, every decoder fuzzed, a disk that is filled for many minutes, every mutant of the small
/// crates.
pub(crate) fn full(root: &Path) -> Result<()> {
    ci(root)?;
    let workspace = Workspace { root, environment: setup::setup_for_tests(root)? };
    workspace.faults()?;
    real::real(root)?;
    stress::stress(root)?;
    fuzz::fuzz(root, &[])?;
    workspace.filled_disk()?;
    space::space(root)?;
    space::cluster(root)?;
    workspace.mutants()
}

/// The workspace, with what its commands need.
struct Workspace<'a> {
    root: &'a Path,
    environment: Environment,
}

impl Workspace<'_> {
    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = cargo(self.root);
        self.environment.apply(&mut command);
        command.args(args);
        command
    }

    fn run(&self, what: &str, args: &[&str]) -> Result<()> {
        run(what, &mut self.cargo(args))
    }

    /// Spelling, and what `deny.toml` says of dependencies. Advisories are left out: the list of
    /// them is not in a package registry.
    fn words_and_licences(&self) -> Result<()> {
        let typos = setup::program(self.root, "typos")?;
        run("spelling", Command::new(typos).arg("--format").arg("brief").current_dir(self.root))?;
        let deny = setup::program(self.root, "cargo-deny")?;
        let mut check = Command::new(deny);
        check.current_dir(self.root).args(["--log-level", "error", "check"]);
        run("licences and sources", check.args(["bans", "licenses", "sources"]))
    }

    fn tests(&self) -> Result<()> {
        if exists("cargo-nextest") {
            return self
                .run("tests", &["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
        }
        println!("==> cargo-nextest is not installed; using cargo test");
        let kinds = ["--lib", "--bins", "--tests", "--no-fail-fast"];
        self.run("tests", &[&["test", "--workspace", "--locked"], kinds.as_slice()].concat())
    }

    /// The schedules of threads that a model checker tries for each concurrency kernel.
    fn model_checks(&self) -> Result<()> {
        for name in MODELLED {
            let args = [
                "test",
                "--locked",
                "--package",
                name,
                "--features",
                "shuttle",
                "--lib",
                "shuttle",
            ];
            self.run(&format!("model checks of {name}"), &args)?;
        }
        Ok(())
    }

    /// Kills and losses of power at random moments, and a share of full disks, failed syncs and
    /// flipped bits. Not through nextest, which ends a test that takes so long.
    fn faults(&self) -> Result<()> {
        let args = ["test", "--locked", "--package", "tier-cli", "--test", "it", "--"];
        let mut tests = self.cargo(&[&args[..], &["power::", "kills::", "--nocapture"]].concat());
        tests.env("TIER_POWER_ROUNDS", N_FAULTS).env("TIER_KILLS", N_FAULTS);
        run("kills and losses of power", &mut tests)
    }

    /// The test of a disk that another program fills, for much longer than in the usual run.
    fn filled_disk(&self) -> Result<()> {
        let mut test = self.cargo(&["test", "--locked", "--package", "tier-cli", "--test", "it"]);
        run("a filled disk", test.arg("full_disk").env("TIER_FULL_DISK_SESSIONS", FULL_SESSIONS))
    }

    /// A mutant that no test kills is a line that no test checks.
    fn mutants(&self) -> Result<()> {
        let program = setup::program(self.root, "cargo-mutants")?;
        for name in MUTATED {
            let mut mutants = Command::new(&program);
            self.environment.apply(&mut mutants).current_dir(self.root);
            mutants.args(["mutants", "--package", name, "--test-workspace", "false"]);
            mutants.args(["--timeout", "120", "--output"]).arg(setup::target_directory(self.root));
            run(&format!("mutants of {name}"), &mut mutants)?;
        }
        Ok(())
    }
}
