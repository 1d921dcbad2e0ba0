//! Rules of the house that no other tool checks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A longer file holds more than one idea.
const LINES_MAX: usize = 500;

pub(crate) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    let mut wrong = Vec::new();
    for path in &files {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        wrong.extend(problems(&text).into_iter().map(|problem| format!("{name}: {problem}")));
    }
    if wrong.is_empty() {
        println!("==> tidy: {} files", files.len());
        return Ok(());
    }
    bail!("tidy:\n  {}", wrong.join("\n  "))
}

fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let n_lines = text.lines().count();
    if n_lines > LINES_MAX {
        problems.push(format!("{n_lines} lines; at most {LINES_MAX}"));
    }
    if !text.starts_with("//!") {
        problems.push("does not open with a //! sentence".into());
    }
    for (line_idx, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
            problems.push(format!("line {}: allow; use expect with a reason", line_idx + 1));
        }
        if line.starts_with("#[ignore") {
            problems.push(format!("line {}: an ignored test", line_idx + 1));
        }
    }
    problems
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
