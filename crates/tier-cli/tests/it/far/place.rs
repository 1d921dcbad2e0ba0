//! A server behind a line, and stores in a directory before it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tier_testkit::servers::{Line, Proxy, Seaweed};

use crate::full_disk::mounted::Mounted;
use crate::harness::{Run, command, find};

/// A round trip of 30 ms, and 200 MB in a second.
const LINE: Line = Line { delay: Duration::from_millis(15), bytes_per_second: 200_000_000 };

pub(super) struct Far {
    _server: Seaweed,
    proxy: Proxy,
    dir: tempfile::TempDir,
}

/// Requests of one command, as it tells them.
#[derive(Clone, Copy, Default)]
pub(super) struct Requests {
    pub(super) n_writes: u64,
    pub(super) n_reads: u64,
    pub(super) n_heads: u64,
    pub(super) n_lists: u64,
    pub(super) n_deletes: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
}

impl Requests {
    pub(super) fn n_requests(&self) -> u64 {
        self.n_writes + self.n_reads + self.n_heads + self.n_lists + self.n_deletes
    }

    /// What a command has said of its stores.
    fn of(said: &str) -> Self {
        let sum = |name: &str| {
            let mut sum = 0;
            for after in said.split(name).skip(1) {
                let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
                sum += digits.parse::<u64>().unwrap_or(0);
            }
            sum
        };
        Self {
            n_writes: sum("n_writes: "),
            n_reads: sum("n_reads: "),
            n_heads: sum("n_heads: "),
            n_lists: sum("n_lists: "),
            n_deletes: sum("n_deletes: "),
            sent_bytes: sum("sent_bytes: "),
            received_bytes: sum("received_bytes: "),
        }
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_writes, n_reads, n_heads, n_lists, n_deletes, .. } = self;
        write!(
            f,
            "PUT {n_writes}, GET {n_reads}, HEAD {n_heads}, LIST {n_lists}, DELETE {n_deletes}"
        )
    }
}

impl Far {
    /// `None`, said loudly, on a machine without the server.
    pub(super) fn start() -> Option<Self> {
        let server = Seaweed::start()?;
        server.make_bucket("bucket");
        let proxy = Proxy::over(server.port(), Some(LINE));
        Some(Self { _server: server, proxy, dir: tempfile::tempdir().unwrap() })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn url(&self, place: &str) -> String {
        Seaweed::url_at(self.proxy.port(), place)
    }

    fn command(&self, args: &[&str]) -> Command {
        let dir = self.dir.path().display().to_string();
        let args: Vec<_> = args.iter().map(|arg| arg.replace("DIR", &dir)).collect();
        let mut command = command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.envs(Seaweed::ENVIRONMENT).env("RUST_LOG", "tier_cloud=debug");
        command
    }

    /// Runs a command; `DIR` is the directory.
    pub(super) fn tier(&self, args: &[&str]) -> Run {
        Run::of(&self.command(args).output().unwrap())
    }

    /// Runs one that must succeed, without what it prints.
    pub(super) fn timed(&self, args: &[&str]) -> (Duration, Requests) {
        let began = Instant::now();
        let output = self.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).output();
        let (time, run) = (began.elapsed(), Run::of(&output.unwrap()));
        assert_eq!(run.code, 0, "{}", run.err);
        (time, Requests::of(&run.err))
    }

    /// Mounts a store at `mnt`; `None`, said loudly, on a machine that cannot mount.
    pub(super) fn mount(&self, store: &str) -> Option<Mounted> {
        if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
            eprintln!("SKIPPED: this machine has no FUSE that this user may use ({error})");
            return None;
        }
        let on = self.path("mnt");
        fs::create_dir(&on).unwrap();
        Some(Mounted::with_keys(&self.path(store), &on, &Seaweed::ENVIRONMENT))
    }

    /// Replaces a setting of a store.
    pub(super) fn set(&self, store: &str, from: &str, to: &str) {
        let path = self.path(&store.replace("DIR/", "")).join("tier.toml");
        let settings = fs::read_to_string(&path).unwrap();
        let changed = settings.replace(from, to);
        assert_ne!(changed, settings);
        fs::write(&path, changed).unwrap();
    }

    /// The time in which another program copies files into the bucket; `None` without it.
    pub(super) fn rclone(&self, from: &Path, to: &str) -> Option<Duration> {
        let began = Instant::now();
        let endpoint = format!("http://127.0.0.1:{}", self.proxy.port());
        let [(_, id), (_, secret)] = Seaweed::ENVIRONMENT;
        let mut copy = Command::new("rclone");
        copy.args(["copy", "--s3-provider", "Other", "--s3-no-check-bucket", "--s3-endpoint"]);
        copy.args([&endpoint, "--s3-access-key-id", id, "--s3-secret-access-key", secret]);
        copy.arg(from).arg(format!(":s3:{to}"));
        // It takes no authority of certificates with its own transport.
        copy.env("RCLONE_CONFIG", "/dev/null").env_remove("AWS_CA_BUNDLE");
        match copy.status() {
            Ok(status) => assert!(status.success(), "rclone fails"),
            Err(_) => {
                println!("SKIPPED: rclone is not installed; apt-get install rclone");
                return None;
            }
        }
        Some(began.elapsed())
    }

    /// Bytes that went over the line so far.
    pub(super) fn bytes_there(&self) -> u64 {
        self.proxy.carried_bytes()[0]
    }

    /// And came back.
    pub(super) fn bytes_back(&self) -> u64 {
        self.proxy.carried_bytes()[1]
    }
}

pub(super) fn files_below(directory: &Path) -> usize {
    let mut found = Vec::new();
    find(directory, &mut found);
    found.len()
}

pub(super) fn bytes_below(directory: &Path) -> usize {
    let mut found = Vec::new();
    find(directory, &mut found);
    found.iter().map(|path| usize::try_from(path.metadata().unwrap().len()).unwrap()).sum()
}

pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Lets time pass, in which nothing is to happen.
pub(super) fn wait(time: Duration) {
    let (_never, timer) = mpsc::channel::<()>();
    let _ = timer.recv_timeout(time);
}

pub(super) fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        wait(Duration::from_millis(200));
    }
}
