//! Programs from the registry, installed once into the cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cache;
use crate::process::{cargo, run};

/// A crate of the registry that brings a program.
struct Program {
    krate: &'static str,
    version: &'static str,
    name: &'static str,
}

const PROGRAMS: [Program; 5] = [
    Program { krate: "pjdfstest", version: "0.2.2", name: "pjdfstest" },
    Program { krate: "fsx", version: "0.3.2", name: "fsx" },
    Program { krate: "cargo-deny", version: "0.20.2", name: "cargo-deny" },
    Program { krate: "typos-cli", version: "1.52.0", name: "typos" },
    Program { krate: "cargo-mutants", version: "27.1.0", name: "cargo-mutants" },
];

/// The path of a program, which is installed if it is not there yet in its version.
pub(crate) fn program(root: &Path, name: &str) -> Result<PathBuf> {
    let program = PROGRAMS.iter().find(|program| program.name == name);
    let Program { krate, version, .. } =
        program.with_context(|| format!("{name} is not in the table of programs"))?;
    let tools = cache::directory()?.join("tools");
    // Absent before the first installation.
    let installed = fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
    if !installed.contains(&format!("\"{krate} {version} ")) {
        let mut install = cargo(root);
        install.args(["install", "--locked", "--quiet", "--version", version, krate, "--root"]);
        install.arg(&tools).env_remove("CARGO_TARGET_DIR");
        run(&format!("installing {krate} {version}"), &mut install)?;
    }
    Ok(tools.join("bin").join(name))
}
