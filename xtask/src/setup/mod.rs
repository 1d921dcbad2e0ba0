//! What a fresh machine lacks: packages, programs, and a compiled RocksDB.

mod cache;
mod programs;
mod rocksdb;
mod servers;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{exists, run};

pub(crate) use programs::program;

/// Environment for every cargo command that links RocksDB or runs tests.
pub(crate) struct Environment(Vec<(&'static str, OsString)>);

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
    let directory = rocksdb::library(root, &cache::directory()?)?;
    Ok(Environment(vec![("ROCKSDB_LIB_DIR", directory.into()), ("ROCKSDB_STATIC", "1".into())]))
}

/// The same, with the servers that tests use as clouds.
pub(crate) fn setup_for_tests(root: &Path) -> Result<Environment> {
    let Environment(mut variables) = setup(root)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = servers::programs()?.into_iter().chain(std::env::split_paths(&path));
    variables.push(("PATH", std::env::join_paths(all)?));
    Ok(Environment(variables))
}

/// A Debian package and how to tell that it is there.
struct Package {
    name: &'static str,
    present: fn() -> bool,
    why: &'static str,
}

const PACKAGES: [Package; 11] = [
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
    Package {
        name: "python3-venv",
        present: has_venv,
        why: "servers that tests use as clouds come from Python's registry",
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

fn has_venv() -> bool {
    let python = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    python.is_ok_and(|python| python.status.success())
}

pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let directories =
        ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let mut directories: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
    if let Ok(entries) = fs::read_dir("/usr/lib") {
        let llvm =
            entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("llvm-"));
        directories.extend(llvm.map(|entry| entry.path().join("lib")));
    }
    let is_libclang = |name: &str| {
        name.starts_with("libclang") && name.contains(".so") && !name.starts_with("libclang-cpp")
    };
    directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).any(|entries| {
        entries.flatten().any(|entry| is_libclang(&entry.file_name().to_string_lossy()))
    })
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    root.join(target.map_or_else(|| "target".into(), PathBuf::from))
}
