//! What evicting costs: small files by number, shares of a large store at random, and what the
//! foreground of a mount sees of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Plan;
use super::measure::{fresh, shell};
use crate::mounted::Mounted;

/// Small files, and bytes of each.
const N_SMALL: u32 = 200_000;
const SMALL_BYTES: usize = 2000;
/// Bytes of each file of the large store.
const FILE_BYTES: usize = 256 << 10;
/// How much the large store holds.
const LARGE_BYTES: usize = 10 << 30;
/// Groups of the large store, in percent of what is left when their turn comes.
const SHARES: [(&str, f64); 3] = [("2.5", 0.025), ("20", 0.2), ("80", 0.8)];
/// Files that are read to see how fast that is.
const N_READS: usize = 2000;
/// How long a mount is looked at.
const LOOK: Duration = Duration::from_secs(20);

pub(crate) fn evict(plan: &Plan) -> Result<()> {
    let work = plan.data.join("evict");
    fresh(&work)?;
    small_files(plan, &work)?;
    let store = large_store(plan, &work)?;
    idle(plan, &work)?;
    shares(plan, &store, &work)?;
    foreground(plan, &work)
}

/// A generator of numbers; the same ones in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n + 8);
        while bytes.len() < n {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(n);
        bytes
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        let [a, b, c, d, ..] = self.next().to_be_bytes();
        f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
    }
}

fn tier(plan: &Plan, args: &str) -> Result<()> {
    shell(&format!("{} {args}", plan.tier.display())).map(drop)
}

fn small_files(plan: &Plan, work: &Path) -> Result<()> {
    let (store, source) = (work.join("small"), work.join("source"));
    let mut numbers = Numbers(7);
    for number in 0..N_SMALL {
        let directory = source.join((number / 1000).to_string());
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(number.to_string()), numbers.bytes(SMALL_BYTES))?;
    }
    let (at, from) = (store.display(), source.display());
    tier(plan, &format!("init -q {at} --cloud file://{}/cloud-small", work.display()))?;
    tier(plan, &format!("import -q {at} {from}"))?;
    tier(plan, &format!("snapshot -q {at}"))?;
    let took = shell(&format!("{} evict -q {at} --all", plan.tier.display()))?;
    println!(
        "evicting {N_SMALL} files of {SMALL_BYTES} bytes, the whole command: {:.1} s, {:.0} a second",
        took.wall_s,
        f64::from(N_SMALL) / took.wall_s
    );
    fs::remove_dir_all(&source)?;
    Ok(fs::remove_dir_all(&store)?)
}

/// Files of groups that lie between each other at random, in the cloud and in the store.
fn large_store(plan: &Plan, work: &Path) -> Result<PathBuf> {
    let store = work.join("store");
    let at = store.display();
    tier(plan, &format!("init -q {at} --cloud file://{}/cloud", work.display()))?;
    let mounted = Mounted::of(&plan.tier, work, &["--no-agent"])?;
    let mut numbers = Numbers(11);
    let groups: Vec<_> = SHARES.iter().map(|(name, _)| *name).chain(["rest"]).collect();
    for group in &groups {
        fs::create_dir(mounted.directory().join(group))?;
    }
    for number in 0..LARGE_BYTES / FILE_BYTES {
        let group = SHARES.iter().find(|(_, share)| numbers.share() < *share);
        let group = group.map_or("rest", |(name, _)| name);
        let path = mounted.directory().join(group).join(number.to_string());
        fs::write(path, numbers.bytes(FILE_BYTES))?;
    }
    let started = Instant::now();
    mounted.tier(&["snapshot", "-q"], &[])?;
    let seconds = started.elapsed().as_secs_f64();
    println!("10 GiB persisted, uploaded and verified: {seconds:.1} s");
    mounted.end()?;
    // Local tarballs are no matter of what is measured here.
    for group in &groups {
        tier(plan, &format!("pin -q {at} /{group}"))?;
    }
    tier(plan, &format!("evict -q {at} --all"))?;
    Ok(store)
}

/// What an agent with nothing to do takes.
fn idle(plan: &Plan, work: &Path) -> Result<()> {
    let mounted = Mounted::of(&plan.tier, work, &[])?;
    std::thread::park_timeout(Duration::from_secs(5));
    let before = Taken::by(mounted.id())?;
    std::thread::park_timeout(LOOK);
    let after = Taken::by(mounted.id())?;
    let seconds = LOOK.as_secs_f64();
    println!(
        "an idle mount with its agent: {:.2} % of a processor, {:.1} wakeups and {:.1} reads or \
         writes a second",
        (after.cpu_ticks - before.cpu_ticks) / seconds,
        (after.n_wakeups - before.n_wakeups) / seconds,
        (after.n_requests - before.n_requests) / seconds
    );
    mounted.end()
}

/// What a process took so far.
struct Taken {
    /// Hundredths of a second.
    cpu_ticks: f64,
    n_wakeups: f64,
    /// Read and write requests.
    n_requests: f64,
}

impl Taken {
    fn by(process: u32) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{process}"));
        let stat = fs::read_to_string(process.join("stat"))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let tick = |number: usize| fields.get(number).and_then(|tick| tick.parse::<f64>().ok());
        let cpu_ticks = tick(11).zip(tick(12)).map(|(user, system)| user + system);
        let mut n_wakeups = 0.0;
        for thread in fs::read_dir(process.join("task"))? {
            // A thread may have ended since it was listed.
            let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
            n_wakeups += number_of(&status, "voluntary_ctxt_switches:")?;
        }
        let io = fs::read_to_string(process.join("io"))?;
        Ok(Self {
            cpu_ticks: cpu_ticks.context("/proc/PID/stat has no times")?,
            n_wakeups,
            n_requests: number_of(&io, "syscr:")? + number_of(&io, "syscw:")?,
        })
    }
}

