//! A server's process and its directory.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_MAX: Duration = Duration::from_mins(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Starts a program, whose arguments may name its directory; `None`, said loudly, if there is
    /// no such program.
    pub(super) fn start(
        program: &str,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments(dir.path())).current_dir(dir.path()).stdin(Stdio::null());
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

    /// Waits until the server can be used.
    pub(super) fn wait_until(&mut self, mut is_ready: impl FnMut() -> bool) {
        let begin = Instant::now();
        let (_never, timer) = mpsc::channel::<()>();
        while !is_ready() {
            let ended = self.child.try_wait().unwrap();
            let is_late = begin.elapsed() > START_MAX;
            if ended.is_some() || is_late {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("the server is not ready (ended: {ended:?}):\n{log}");
            }
            // Nothing is sent: this gives the server the processor.
            let _ = timer.recv_timeout(LOOK_INTERVAL);
        }
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
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last one is known, or one would be given out twice.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
