//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser, Subcommand};

/// Moves the cold data of a filesystem into encrypted, compressed, indexed tarballs and brings it
/// back when it is read.
#[derive(Debug, Parser)]
#[command(name = "tier", version, about, max_term_width = 100)]
pub(crate) struct Args {
    /// Say more; twice for debugging.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say only what went wrong.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Report as JSON on standard output, where a command reports.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole life cycle on a throw-away store: import, snapshot, push, evict, read back,
    /// regenerate, restore, compare.
    #[command(after_help = "Example: tier demo /usr/share/doc")]
    Demo {
        /// The tree to use; by default the current directory.
        dir: Option<PathBuf>,
        /// Where the throw-away store goes; by default the system's folder for temporary files.
        #[arg(long)]
        work_dir: Option<PathBuf>,
        /// Keep the store and the trees that were exported from it.
        #[arg(long)]
        keep: bool,
    },
    /// Make a new age identity.
    #[command(after_help = "Example: tier keygen -o my.key")]
    Keygen {
        /// Write it here, readable by the owner only, and not to standard output.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Make a new store.
    #[command(after_help = "Example: tier init /srv/store --cloud file:///mnt/backup")]
    Init {
        /// The store's folder, to be made.
        store: PathBuf,
        /// Where to push to, a URL such as `file:///dir`.
        #[arg(long)]
        cloud: Option<String>,
        /// The age identity to use; without it one is made inside the store.
        #[arg(long)]
        identity: Option<PathBuf>,
        /// Also encrypt for this recipient, such as an offline recovery key.
        #[arg(long = "recipient")]
        recipients: Vec<String>,
        /// Write tarballs in clear.
        #[arg(long)]
        no_encryption: bool,
        /// zstd level.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
        level: i32,
        /// Bytes of a chunk, the unit in which a file's data is stored and written over.
        #[arg(long, default_value_t = crate::config::chunk_bytes(),
              value_parser = clap::value_parser!(u32).range(4096..=1 << 20))]
        chunk_bytes: u32,
    },
    /// Copy a tree of the host in.
    #[command(after_help = "Example: tier import /srv/store ~/photos --into /photos")]
    Import {
        /// The store.
        store: PathBuf,
        /// The host's folder.
        dir: PathBuf,
        /// The folder in the store that its content goes into; made if it is not there.
        #[arg(long, default_value = "/")]
        into: OsString,
        /// Copy so many files at once; by default as many as there are processors.
        #[arg(long, value_parser = jobs)]
        jobs: Option<usize>,
    },
    /// Copy a tree out, bringing back what was evicted.
    #[command(after_help = "Example: tier export /srv/store /photos ~/photos-again")]
    Export {
        /// The store.
        store: PathBuf,
        /// What to copy.
        path: OsString,
        /// The host's folder, to be made or empty.
        dir: PathBuf,
        /// As it was in this snapshot.
        #[arg(long)]
        snapshot: Option<u64>,
        /// Copy so many files at once; by default as many as there are processors.
        #[arg(long, value_parser = jobs)]
        jobs: Option<usize>,
    },
    /// List a folder.
    #[command(after_help = "Example: tier ls /srv/store / -l")]
    Ls {
        /// The store.
        store: PathBuf,
        /// What to list.
        #[arg(default_value = "/")]
        path: OsString,
        /// With mode, owner, size, time and tier.
        #[arg(short)]
        long: bool,
        /// With everything below.
        #[arg(short = 'R')]
        recursive: bool,
    },
    /// Print a file.
    #[command(after_help = "Example: tier cat /srv/store /notes.txt")]
    Cat {
        /// The store.
        store: PathBuf,
        /// The file.
        path: OsString,
    },
    /// Mount the filesystem and stay until it is unmounted, with the agent running.
    #[command(after_help = "Example: tier mount /srv/store /home/me/files")]
    Mount {
        /// The store.
        store: PathBuf,
        /// The folder to mount on.
        mountpoint: PathBuf,
        /// Let nothing be changed.
        #[arg(long)]
        read_only: bool,
        /// Take no snapshot and free no space but when asked to.
        #[arg(long)]
        no_agent: bool,
    },
    /// Have the agent of a mounted store begin nothing until it is resumed.
    #[command(after_help = "Example: tier pause /srv/store")]
    Pause {
        /// The store.
        store: PathBuf,
    },
    /// Have the agent of a mounted store go on.
    #[command(after_help = "Example: tier resume /srv/store")]
    Resume {
        /// The store.
        store: PathBuf,
    },
    /// Publish, persist, push and verify now.
    #[command(after_help = "Example: tier snapshot /srv/store")]
    Snapshot {
        /// The store.
        store: PathBuf,
    },
    /// Push and verify what is persisted and not yet safe.
    #[command(after_help = "Example: tier push /srv/store")]
    Push {
        /// The store.
        store: PathBuf,
    },
    /// Free space now.
    #[command(after_help = "Example: tier evict /srv/store --bytes 10000000000")]
    Evict {
        /// The store.
        store: PathBuf,
        #[command(flatten)]
        goal: EvictGoal,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Bring files back in advance.
    #[command(after_help = "Example: tier recall /srv/store /photos/2016")]
    Recall {
        /// The store.
        store: PathBuf,
        /// Files or folders.
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Keep files or folders from being evicted.
    #[command(after_help = "Example: tier pin /srv/store /mail")]
    Pin {
        /// The store.
        store: PathBuf,
        /// Files or folders.
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Let files or folders be evicted again.
    #[command(after_help = "Example: tier unpin /srv/store /mail")]
    Unpin {
        /// The store.
        store: PathBuf,
        /// Files or folders.
        #[arg(required = true)]
        paths: Vec<OsString>,
    },
    /// Where snapshots stand, what is where, what went wrong.
    #[command(after_help = "Example: tier status /srv/store --json")]
    Status {
        /// The store.
        store: PathBuf,
        /// Again every two seconds, until Ctrl-C.
        #[arg(long)]
        watch: bool,
    },
    /// List snapshots.
    #[command(after_help = "Example: tier snapshots /srv/store")]
    Snapshots {
        /// The store.
        store: PathBuf,
    },
    /// Print the operation log.
    #[command(after_help = "Example: tier log /srv/store --from 1000 --to 2000")]
    Log {
        /// The store.
        store: PathBuf,
        /// The first transaction.
        #[arg(long)]
        from: Option<u64>,
        /// The last transaction.
        #[arg(long)]
        to: Option<u64>,
    },
    /// Statistics of the key-value store and the index.
    #[command(after_help = "Example: tier stats /srv/store")]
    Stats {
        /// The store.
        store: PathBuf,
    },
    /// Print the key-value store in readable form.
    #[command(after_help = "Example: tier dump /srv/store --keys map")]
    Dump {
        /// The store.
        store: PathBuf,
        /// Only tables whose name starts so.
        #[arg(long, default_value = "")]
        keys: String,
    },
    /// Look at, check or regenerate the index.
    #[command(subcommand)]
    Index(IndexCommand),
    /// Check the key-value store against itself and the index; changes nothing without --repair.
    #[command(after_help = "Example: tier fsck /srv/store --repair")]
    Fsck {
        /// The store.
        store: PathBuf,
        /// Put right what can be. What has lost its name comes into /lost+found, and data that is
        /// lost here and archived is evicted data from then on. The store must not be mounted.
        #[arg(long)]
        repair: bool,
    },
    /// Check every object.
    #[command(after_help = "Example: tier verify /srv/store --read-data")]
    Verify {
        /// The store.
        store: PathBuf,
        /// Also decrypt every byte and check every member.
        #[arg(long)]
        read_data: bool,
    },
    /// Make a store from the cloud alone.
    #[command(
        after_help = "Example: tier restore /srv/new --cloud file:///mnt/backup --identity my.key"
    )]
    Restore {
        /// The new store's folder, to be made.
        store: PathBuf,
        /// Where the archive is.
        #[arg(long)]
        cloud: String,
        /// The identity it was encrypted for.
        #[arg(long)]
        identity: PathBuf,
        /// As it was in this snapshot.
        #[arg(long)]
        snapshot: Option<u64>,
        /// Which filesystem, if there are several.
        #[arg(long)]
        filesystem: Option<String>,
        /// Also encrypt for this recipient from now on, such as an offline recovery key.
        #[arg(long = "recipient")]
        recipients: Vec<String>,
        /// Accept manifests that were signed by another identity than this one, as they are for
        /// an extra recipient.
        #[arg(long)]
        trust_signer: bool,
    },
    /// Look into one tarball.
    #[command(subcommand)]
    Tarball(TarballCommand),
}

