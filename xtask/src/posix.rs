//! The POSIX suites pjdfstest and fsx, on a mount of the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::mounted::{Mounted, obstacle};
use crate::process::{cargo, run};
use crate::setup;

/// Tests that make the filesystem read-only: each in a process of its own, because a process that
/// leaves a removed file open, as some tests do, keeps those after it from doing so.
const REMOUNTING: [&str; 13] = [
    "chmod::erofs_named",
    "chown::erofs_named",
    "chown::lchown::erofs_named",
    "link::erofs_named",
    "mkdir::erofs_new_file",
    "mkfifo::erofs_new_file",
    "open::erofs_named",
    "open::erofs_new_file",
    "rename::erofs_named",
    "rmdir::erofs_named",
    "symlink::erofs_new_file",
    "truncate::erofs_named",
    "unlink::erofs_named",
];

const PJDFSTEST: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";

const FSX_OPERATIONS: &str = "100000";

pub(crate) fn posix(root: &Path) -> Result<()> {
    if let Some(why) = obstacle() {
        println!("==> SKIPPED: the POSIX suites: {why}");
        return Ok(());
    }
    let pjdfstest = setup::program(root, "pjdfstest")?;
    let fsx = setup::program(root, "fsx")?;
    let tier = debug_program(root)?;
    let work = std::env::temp_dir().join(format!("tier-posix-{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let passed = Mounted::new(&tier, &work, &[]).and_then(|mounted| {
        let suites = Suites { pjdfstest, fsx, mounted, work: work.clone() };
        suites.run()?;
        suites.mounted.end()
    });
    fs::remove_dir_all(&work).context("cannot remove the work directory")?;
    passed
}

fn debug_program(root: &Path) -> Result<PathBuf> {
    let environment = setup::setup(root)?;
    let mut build = cargo(root);
    environment.apply(&mut build).args(["build", "--locked", "--package", "tier-cli"]);
    run("building tier", &mut build)?;
    Ok(setup::target_directory(root).join("debug/tier"))
}

struct Suites {
    pjdfstest: PathBuf,
    fsx: PathBuf,
    mounted: Mounted,
    work: PathBuf,
}

impl Suites {
    fn run(&self) -> Result<()> {
        self.pjdfstest()?;
        self.fsx("fsx, hot", true)?;
        self.fsx("fsx, hot, without mmap", false)?;
        self.mounted.while_tiering(|| {
            self.fsx("fsx, evicted all the time", true)?;
            self.fsx("fsx, evicted all the time, without mmap", false)
        })?;
        self.mounted.tier(&["fsck"], &[])?;
        self.mounted.tier(&["index", "check"], &[])
    }

    fn pjdfstest(&self) -> Result<()> {
        let [directory, second] =
            [self.mounted.directory().join("pjdfstest"), self.work.join("second")];
        for directory in [&directory, &second] {
            fs::create_dir_all(directory)?;
        }
        let [all, remounting] = ["all.toml", "remounting.toml"].map(|name| self.work.join(name));
        fs::write(&all, PJDFSTEST)?;
        fs::write(&remounting, PJDFSTEST.replace("allow_remount = false", "allow_remount = true"))?;
        // mount(8) hands a remount of FUSE to a helper that knows none; with -i it does it itself.
        let bin = self.work.join("bin");
        fs::create_dir_all(&bin)?;
        let script = "#!/bin/sh\nPATH=${PATH#*:} exec mount -i \"$@\"\n";
        fs::write(bin.join("mount"), script)?;
        run("chmod", Command::new("chmod").arg("+x").arg(bin.join("mount")))?;
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let alone = REMOUNTING.iter().map(|test| (Some(*test), &remounting));
        for (test, config) in std::iter::once((None, &all)).chain(alone) {
            let mut suite = Command::new(&self.pjdfstest);
            suite.arg("-c").arg(config).arg("-p").arg(&directory).arg("-s").arg(&second).args(test);
            let output = suite.env("PATH", &path).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let summary = text.lines().find(|line| line.starts_with("Summary"));
            let name = test.unwrap_or("all but these:");
            println!("==> pjdfstest {name:<27} {}", summary.unwrap_or("says nothing"));
            if !output.status.success() {
                bail!("pjdfstest:\n{text}");
            }
        }
        Ok(())
    }

    fn fsx(&self, what: &str, with_mmap: bool) -> Result<()> {
        let mapped = if with_mmap { 5 } else { 0 };
        let config = self.work.join("fsx.toml");
        // A posix_fallocate(2) of no bytes is an error everywhere, and would end one run in five.
        let weights = format!(
            "flen = 1048576\n[opsize]\nmin = 1\nmax = 131072\n[weights]\nclose_open = 1\ninvalidate = {}\n\
             mapread = {mapped}\nmapwrite = {mapped}\nread = 10\nwrite = 10\ntruncate = 3\n\
             fsync = 0.5\nfdatasync = 0.5\nposix_fallocate = 2\npunch_hole = 3\nsendfile = 1\n\
             posix_fadvise = 1\ncopy_file_range = 2\n",
            u8::from(with_mmap)
        );
        fs::write(&config, weights)?;
        let mut fsx = Command::new(&self.fsx);
        fsx.arg("-f").arg(&config).args(["-N", FSX_OPERATIONS, "-q", "-P"]).arg(&self.work);
        run(what, fsx.arg(self.mounted.directory().join("fsx")))
    }
}
