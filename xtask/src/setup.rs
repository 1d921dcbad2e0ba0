//! What a fresh machine lacks, and RocksDB, compiled once for every profile and every command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, exists, run};

/// What the library is compiled with: `.cargo/config.toml` and the features of `rocksdb` in
/// `Cargo.toml`. To be changed with them.
const FLAVOUR: &str = "lz4-zstd-v2";

/// Environment for every cargo command that links RocksDB.
pub(crate) struct Environment(Vec<(&'static str, PathBuf)>);

impl Environment {
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (key, value) in &self.0 {
            command.env(key, value);
        }
        command
    }
}

/// Installs what is missing and has RocksDB compiled.
pub(crate) fn setup(root: &Path) -> Result<Environment> {
    install_missing()?;
    if std::env::var_os("ROCKSDB_LIB_DIR").is_some() {
        println!("==> RocksDB is taken from ROCKSDB_LIB_DIR");
        return Ok(Environment(Vec::new()));
    }
    let folder = rocksdb(root)?;
    Ok(Environment(vec![("ROCKSDB_LIB_DIR", folder), ("ROCKSDB_STATIC", "1".into())]))
}

/// A Debian package and how to tell that it is there.
struct Package {
    name: &'static str,
    present: fn() -> bool,
    why: &'static str,
}

const PACKAGES: [Package; 10] = [
    Package { name: "g++", present: || exists("g++"), why: "it compiles RocksDB" },
    Package { name: "libclang-dev", present: has_libclang, why: "it generates RocksDB's bindings" },
    Package { name: "age", present: || exists("age"), why: "tests read our archives with it" },
    Package { name: "zstd", present: || exists("zstd"), why: "tests read our archives with it" },
    Package { name: "tar", present: || exists("tar"), why: "tests read our archives with it" },
    Package {
        name: "libarchive-tools",
        present: || exists("bsdtar"),
        why: "tests read our archives with bsdtar",
    },
    Package { name: "fuse3", present: || exists("fusermount3"), why: "tests mount stores" },
    Package {
        name: "libacl1-dev",
        present: || Path::new("/usr/include/sys/acl.h").exists(),
        why: "pjdfstest is compiled with it",
    },
    Package { name: "acl", present: || exists("setfacl"), why: "tests set access control lists" },
    Package { name: "attr", present: || exists("setfattr"), why: "tests look at attributes" },
];

fn install_missing() -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|package| !(package.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    for package in &missing {
        println!("==> {} is missing: {}", package.name, package.why);
    }
    let by_hand = format!("apt-get update && apt-get install -y {}", names.join(" "));
    if !exists("apt-get") || !is_root() {
        bail!("run as root: {by_hand}");
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run("apt-get update", &mut apt(&["update", "-qq"]))?;
    let install = [&["install", "-y", "-qq", "--no-install-recommends"], names.as_slice()].concat();
    run(&format!("installing {}", names.join(", ")), &mut apt(&install))
}

pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let folders =
        ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let mut folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    if let Ok(entries) = fs::read_dir("/usr/lib") {
        let llvm =
            entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("llvm-"));
        folders.extend(llvm.map(|entry| entry.path().join("lib")));
    }
    let is_libclang = |name: &str| {
        name.starts_with("libclang") && name.contains(".so") && !name.starts_with("libclang-cpp")
    };
    folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).any(|entries| {
        entries.flatten().any(|entry| is_libclang(&entry.file_name().to_string_lossy()))
    })
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    root.join(target.map_or_else(|| "target".into(), PathBuf::from))
}

/// The folder with the static library, compiled if it is not there yet.
fn rocksdb(root: &Path) -> Result<PathBuf> {
    let cache = cache_folder()?;
    let folder = cache.join(format!("rocksdb-{}-{FLAVOUR}", locked_version(root)?));
    if folder.join("librocksdb.a").is_file() {
        println!("==> RocksDB is compiled already: {}", folder.display());
        return Ok(folder);
    }
    println!(
        "==> RocksDB is compiled once for this machine; on 2 cores that takes 10 to 20 minutes"
    );
    let target = cache.join("rocksdb-build");
    let mut build = cargo(root);
    build
        .args(["build", "--release", "--locked", "--package", "librocksdb-sys", "--target-dir"])
        .arg(&target);
    build.env_remove("ROCKSDB_LIB_DIR").env_remove("CARGO_TARGET_DIR");
    run("compiling RocksDB", &mut build)?;
    let library = find_library(&target)?;
    // Under another name first, so that an interrupted copy is not taken for the library.
    let partial = cache.join("rocksdb-partial");
    let failed = || format!("cannot put RocksDB into {}", folder.display());
    fs::create_dir_all(&partial).with_context(failed)?;
    fs::copy(&library, partial.join("librocksdb.a")).with_context(failed)?;
    fs::rename(&partial, &folder).with_context(failed)?;
    fs::remove_dir_all(&target).with_context(failed)?;
    Ok(folder)
}

fn find_library(target: &Path) -> Result<PathBuf> {
    let build = target.join("release/build");
    let entries =
        fs::read_dir(&build).with_context(|| format!("cannot list {}", build.display()))?;
    let libraries = entries.flatten().map(|entry| entry.path().join("out/librocksdb.a"));
    libraries.into_iter().find(|path| path.is_file()).context("RocksDB left no library")
}

pub(crate) fn cache_folder() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("tier");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

/// The version of `librocksdb-sys` in the lock file.
fn locked_version(root: &Path) -> Result<String> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let after = lock.split("name = \"librocksdb-sys\"").nth(1);
    let version = after.and_then(|after| after.split('"').nth(1));
    Ok(version.context("Cargo.lock has no librocksdb-sys")?.to_string())
}
