//! A store that is mounted by a process of its own, which may be killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::harness::command;

#[derive(Debug)]
pub(crate) struct Mount {
    child: Child,
    on: PathBuf,
    /// What the process said, once it has ended.
    said: Receiver<String>,
}

impl Mount {
    /// Mounts a store.
    pub(crate) fn new(store: &Path, on: &Path) -> Self {
        fs::create_dir_all(on).unwrap();
        let args = ["mount", &store.display().to_string(), &on.display().to_string()];
        let mut child = command(&args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.lines().last().is_some_and(|line| line.starts_with("Mounted ")) {
            let n_bytes = lines.read_line(&mut said).unwrap();
            assert!(n_bytes > 0, "it is not mounted:\n{said}");
        }
        let (sender, receiver) = channel();
        // A process that writes there must not wait for a reader.
        thread::spawn(move || sender.send(read(lines, said)));
        Self { child, on: on.to_path_buf(), said: receiver }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.on
    }

    /// Kills the process, and returns what it said.
    pub(crate) fn kill(mut self) -> String {
        self.end();
        self.said.recv().unwrap()
    }

    /// Unmounts.
    pub(crate) fn unmount(mut self) -> String {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let ended = self.child.wait().unwrap();
        let said = self.said.recv().unwrap();
        assert!(ended.success(), "{said}");
        said
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.on).stderr(Stdio::null()).status();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.end();
    }
}

fn read(mut lines: BufReader<ChildStderr>, mut said: String) -> String {
    while lines.read_line(&mut said).is_ok_and(|n_bytes| n_bytes > 0) {}
    said
}
