//! Source files: found, read and parsed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A crate of the workspace with its sources.
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
    /// What lies in `src`.
    pub(crate) files: Vec<SourceFile>,
}

/// A parsed source file.
pub(crate) struct SourceFile {
    /// Relative to the workspace.
    pub(crate) path: PathBuf,
    /// `["store", "db"]` for `src/store/db.rs`; empty for the root of a crate.
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

impl SourceFile {
    /// Whether the file is compiled for tests only.
    pub(crate) fn is_test(&self) -> bool {
        let is_for_tests =
            |name: &String| name == "tests" || name == "testing" || name.ends_with("_tests");
        self.module.iter().any(is_for_tests)
    }
}

/// All crates of the workspace, in order of their names.
pub(crate) fn crates(root: &Path) -> Result<Vec<Crate>> {
    let mut directories = vec![root.join("xtask")];
    for entry in fs::read_dir(root.join("crates")).context("cannot list crates")? {
        directories.push(entry?.path());
    }
    directories.sort();
    directories.iter().map(|directory| read_crate(root, directory)).collect()
}

fn read_crate(root: &Path, directory: &Path) -> Result<Crate> {
    let name = directory.file_name().context("a crate has a name")?.to_string_lossy();
    let src = directory.join("src");
    let mut files = Vec::new();
    for path in files_of(&src, "rs")? {
        let text = read(&path)?;
        let syntax = syn::parse_file(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let module = module_of(path.strip_prefix(&src)?);
        let path = path.strip_prefix(root)?.to_path_buf();
        files.push(SourceFile { path, module, text, syntax });
    }
    Ok(Crate { name: name.into_owned(), manifest: directory.join("Cargo.toml"), files })
}

/// The module that a file below `src` is.
fn module_of(path: &Path) -> Vec<String> {
    let path = path.with_extension("");
    let mut parts: Vec<_> =
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// All files of an ending at and below a directory, sorted.
pub(crate) fn files_of(directory: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut todo = vec![directory.to_path_buf()];
    while let Some(directory) = todo.pop() {
        let entries = fs::read_dir(&directory);
        for entry in entries.with_context(|| format!("cannot list {}", directory.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether an item is there for tests only.
pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Meta>()
                    .is_ok_and(|condition| mentions_test(&condition)))
    })
}

/// `test`, and `all(test, …)`.
fn mentions_test(condition: &syn::Meta) -> bool {
    match condition {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => {
            let mut tokens = list.tokens.clone().into_iter();
            list.path.is_ident("all") && tokens.any(|token| token.to_string() == "test")
        }
        syn::Meta::NameValue(_) => false,
    }
}