fn number_of(text: &str, name: &str) -> Result<f64> {
    let number = text.lines().find_map(|line| line.strip_prefix(name));
    let number = number.with_context(|| format!("no {name} in {text}"))?;
    number.trim().parse().with_context(|| format!("{name} {number} is no number"))
}

/// Evicts one group after the other, and looks at what the disk gets back.
fn shares(plan: &Plan, store: &Path, work: &Path) -> Result<()> {
    println!("| evicted at random | MB | back after s | MB back | share | written MB |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let at = store.display();
    let before = reading(plan, work)?;
    for (group, _) in SHARES {
        tier(plan, &format!("unpin -q {at} /{group}"))?;
        let files = disk_bytes(store)?;
        let started = Instant::now();
        let mut command = Command::new("bash");
        command.args([
            "-c",
            &format!("{} evict {at} --all --json; cat /proc/$$/io >&2", plan.tier.display()),
        ]);
        let output = command.stderr(Stdio::piped()).output()?;
        if !output.status.success() {
            bail!("tier evict: {}", String::from_utf8_lossy(&output.stderr));
        }
        let seconds = started.elapsed().as_secs_f64();
        let evicted = json_number(&String::from_utf8_lossy(&output.stdout), "bytes")?;
        let written = number_of(&String::from_utf8_lossy(&output.stderr), "write_bytes:")?;
        let back = files - disk_bytes(store)?;
        println!(
            "| {group} % | {:.0} | {seconds:.1} | {:.0} | {:.3} | {:.1} |",
            evicted / 1e6,
            back / 1e6,
            back / evicted,
            written / 1e6
        );
    }
    let after = reading(plan, work)?;
    println!(
        "reads of {N_READS} files that stayed, cold: {:.2} s before, {:.2} s after; ls -R: {:.2} \
         and {:.2} s",
        before.reads_s, after.reads_s, before.list_s, after.list_s
    );
    Ok(())
}

fn json_number(json: &str, name: &str) -> Result<f64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).context("a number is missing")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("{name} is no number: {json}"))
}

/// What the files below a directory take on the disk.
fn disk_bytes(directory: &Path) -> Result<f64> {
    let output = Command::new("du").args(["-s", "--block-size=1", "--"]).arg(directory).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().unwrap_or("").parse().context("du failed")
}

struct Reading {
    reads_s: f64,
    list_s: f64,
}

/// Reads of files that stay, and a listing, on a fresh mount with cold caches.
fn reading(plan: &Plan, work: &Path) -> Result<Reading> {
    let mounted = Mounted::of(&plan.tier, work, &["--no-agent"])?;
    shell("echo 3 > /proc/sys/vm/drop_caches")?;
    let list = shell(&format!("ls -R {} > /dev/null", mounted.directory().display()))?;
    let rest = mounted.directory().join("rest");
    let mut names = Vec::new();
    for entry in fs::read_dir(&rest)? {
        names.push(entry?.path());
    }
    names.sort();
    let mut numbers = Numbers(13);
    let n_names = u64::try_from(names.len())?;
    let started = Instant::now();
    for _ in 0..N_READS {
        let place = usize::try_from(numbers.next() % n_names)?;
        let path = names.get(place).context("there is such a file")?;
        let mut first = [0; 4096];
        File::open(path)?.read_exact(&mut first)?;
    }
    let reads_s = started.elapsed().as_secs_f64();
    mounted.end()?;
    Ok(Reading { reads_s, list_s: list.wall_s })
}

/// What the foreground sees: alone, and while space is made.
fn foreground(plan: &Plan, work: &Path) -> Result<()> {
    let mounted = Mounted::of(&plan.tier, work, &["--no-agent"])?;
    let directory = mounted.directory().join("foreground");
    fs::create_dir(&directory)?;
    let until = Instant::now() + LOOK;
    let alone = Latencies::of(&directory, || Ok(Instant::now() >= until))?;
    mounted.tier(&["unpin", "-q"], &["/rest"])?;
    let mut evict = Command::new(&plan.tier);
    evict.args(["evict", "-q", "--all"]).arg(mounted.store()).stdout(Stdio::null());
    let mut evict = evict.spawn().context("cannot start tier evict")?;
    let meanwhile = Latencies::of(&directory, || Ok(evict.try_wait()?.is_some()))?;
    println!("| | n | p50 ms | p99 ms | slowest ms |\n| --- | ---: | ---: | ---: | ---: |");
    alone.print("write and sync 4 KiB, alone");
    meanwhile.print("the same while space is made");
    mounted.end()
}

/// Milliseconds, in order.
struct Latencies(Vec<f64>);

impl Latencies {
    fn of(directory: &Path, mut is_enough: impl FnMut() -> Result<bool>) -> Result<Self> {
        let mut all = Vec::new();
        while !is_enough()? {
            let started = Instant::now();
            let path = directory.join((all.len() % 1000).to_string());
            let mut file = File::create(&path)?;
            file.write_all(&[b'x'; 4096])?;
            file.sync_all()?;
            all.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        all.sort_by(f64::total_cmp);
        Ok(Self(all))
    }

    fn print(&self, what: &str) {
        let at = |hundredth: usize| {
            let place = (self.0.len() * hundredth / 100).min(self.0.len().saturating_sub(1));
            self.0.get(place).copied().unwrap_or(f64::NAN)
        };
        let (n, p50, p99, slowest) = (self.0.len(), at(50), at(99), at(100));
        println!("| {what} | {n} | {p50:.2} | {p99:.2} | {slowest:.2} |");
    }
}
