//! RocksDB, compiled once for a machine, for every profile and every command.
//!
//! The crate `librocksdb-sys` compiles 340 files one by one, and most of the time goes into parsing
//! the same headers again: about 25 minutes on two cores. RocksDB keeps its sources fit for being
//! compiled as one translation unit (its own CI does it), so that they are compiled here in a few
//! groups, which takes about three minutes. The build script, its flags and the vendored sources
//! stay the crate's own: a copy of the crate gets another list of sources, each of which includes
//! the files of one group. Where that fails, with a later version perhaps, the crate is built as it
//! is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, run};

/// What the library is compiled with: `.cargo/config.toml` and the features of `rocksdb` in
/// `Cargo.toml`. To be changed with them.
const FLAVOUR: &str = "lz4-zstd-v2";
const FEATURES: &str = "bindgen-runtime,lz4,zstd";

const CRATE: &str = "librocksdb-sys";
/// The crate's list of the files to compile, relative to its directory `rocksdb`.
const SOURCES: &str = "rocksdb_lib_sources.txt";
/// Enough to keep many cores busy, few enough that parsing headers is no matter.
const N_GROUPS: usize = 16;

/// The directory with the static library, compiled if it is not there yet.
pub(super) fn library(root: &Path, cache: &Path) -> Result<PathBuf> {
    let package = find_package(root)?;
    let directory = cache.join(format!("rocksdb-{}-{FLAVOUR}", package.version));
    if directory.join("librocksdb.a").is_file() {
        println!("==> RocksDB is compiled already: {}", directory.display());
        return Ok(directory);
    }
    println!("==> RocksDB is compiled once for this machine; on 2 cores that takes 3 to 4 minutes");
    let work = cache.join("rocksdb-build");
    let compiled = compile_grouped(root, &package.directory, &work).or_else(|error| {
        println!("==> RocksDB cannot be compiled in groups: {error:#}");
        println!("==> it is compiled file by file; on 2 cores that takes about 25 minutes");
        compile_as_it_is(root, &work)
    })?;
    // Under another name first, so that an interrupted copy is not taken for the library.
    let partial = cache.join("rocksdb-partial");
    let failed = || format!("cannot put RocksDB into {}", directory.display());
    fs::create_dir_all(&partial).with_context(failed)?;
    fs::copy(&compiled, partial.join("librocksdb.a")).with_context(failed)?;
    fs::rename(&partial, &directory).with_context(failed)?;
    fs::remove_dir_all(&work).with_context(failed)?;
    Ok(directory)
}

/// Where a package of the lock file lies.
struct Package {
    version: String,
    directory: PathBuf,
}

fn find_package(root: &Path) -> Result<Package> {
    let output = cargo(root).args(["metadata", "--format-version", "1", "--locked"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata.get("packages").and_then(|packages| packages.as_array());
    let packages = packages.context("cargo metadata lists no packages")?;
    let is_ours = |package: &&serde_json::Value| package.get("name").is_some_and(|n| n == CRATE);
    let package = packages.iter().find(is_ours);
    let package = package.with_context(|| format!("Cargo.lock has no {CRATE}"))?;
    let text = |key: &str| {
        let text = package.get(key).and_then(|text| text.as_str());
        text.context("cargo metadata is not understood")
    };
    let manifest = PathBuf::from(text("manifest_path")?);
    let directory = manifest.parent().context("a manifest lies in a directory")?.to_path_buf();
    Ok(Package { version: text("version")?.to_string(), directory })
}

/// Compiles a copy of the crate whose list of sources names groups.
fn compile_grouped(root: &Path, package: &Path, work: &Path) -> Result<PathBuf> {
    let copy = work.join("crate");
    if copy.exists() {
        fs::remove_dir_all(&copy).context("cannot remove an earlier copy of the crate")?;
    }
    copy_tree(package, &copy)?;
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    write_manifest(&copy.join("Cargo.toml"))?;
    write_groups(&copy)?;
    let target = work.join("grouped");
    let mut build = cargo(root);
    build.args(["build", "--release", "--no-default-features", "--features", FEATURES]);
    build.arg("--manifest-path").arg(copy.join("Cargo.toml")).arg("--target-dir").arg(&target);
    build.env_remove("ROCKSDB_LIB_DIR").env_remove("CARGO_TARGET_DIR");
    run("compiling RocksDB in groups", &mut build)?;
    find_library(&target)
}

/// Makes the copy a workspace of its own, without what only its tests need.
fn write_manifest(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).context("cannot read the crate's manifest")?;
    let mut kept = String::new();
    let mut is_dev = false;
    for line in text.lines() {
        if line.starts_with('[') {
            is_dev = line.starts_with("[dev-dependencies") || line.starts_with("[[test]]");
        }
        if !is_dev {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.push_str("\n[workspace]\n");
    fs::write(path, kept).context("cannot write the copy's manifest")
}

/// Cuts the list of sources into groups of about the same number of bytes, in order, so that files
/// of one directory, which include the same headers, mostly come together.
fn write_groups(copy: &Path) -> Result<()> {
    let list = copy.join(SOURCES);
    let text = fs::read_to_string(&list).context("cannot read the list of RocksDB's sources")?;
    let sources = copy.join("rocksdb");
    let mut files = Vec::new();
    // The build script compiles its own version of this file.
    for file in text.split_whitespace().filter(|file| *file != "util/build_version.cc") {
        let path = sources.join(file);
        let bytes = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?.len();
        files.push((file, bytes));
    }
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut groups = vec![String::new()];
    let mut before = 0;
    for (file, bytes) in files {
        // The groups that should have begun by now; the last one takes the rest.
        let number = before * count(N_GROUPS) / total.max(1);
        while count(groups.len()) <= number {
            groups.push(String::new());
        }
        if let Some(group) = groups.last_mut() {
            group.push_str(&format!("#include \"{file}\"\n"));
        }
        before += bytes;
    }
    let mut names = String::new();
    for (number, group) in groups.iter().enumerate().filter(|(_, group)| !group.is_empty()) {
        let name = format!("group_{number}.cc");
        fs::write(sources.join(&name), group).context("cannot write a group of sources")?;
        names.push_str(&format!("{name}\n"));
    }
    fs::write(&list, names).context("cannot write the list of groups")
}

#[expect(clippy::as_conversions, reason = "a count of files fits into 64 bits")]
fn count(n: usize) -> u64 {
    n as u64
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().context("an entry has a name")?;
        let copy = to.join(name);
        if path.is_dir() {
            copy_tree(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

fn compile_as_it_is(root: &Path, work: &Path) -> Result<PathBuf> {
    let target = work.join("as-it-is");
    let mut build = cargo(root);
    build.args(["build", "--release", "--locked", "--package", CRATE, "--target-dir"]).arg(&target);
    build.env_remove("ROCKSDB_LIB_DIR").env_remove("CARGO_TARGET_DIR");
    run("compiling RocksDB", &mut build)?;
    find_library(&target)
}

fn find_library(target: &Path) -> Result<PathBuf> {
    let build = target.join("release/build");
    let entries =
        fs::read_dir(&build).with_context(|| format!("cannot list {}", build.display()))?;
    let libraries = entries.flatten().map(|entry| entry.path().join("out/librocksdb.a"));
    libraries.into_iter().find(|path| path.is_file()).context("RocksDB left no library")
}
