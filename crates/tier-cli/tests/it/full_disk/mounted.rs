//! A mount of a store, by a process whose messages are kept.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::harness::command;

/// A mount that ends when it is dropped, and then says what its process has said if a test fails.
pub(crate) struct Mounted {
    child: Child,
    on: PathBuf,
    said: Arc<Mutex<String>>,
    /// Reads what the process says, so that it never waits for a reader.
    listener: Option<JoinHandle<()>>,
}

impl Mounted {
    pub(crate) fn new(store: &Path, on: &Path) -> Self {
        Self::with_keys(store, on, &[])
    }

    /// With keys for its cloud.
    pub(crate) fn with_keys(store: &Path, on: &Path, keys: &[(&str, &str)]) -> Self {
        let args = ["mount", &store.display().to_string(), &on.display().to_string()];
        let mut command = command(&args);
        command.envs(keys.iter().copied());
        Self::started_by(command, on)
    }

    /// By this command.
    pub(crate) fn started_by(mut command: Command, on: &Path) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        // What comes before that it is mounted may be warnings.
        let mut is_mounted = false;
        while !is_mounted {
            let Some(line) = lines.next() else { break };
            let line = line.unwrap();
            is_mounted = line.starts_with("Mounted ");
            *said.lock().unwrap() += &(line + "\n");
        }
        let kept = Arc::clone(&said);
        let listener = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let mounted = Self { child, on: on.to_path_buf(), said, listener: Some(listener) };
        assert!(is_mounted, "it is not mounted");
        mounted
    }

    /// Unmounts, which must end well.
    pub(crate) fn unmount(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.on).stderr(Stdio::null()).status();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        if thread::panicking() {
            eprintln!("the mount said:\n{}", self.said.lock().unwrap());
        }
    }
}
