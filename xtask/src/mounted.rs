//! A throw-away store that is mounted by the program.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::process::run;
use crate::setup::is_root;

/// Why this machine cannot mount; `None` if it can.
pub(crate) fn obstacle() -> Option<&'static str> {
    let fuse = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    (fuse.is_err() || !is_root()).then_some("it needs root and /dev/fuse, which are not here")
}

/// A mounted store. Dropped, it is taken away however it is.
pub(crate) struct Mounted {
    tier: PathBuf,
    store: PathBuf,
    directory: PathBuf,
    child: Child,
}

impl Mounted {
    /// Makes a store in a directory, and mounts it there.
    pub(crate) fn new(tier: &Path, work: &Path, args: &[&str]) -> Result<Self> {
        let mut init = Command::new(tier);
        let init = init.args(["init", "-q"]).arg(work.join("store")).stderr(Stdio::null());
        run("making a store", init)?;
        Self::of(tier, work, args)
    }

    /// Mounts the store in a directory there.
    pub(crate) fn of(tier: &Path, work: &Path, args: &[&str]) -> Result<Self> {
        let (store, directory) = (work.join("store"), work.join("mnt"));
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let mut mount = Command::new(tier);
        mount.arg("mount").args(args).arg(&store).arg(&directory).stderr(Stdio::piped());
        let mut child = mount.spawn().context("cannot start tier mount")?;
        let said = child.stderr.take().context("standard error is piped")?;
        let mounted = Self { tier: tier.to_path_buf(), store, directory, child };
        let mut said = BufReader::new(said).lines();
        let first = said.next().transpose()?.unwrap_or_default();
        if !first.starts_with("Mounted") {
            bail!("tier mount says: {first}");
        }
        // What else it says is passed on.
        thread::spawn(move || said.map_while(Result::ok).for_each(|line| println!("{line}")));
        Ok(mounted)
    }

    /// The number of the process that mounts it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The store's directory.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// Where it is mounted.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a command on the store, which must succeed.
    pub(crate) fn tier(&self, command: &[&str], last: &[&str]) -> Result<()> {
        let mut tier = Command::new(&self.tier);
        let output = tier.args(command).arg(&self.store).args(last).output()?;
        if !output.status.success() {
            let (out, error) = (&output.stdout, &output.stderr);
            let (out, error) = (String::from_utf8_lossy(out), String::from_utf8_lossy(error));
            bail!("tier {}: {out}{error}", command.join(" "));
        }
        Ok(())
    }

    /// Snapshots, evictions of everything and recalls, one after the other, meanwhile.
    pub(crate) fn while_tiering(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let tiering = scope.spawn(|| -> Result<u64> {
                let mut n_rounds = 0;
                while !ended.load(Ordering::Relaxed) {
                    self.tier(&["snapshot"], &[])?;
                    self.tier(&["evict", "--all"], &[])?;
                    self.tier(&["recall"], &["/"])?;
                    n_rounds += 1;
                }
                Ok(n_rounds)
            });
            let done = work();
            ended.store(true, Ordering::Relaxed);
            let n_rounds = tiering.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
            println!("==> {n_rounds} rounds of snapshot, eviction and recall meanwhile");
            done
        })
    }

    /// Unmounts, and wants to see it end well.
    pub(crate) fn end(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        run("unmounting", Command::new("kill").args(["-TERM", &pid]))?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("tier mount ended with {status}") }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
        }
    }
}
