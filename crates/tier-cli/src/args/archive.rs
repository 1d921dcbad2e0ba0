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
    /// Read every table of contents, also of what the newest checkpoint has.
    #[arg(long, conflicts_with = "full_scan")]
    pub(crate) tables: bool,
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

/// Put right what is damaged or lost, from the other copy of the archive or from the filesystem.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier repair /srv/store")]
pub(crate) struct RepairArgs {
    /// The store.
    pub(crate) store: PathBuf,
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
    /// Believe this signer instead of the identity's own, as an extra recipient must: the
    /// fingerprint that `tier cloud check` shows.
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) signer: Option<String>,
    /// Of this epoch, and not of the newest one.
    #[arg(long)]
    pub(crate) epoch: Option<u64>,
    /// Also the parts of a snapshot that is not complete yet: files of several moments.
    #[arg(long, conflicts_with = "snapshot")]
    pub(crate) incomplete: bool,
}

/// Make a store the writer of its archive, in place of the one that is.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier takeover /srv/new")]
pub(crate) struct TakeoverArgs {
    /// The store: a follower, or one that was fenced.
    pub(crate) store: PathBuf,
    /// Go back to this snapshot, and not on from the newest one.
    #[arg(long)]
    pub(crate) at: Option<u64>,
    /// Go on from what is in this store.
    #[arg(long, conflicts_with_all = ["discard_local", "at"])]
    pub(crate) keep_local: bool,
    /// Give up what only this store has, and go on from the archive.
    #[arg(long)]
    pub(crate) discard_local: bool,
    /// Believe this signer instead of the identity's own.
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) signer: Option<String>,
    /// Also over a cloud that does not honour conditions, if no other store can take over now.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CloudCommand {
    Add(CloudAddArgs),
    Forget(CloudForgetArgs),
    List(CloudListArgs),
    Check(CloudCheckArgs),
}

/// Give a store a cloud, or another one.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier cloud add /srv/store file:///mnt/backup")]
pub(crate) struct CloudAddArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Its URL, as `file:///dir`.
    pub(crate) url: String,
    /// Also a place that is a cloud already.
    #[arg(long)]
    pub(crate) adopt_cloud: bool,
}

/// Look in a former cloud of a store no more, because it is gone for good.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier cloud forget /srv/store file:///mnt/old")]
pub(crate) struct CloudForgetArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Its URL, as `tier cloud list` shows it.
    pub(crate) url: String,
}

/// List the clouds that a store has, and had.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier cloud list /srv/store")]
pub(crate) struct CloudListArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Say whether a store's cloud answers, which one it is, and which epochs are in it.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier cloud check /srv/store")]
pub(crate) struct CloudCheckArgs {
    /// The store.
    pub(crate) store: PathBuf,
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
