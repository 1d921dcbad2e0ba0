//! The arguments of the commands about tarballs and the index: checking, regenerating, restoring.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    Dump(IndexDumpArgs),
    Rebuild(IndexRebuildArgs),
    Check(IndexCheckArgs),
}

/// Print the index in its canonical form.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier index dump /srv/store")]
pub(crate) struct IndexDumpArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Regenerate the index from the tarballs, also while the store is mounted.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier index rebuild /srv/store --full-scan")]
pub(crate) struct IndexRebuildArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Read every member, not only the tables of contents; works without manifests.
    #[arg(long)]
    pub(crate) full_scan: bool,
    /// From the cloud's tarballs.
    #[arg(long)]
    pub(crate) from_cloud: bool,
}

/// Compare the index with the tarballs.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier index check /srv/store")]
pub(crate) struct IndexCheckArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Check every object.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier verify /srv/store --read-data")]
pub(crate) struct VerifyArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Also decrypt every byte and check every member.
    #[arg(long)]
    pub(crate) read_data: bool,
}

/// Make a store from the cloud alone.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: tier restore /srv/new --cloud file:///mnt/backup --identity my.key"
)]
pub(crate) struct RestoreArgs {
    /// The new store's directory, to be made.
    pub(crate) store: PathBuf,
    /// Where the archive is.
    #[arg(long)]
    pub(crate) cloud: String,
    /// The identity it was encrypted for.
    #[arg(long)]
    pub(crate) identity: PathBuf,
    /// As it was in this snapshot.
    #[arg(long)]
    pub(crate) snapshot: Option<u64>,
    /// Which filesystem, if there are several.
    #[arg(long)]
    pub(crate) filesystem: Option<String>,
    /// Also encrypt for this recipient from now on, such as an offline recovery key.
    #[arg(long = "recipient")]
    pub(crate) recipients: Vec<String>,
    /// Accept manifests that were signed by another identity than this one, as they are for
    /// an extra recipient.
    #[arg(long)]
    pub(crate) trust_signer: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TarballCommand {
    /// List the members of a tarball.
    #[command(after_help = "Example: tier tarball ls s0000000001-p000000.tar.zst.age -i my.key")]
    Ls(TarballArgs),
    /// Print a tarball's plain tar stream.
    #[command(after_help = "Example: tier tarball cat s0000000001-p000000.tar.zst | tar tv")]
    Cat(TarballArgs),
}

// Without a doc comment: each command has its own.
#[derive(Debug, Args)]
pub(crate) struct TarballArgs {
    /// The tarball.
    pub(crate) file: PathBuf,
    /// The identity it was encrypted for.
    #[arg(short, long)]
    pub(crate) identity: Option<PathBuf>,
}
