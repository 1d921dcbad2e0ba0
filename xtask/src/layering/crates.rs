//! Which crate may depend on which. Edges for tests do not count.

use std::path::Path;

use anyhow::{Context, Result};

use crate::source::{self, Crate};

/// A crate and what it may depend on, besides for its tests.
const ALLOWED: [(&str, &[&str]); 14] = [
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
        "tier-store",
        &[
            "tier-types",
            "tier-log",
            "tier-status",
            "tier-index",
            "tier-persist",
            "tier-evict",
            "tier-agent",
            "tier-cloud",
        ],
    ),
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
            "tier-store",
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

pub(super) fn problems(crates: &[Crate]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for krate in crates {
        let name = krate.name.as_str();
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} has no place in the table of layers"));
            continue;
        };
        for dependency in dependencies(&krate.manifest)? {
            let ours = ALLOWED.iter().any(|(known, _)| *known == dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} must not depend on {dependency}"));
            }
            let hidden = HIDDEN.iter().find(|(hidden, _)| *hidden == dependency);
            if hidden.is_some_and(|(_, users)| !users.contains(&name)) {
                wrong.push(format!("{name} must not use {dependency} itself"));
            }
        }
    }
    Ok(wrong)
}

/// What a crate is built with: the names in all sections of its manifest but those for tests.
fn dependencies(manifest: &Path) -> Result<Vec<String>> {
    let text = source::read(manifest)?;
    let manifest: toml::Table =
        text.parse().with_context(|| format!("{} is not valid", manifest.display()))?;
    let mut sections = vec![&manifest];
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    sections.extend(targets.into_iter().flat_map(toml::Table::values).filter_map(as_table));
    let mut names = Vec::new();
    for section in sections {
        for kind in ["dependencies", "build-dependencies"] {
            let found = section.get(kind).and_then(toml::Value::as_table);
            names.extend(found.into_iter().flat_map(toml::Table::keys).cloned());
        }
    }
    Ok(names)
}

fn as_table(value: &toml::Value) -> Option<&toml::Table> {
    value.as_table()
}
