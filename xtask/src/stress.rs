//! stress-ng's stressors of filesystems on a mount: one after the other on a store that is left
//! alone, then while everything is evicted all the time, then all at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::demo::release_program;
use crate::mounted::{Mounted, obstacle};
use crate::process::{exists, run};

const JOB: &str = "contrib/stress-ng.job";

/// Exit codes of stress-ng: all is well, or a stressor found that the machine lacks something.
const IS_WELL: [i32; 3] = [0, 3, 4];

pub(crate) fn stress(root: &Path) -> Result<()> {
    if let Some(why) = obstacle() {
        println!("==> SKIPPED: stress-ng on a mount: {why}");
        return Ok(());
    }
    if !exists("stress-ng") {
        bail!("stress-ng missing; as root: apt-get install -y stress-ng");
    }
    let tier = release_program(root)?;
    let work = std::env::temp_dir().join(format!("tier-stress-{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let job = fs::read_to_string(root.join(JOB)).with_context(|| format!("cannot read {JOB}"))?;
    let done = Mounted::new(&tier, &work, &[]).and_then(|mounted| {
        Stress { root, work: &work, mounted: &mounted }.rounds(&job)?;
        mounted.end()
    });
    fs::remove_dir_all(&work).context("cannot remove the work directory")?;
    done
}

struct Stress<'a> {
    root: &'a Path,
    work: &'a Path,
    mounted: &'a Mounted,
}

impl Stress<'_> {
    fn rounds(&self, job: &str) -> Result<()> {
        let kept = self.mounted.directory().join("kept");
        run("files that stay", Command::new("cp").arg("-a").args([&self.kept(), &kept]))?;
        self.round("hot", job)?;
        self.mounted.while_tiering(|| self.round("evicted all the time", job))?;
        let at_once = job.replace("run sequential", "run parallel").replace("10s", "60s");
        self.mounted.while_tiering(|| self.round("all at once", &at_once))?;
        run("comparing", Command::new("diff").arg("-r").args([&self.kept(), &kept]))
    }

    /// What the files that stay are copies of.
    fn kept(&self) -> PathBuf {
        self.root.join("crates")
    }

    fn round(&self, name: &str, job: &str) -> Result<()> {
        let file = self.work.join("job");
        fs::write(&file, job)?;
        let directory = self.mounted.directory().join("stress");
        fs::create_dir_all(&directory)?;
        let mut stress = Command::new("stress-ng");
        stress.arg("--job").arg(&file).arg("--temp-path").arg(&directory);
        let output = stress.output().context("cannot start stress-ng")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.code().is_some_and(|code| IS_WELL.contains(&code)) {
            bail!("stress-ng, {name}: {}\n{said}", output.status);
        }
        let skipped = said.lines().filter(|line| line.contains("skipping"));
        skipped.for_each(|line| println!("==> {line}"));
        println!("==> stress-ng, {name}: {}", output.status);
        self.mounted.tier(&["fsck"], &[])?;
        self.mounted.tier(&["index", "check"], &[])
    }
}
