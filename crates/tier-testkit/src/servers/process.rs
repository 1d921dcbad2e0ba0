//! A server's process and its directory.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How often a start is tried.
const N_STARTS: u32 = 3;
const START_MAX: Duration = Duration::from_mins(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Starts a program and waits until it can be used; `None`, said loudly, if there is no such
    /// program. It is given ports, and a directory for its own. A port that something else takes
    /// before the server does is not the last one that is tried.
    pub(super) fn start<const N: usize>(
        program: &str,
        arguments: impl Fn(&Path, [u16; N]) -> String,
        is_ready: impl Fn([u16; N]) -> bool,
    ) -> Option<(Self, [u16; N])> {
        let mut said = String::new();
        for _ in 0..N_STARTS {
            let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports());
            let arguments = arguments(dir.path(), ports);
            let mut server = Self::spawn(program, dir, &arguments)?;
            match server.wait_until(|| is_ready(ports)) {
                Ok(()) => return Some((server, ports)),
                Err(log) => said = log,
            }
        }
        panic!("{program} is not ready:\n{said}");
    }

    fn spawn(program: &str, dir: TempDir, arguments: &str) -> Option<Self> {
        let log = File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        match command.spawn() {
            Ok(child) => Some(Self { child, dir }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: {program} is not installed; cargo xtask ci installs it");
                None
            }
            Err(error) => panic!("{program} does not start: {error}"),
        }
    }

    /// Waits until the server can be used. An error, with what it has said, if it ends before.
    fn wait_until(&mut self, is_ready: impl Fn() -> bool) -> Result<(), String> {
        let begin = Instant::now();
        let (_never, timer) = mpsc::channel::<()>();
        while !is_ready() {
            if self.child.try_wait().unwrap().is_some() || begin.elapsed() > START_MAX {
                return Err(fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
            }
            // Nothing is sent: this gives the server the processor.
            let _ = timer.recv_timeout(LOOK_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that nothing listens on.
fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last one is known, or one would be given out twice.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
