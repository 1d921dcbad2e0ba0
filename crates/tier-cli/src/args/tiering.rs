//! The arguments of the commands that move data between tiers, and of those that hold that back.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Have the agent of a mounted store begin nothing until it is resumed.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier pause /srv/store")]
pub(crate) struct PauseArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Have the agent of a mounted store go on.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier resume /srv/store")]
pub(crate) struct ResumeArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Publish, persist, upload and verify now.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier snapshot /srv/store")]
pub(crate) struct SnapshotArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Upload and verify what is persisted and not yet in the cloud.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier push /srv/store")]
pub(crate) struct PushArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Compare also what counts as verified, and upload what is not there any more.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Free space now.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier evict /srv/store --bytes 10000000000")]
pub(crate) struct EvictArgs {
    /// The store.
    pub(crate) store: PathBuf,
    #[command(flatten)]
    pub(crate) goal: EvictGoal,
    /// Only say what would go.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

// Without a doc comment: it would become the help of the command.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct EvictGoal {
    /// Free this many bytes of the disk: local copies of what the cloud has first, then file data.
    #[arg(long)]
    pub(crate) bytes: Option<u64>,
    /// Evict until this percentage of the file data is in the key-value store; local copies stay.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) to: Option<u8>,
    /// Local copies of what the cloud has, and everything that is safe and not pinned.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Bring files back in advance.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier recall /srv/store /photos/2016")]
pub(crate) struct RecallArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Files or directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
    /// Only say what would be read, and about how long that takes; one part of it is read for that.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Keep files or directories from being evicted.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier pin /srv/store /mail")]
pub(crate) struct PinArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Files or directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
}

/// Let files or directories be evicted again.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier unpin /srv/store /mail")]
pub(crate) struct UnpinArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Files or directories.
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
}
