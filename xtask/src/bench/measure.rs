//! Runs commands to their end and says what they took.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What one run took.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Figures {
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    /// Of the largest process.
    pub(crate) resident_mb: f64,
    pub(crate) written_mb: f64,
    /// Of the kernel to FUSE filesystems; not a number where they cannot be counted.
    pub(crate) requests: f64,
}

/// Runs a shell script, with everything before it on disk.
pub(crate) fn shell(script: &str) -> Result<Figures> {
    let _ = Command::new("sync").status();
    let report = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    let status = Command::new("time")
        .args(["-f", "%e %U %S %M", "-o"])
        .arg(report.path())
        .args(["bash", "-o", "pipefail", "-euc", script])
        .stdout(Stdio::null())
        .status()
        .context("cannot start time")?;
    if !status.success() {
        bail!("{status}: {script}");
    }
    let text = fs::read_to_string(report.path()).context("cannot read what time wrote")?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [wall_s, user_s, system_s, resident_kb] = numbers.as_slice() else {
        bail!("time wrote {text:?}");
    };
    let (cpu_s, resident_mb) = (user_s + system_s, resident_kb * 1024.0 / 1e6);
    Ok(Figures { wall_s: *wall_s, cpu_s, resident_mb, written_mb: 0.0, requests: f64::NAN })
}

/// Megabytes of all files below.
pub(crate) fn megabytes(directory: &Path) -> Result<f64> {
    let output = Command::new("du").args(["-sb", "--"]).arg(directory).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes: f64 = text.split_whitespace().next().unwrap_or("").parse().context("du failed")?;
    Ok(bytes / 1e6)
}

/// The middle of each figure.
pub(crate) fn median(runs: &[Figures]) -> Figures {
    let middle = |figure: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Figures {
        wall_s: middle(|f| f.wall_s),
        cpu_s: middle(|f| f.cpu_s),
        resident_mb: middle(|f| f.resident_mb),
        written_mb: middle(|f| f.written_mb),
        requests: middle(|f| f.requests),
    }
}

/// Empties a directory.
pub(crate) fn fresh(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}
