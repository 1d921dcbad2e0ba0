//! Counts the kernel's requests to FUSE filesystems, by the tracepoint that each of them passes
//! (`Documentation/trace/histogram.rst` of Linux).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const EVENT: &str = "/sys/kernel/tracing/events/fuse/fuse_request_send";
const HISTOGRAM: &str = "hist:keys=opcode";

/// Counts while it is there. Other FUSE mounts of the machine must be idle.
pub(crate) struct RequestCounter {
    event: PathBuf,
}

impl RequestCounter {
    /// `None` where the kernel does not count, or does not let this user count.
    pub(crate) fn start() -> Option<Self> {
        let event = PathBuf::from(EVENT);
        fs::write(event.join("trigger"), HISTOGRAM).ok()?;
        Some(Self { event })
    }

    /// Requests since it was started.
    pub(crate) fn count(&self) -> Result<u64> {
        let path = self.event.join("hist");
        let histogram = fs::read_to_string(&path);
        Ok(sum(&histogram.with_context(|| format!("cannot read {}", path.display()))?))
    }
}

impl Drop for RequestCounter {
    fn drop(&mut self) {
        let trigger = Path::new(EVENT).join("trigger");
        let _ = fs::write(trigger, format!("!{HISTOGRAM}"));
    }
}

/// The sum of all lines such as `{ opcode:          1 } hitcount:         26`.
fn sum(histogram: &str) -> u64 {
    let hits = histogram.lines().filter_map(|line| line.split("hitcount:").nth(1));
    hits.filter_map(|hits| hits.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_all_kinds_are_summed_up() {
        let histogram = "# event histogram\n#\n\n{ opcode:          1 } hitcount:         26\n\
                         { opcode:         14 } hitcount:          4\n\nTotals:\n    Hits: 30\n";
        assert_eq!(sum(histogram), 30);
        assert_eq!(sum(""), 0);
    }
}
