//! What persisting costs the foreground activity on a mount, and the other way round.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Plan;
use super::data::sets;
use super::measure::{fresh, shell};
use super::persist::imported;
use crate::mounted::Mounted;

/// How long the mount is used without persisting, before and again after it: others use the
/// machine, too, and more at one time than at another.
const IDLE: Duration = Duration::from_secs(5);
/// Files in one round of use, and bytes of each.
const N_FILES: usize = 64;
const FILE_BYTES: usize = 4 << 10;
/// Bytes of the large file of a round, which is synced.
const LARGE_BYTES: usize = 4 << 20;

pub(crate) fn foreground(plan: &Plan) -> Result<()> {
    println!(
        "| | round alone ms | meanwhile ms | ratio | persisting alone s | meanwhile s | rate |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for set in sets(plan)?.into_iter().filter(|set| set.name != "a") {
        let (template, _) = imported(plan, &set)?;
        let (mut alone, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut persist_alone, mut persist_with) = (Vec::new(), Vec::new());
        for _ in 0..plan.n_runs {
            let mounted = copied(plan, &template)?;
            persist_alone.push(Snapshot::start(plan, &mounted)?.wait()?);
            mounted.end()?;
            let mounted = copied(plan, &template)?;
            let directory = mounted.directory();
            let mut idle = idle_rounds(directory)?;
            let mut snapshot = Snapshot::start(plan, &mounted)?;
            let meanwhile = rounds(directory, || Ok(snapshot.child.try_wait()?.is_some()))?;
            persist_with.push(snapshot.wait()?);
            idle.extend(idle_rounds(directory)?);
            mounted.end()?;
            let (idle, meanwhile) = (middle(idle), middle(meanwhile));
            ratios.push(meanwhile / idle);
            alone.push(idle * 1000.0);
            with.push(meanwhile * 1000.0);
        }
        let [alone, with, ratio] = [alone, with, ratios].map(middle);
        let [persist_alone, persist_with] = [persist_alone, persist_with].map(middle);
        println!(
            "| {} | {alone:.1} | {with:.1} | {ratio:.2} | {persist_alone:.1} | \
             {persist_with:.1} | {:.2} |",
            set.about,
            persist_alone / persist_with
        );
    }
    Ok(())
}

/// A mounted copy of a store that holds data and no snapshot.
fn copied(plan: &Plan, template: &Path) -> Result<Mounted> {
    let work = plan.data.join("foreground");
    fresh(&work)?;
    shell(&format!("cp -a {} {}/store; sync", template.display(), work.display()))?;
    Mounted::of(&plan.tier, &work, &["--no-agent"])
}

/// Persisting, under way.
struct Snapshot {
    child: Child,
    started: Instant,
}

impl Snapshot {
    fn start(plan: &Plan, mounted: &Mounted) -> Result<Self> {
        let mut tier = Command::new(&plan.tier);
        tier.args(["snapshot", "-q"]).arg(mounted.store()).stdout(Stdio::null());
        let child = tier.spawn().context("cannot start tier snapshot")?;
        Ok(Self { child, started: Instant::now() })
    }

    /// Seconds until it is done.
    fn wait(mut self) -> Result<f64> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("tier snapshot ended with {status}");
        }
        Ok(self.started.elapsed().as_secs_f64())
    }
}

fn idle_rounds(mount: &Path) -> Result<Vec<f64>> {
    let until = Instant::now() + IDLE;
    rounds(mount, || Ok(Instant::now() >= until))
}

/// Uses the mount until it is enough; the seconds that each round took.
fn rounds(mount: &Path, mut enough: impl FnMut() -> Result<bool>) -> Result<Vec<f64>> {
    let mut seconds = Vec::new();
    while !enough()? {
        let started = Instant::now();
        round(&mount.join("work"))?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

/// A round of ordinary work: files are made, listed, read, replaced and removed.
fn round(directory: &PathBuf) -> Result<()> {
    fs::create_dir(directory)?;
    let path = |number: usize| directory.join(number.to_string());
    for number in 0..N_FILES {
        fs::write(path(number), vec![b'x'; FILE_BYTES])?;
    }
    let mut large = File::create(directory.join("large.new"))?;
    large.write_all(&vec![b'y'; LARGE_BYTES])?;
    large.sync_all()?;
    fs::rename(directory.join("large.new"), directory.join("large"))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.metadata()?.len() != u64::try_from(fs::read(entry.path())?.len())? {
            bail!("{} is shorter than its size", entry.path().display());
        }
    }
    Ok(fs::remove_dir_all(directory)?)
}

fn middle(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}
