//! The arguments of the commands about files: copying trees in and out, and looking at them.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use clap::Args;

/// Beyond this, threads wait for each other and not for disks.
const N_JOBS_MAX: usize = 256;

/// Copy a tree of the host in.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier import /srv/store ~/photos --into /photos")]
pub(crate) struct ImportArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// The host's directory.
    pub(crate) dir: PathBuf,
    /// The directory in the store that its content goes into; made if it is not there.
    #[arg(long, default_value = "/")]
    pub(crate) into: OsString,
    #[command(flatten)]
    pub(crate) jobs: Jobs,
}

/// Copy a tree out, bringing back what was evicted.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier export /srv/store /photos ~/photos-again")]
pub(crate) struct ExportArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// What to copy.
    pub(crate) path: OsString,
    /// The host's directory, to be made or empty.
    pub(crate) dir: PathBuf,
    /// As it was in this snapshot.
    #[arg(long)]
    pub(crate) snapshot: Option<u64>,
    #[command(flatten)]
    pub(crate) jobs: Jobs,
}

// Without a doc comment: it would become the help of the command that this is part of.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Jobs {
    /// Copy so many files at once; by default as many as there are processors.
    #[arg(long = "jobs", value_name = "JOBS", value_parser = n_jobs)]
    n: Option<NonZeroUsize>,
}

impl Jobs {
    /// Threads that copy.
    pub(crate) fn n_threads(self) -> NonZeroUsize {
        // A system that does not tell how many processors there are has one as far as this goes.
        let by_default = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.n.unwrap_or_else(by_default)
    }
}

fn n_jobs(text: &str) -> Result<NonZeroUsize, String> {
    let n = text.parse().ok().filter(|n: &NonZeroUsize| n.get() <= N_JOBS_MAX);
    n.ok_or_else(|| format!("from 1 to {N_JOBS_MAX}"))
}

/// List a directory.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier ls /srv/store / -l")]
pub(crate) struct LsArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// What to list.
    #[arg(default_value = "/")]
    pub(crate) path: OsString,
    /// With mode, owner, size, time and tier.
    #[arg(short)]
    pub(crate) long: bool,
    /// With everything below.
    #[arg(short = 'R')]
    pub(crate) recursive: bool,
}

/// Print a file.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier cat /srv/store /notes.txt")]
pub(crate) struct CatArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// The file.
    pub(crate) path: OsString,
}