impl Command {
    /// The store of a command that another process can carry out, if it has it open.
    pub(crate) fn open_store(&self) -> Option<&Path> {
        match self {
            Self::Demo { .. }
            | Self::Keygen { .. }
            | Self::Init { .. }
            | Self::Mount { .. }
            | Self::Restore { .. }
            | Self::Tarball(_) => None,
            Self::Import { store, .. }
            | Self::Export { store, .. }
            | Self::Ls { store, .. }
            | Self::Cat { store, .. }
            | Self::Pause { store }
            | Self::Resume { store }
            | Self::Snapshot { store }
            | Self::Push { store }
            | Self::Evict { store, .. }
            | Self::Recall { store, .. }
            | Self::Pin { store, .. }
            | Self::Unpin { store, .. }
            | Self::Status { store, .. }
            | Self::Snapshots { store }
            | Self::Log { store, .. }
            | Self::Stats { store }
            | Self::Dump { store, .. }
            | Self::Fsck { store, .. }
            | Self::Index(
                IndexCommand::Dump { store }
                | IndexCommand::Rebuild { store, .. }
                | IndexCommand::Check { store },
            )
            | Self::Verify { store, .. } => Some(store),
        }
    }
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct EvictGoal {
    /// Free this many bytes.
    #[arg(long)]
    pub(crate) bytes: Option<u64>,
    /// Free until this percentage of the file data is in the key-value store.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) to: Option<u8>,
    /// Everything that is safe and not pinned.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Print the index in its canonical form.
    #[command(after_help = "Example: tier index dump /srv/store")]
    Dump {
        /// The store.
        store: PathBuf,
    },
    /// Regenerate the index from the tarballs, also while the store is mounted.
    #[command(after_help = "Example: tier index rebuild /srv/store --full-scan")]
    Rebuild {
        /// The store.
        store: PathBuf,
        /// Read every member, not only the tables of contents; works without manifests.
        #[arg(long)]
        full_scan: bool,
        /// From the cloud's tarballs.
        #[arg(long)]
        from_cloud: bool,
    },
    /// Compare the index with the tarballs.
    #[command(after_help = "Example: tier index check /srv/store")]
    Check {
        /// The store.
        store: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TarballCommand {
    /// List the members of a tarball.
    #[command(after_help = "Example: tier tarball ls s0000000001-p000000.tar.zst.age -i my.key")]
    Ls {
        /// The tarball.
        file: PathBuf,
        /// The identity it was encrypted for.
        #[arg(short, long)]
        identity: Option<PathBuf>,
    },
    /// Print a tarball's plain tar stream.
    #[command(after_help = "Example: tier tarball cat s0000000001-p000000.tar.zst | tar tv")]
    Cat {
        /// The tarball.
        file: PathBuf,
        /// The identity it was encrypted for.
        #[arg(short, long)]
        identity: Option<PathBuf>,
    },
}

fn jobs(text: &str) -> Result<usize, String> {
    let jobs = text.parse().ok().filter(|jobs| (1..=256).contains(jobs));
    jobs.ok_or_else(|| "from 1 to 256".to_string())
}
