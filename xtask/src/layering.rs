//! Which of our crates may depend on which: the layers of `ARCHITECTURE.md`, enforced.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A crate and what it may depend on, besides for its tests.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("tier-types", &[]),
    ("tier-log", &["tier-types"]),
    ("tier-status", &["tier-types"]),
    ("tier-index", &["tier-types"]),
    ("tier-persist", &["tier-types", "tier-index", "tier-status"]),
    ("tier-evict", &["tier-types", "tier-log", "tier-status"]),
    ("tier-cloud", &["tier-types"]),
    (
        "tier-agent",
        &["tier-types", "tier-log", "tier-status", "tier-index", "tier-persist", "tier-evict"],
    ),
    ("kvfs", &["tier-types", "tier-log"]),
    ("tier-rpc", &["tier-types"]),
    ("tier-testkit", &["tier-types", "tier-log", "tier-status"]),
    (
        "tier-cli",
        &[
            "tier-types",
            "tier-log",
            "tier-status",
            "tier-index",
            "tier-persist",
            "tier-evict",
            "tier-agent",
            "tier-cloud",
            "kvfs",
            "tier-rpc",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that only one of ours may use, because it hides them from the others.
const HIDDEN: [(&str, &[&str]); 6] = [
    ("rocksdb", &["tier-index", "kvfs"]),
    ("age", &["tier-persist"]),
    ("tar", &["tier-persist"]),
    ("zstd", &["tier-persist"]),
    ("clap", &["tier-cli"]),
    ("fuser", &["kvfs"]),
];

pub(crate) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for name in crates(root)? {
        let folder =
            if name == "xtask" { root.join("xtask") } else { root.join("crates").join(&name) };
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} has no place in the table of layers"));
            continue;
        };
        for dependency in dependencies(&folder.join("Cargo.toml"))? {
            let ours = ALLOWED.iter().any(|(known, _)| *known == dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} must not depend on {dependency}"));
            }
            let hidden = HIDDEN.iter().find(|(hidden, _)| *hidden == dependency);
            if hidden.is_some_and(|(_, users)| !users.contains(&name.as_str())) {
                wrong.push(format!("{name} must not use {dependency} itself"));
            }
        }
        found.insert(name);
    }
    if wrong.is_empty() {
        println!("==> layering: {} crates in their layers", found.len());
        return Ok(());
    }
    bail!("layering:\n  {}", wrong.join("\n  "))
}

fn crates(root: &Path) -> Result<Vec<String>> {
    let mut names = vec!["xtask".to_string()];
    for entry in fs::read_dir(root.join("crates")).context("cannot list crates")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The names in the `[dependencies]` section of a manifest.
fn dependencies(manifest: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    let section = text.split("[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_string();
    Ok(lines.map(name).filter(|name| !name.is_empty()).collect())
}
