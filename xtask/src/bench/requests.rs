//! Counts the kernel's requests to FUSE filesystems, by the tracepoint that each of them passes
//! (`Documentation/trace/ftrace.rst` of Linux).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A trace of its own, which nothing else writes to.
const INSTANCE: &str = "/sys/kernel/tracing/instances/tier-bench";
const SWITCH: &str = "events/fuse/fuse_request_send/enable";

/// Counts while it is there. Other FUSE mounts of the machine must be idle.
pub(crate) struct RequestCounter {
    instance: PathBuf,
}

impl RequestCounter {
    /// `None` where the kernel does not count, or does not let this user count.
    pub(crate) fn start() -> Option<Self> {
        let counter = Self { instance: PathBuf::from(INSTANCE) };
        fs::create_dir_all(&counter.instance).ok()?;
        fs::write(counter.instance.join(SWITCH), "1").ok()?;
        Some(counter)
    }

    /// Requests since it was started.
    pub(crate) fn count(&self) -> io::Result<u64> {
        let mut n_requests = 0;
        for processor in fs::read_dir(self.instance.join("per_cpu"))? {
            n_requests += n_events(&fs::read_to_string(processor?.path().join("stats"))?);
        }
        Ok(n_requests)
    }
}

impl Drop for RequestCounter {
    fn drop(&mut self) {
        let _ = fs::write(self.instance.join(SWITCH), "0");
        let _ = fs::remove_dir(Path::new(INSTANCE));
    }
}

/// The events that a processor traced: those in its buffer, and those that newer ones took the
/// place of.
fn n_events(stats: &str) -> u64 {
    let number = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    ["entries:", "overrun:"].into_iter().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_those_that_are_there_and_those_that_were() {
        let stats = "entries: 120\noverrun: 30\ncommit overrun: 7\nbytes: 5\ndropped events: 0\n";
        assert_eq!(n_events(stats), 150);
        assert_eq!(n_events(""), 0);
    }
}
