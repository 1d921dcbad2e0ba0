//! Rules of the house that no other tool checks: the shape of files, words, links, and counts.

mod counts;
mod links;
mod shape;
mod words;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::source;

pub(crate) fn check(root: &Path) -> Result<()> {
    let crates = source::crates(root)?;
    let mut texts = Vec::new();
    for path in all_rust_files(root)? {
        let name = path.strip_prefix(root)?.display().to_string();
        texts.push((name, source::read(&path)?));
    }
    let mut wrong = Vec::new();
    for (name, text) in &texts {
        let found = shape::problems(text).into_iter().chain(words::in_source(text));
        wrong.extend(found.map(|problem| format!("{name}: {problem}")));
    }
    for path in documents(root)? {
        let name = path.strip_prefix(root)?.display().to_string();
        let text = source::read(&path)?;
        // What was decided and changed stays as it was said then.
        let is_record = name.starts_with("docs/adr/") || name == "CHANGELOG.md";
        let lost = if is_record { Vec::new() } else { links::problems(root, &path, &text) };
        let found = words::in_document(&text).into_iter().chain(lost);
        wrong.extend(found.map(|problem| format!("{name}: {problem}")));
    }
    wrong.extend(counts::problems(&crates));
    if wrong.is_empty() {
        println!("==> tidy: {} files; {}", texts.len(), counts::summary(&crates));
        return Ok(());
    }
    bail!("tidy:\n  {}", wrong.join("\n  "))
}

/// Sources, tests, benches and examples of the workspace, and the fuzz targets.
fn all_rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in ["crates", "xtask", "fuzz/targets"] {
        files.extend(source::files_of(&root.join(directory), "rs")?);
    }
    Ok(files)
}

/// The prose: what lies at the root and in `docs`.
fn documents(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = source::files_of(&root.join("docs"), "md")?;
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "md") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
