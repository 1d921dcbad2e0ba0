//! The arguments of the commands about a store as a whole: making, mounting and looking at it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kvfs::KvfsOptions;

/// The whole life cycle on a throw-away store: import, snapshot, upload, evict, read back,
/// regenerate, restore, compare.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier demo /usr/share/doc")]
pub(crate) struct DemoArgs {
    /// The tree to use; by default /usr/share or, where that is not, the current directory, of
    /// which 300 MB are taken at most.
    pub(crate) dir: Option<PathBuf>,
    /// Where the throw-away store goes; by default the system's directory for temporary files.
    #[arg(long)]
    pub(crate) work_dir: Option<PathBuf>,
    /// Keep the store and the trees that were exported from it.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Make a new age identity.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier keygen -o my.key")]
pub(crate) struct KeygenArgs {
    /// Write it here, readable by the owner only, and not to standard output.
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
}

/// Make a new store.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier init /srv/store --cloud file:///mnt/backup")]
pub(crate) struct InitArgs {
    /// The store's directory, to be made.
    pub(crate) store: PathBuf,
    /// Where to upload to, a URL such as `file:///dir`.
    #[arg(long)]
    pub(crate) cloud: Option<String>,
    /// Use the cloud also if it is one already, which other stores may use.
    #[arg(long, requires = "cloud")]
    pub(crate) adopt_cloud: bool,
    /// The age identity to use; without it one is made inside the store.
    #[arg(long)]
    pub(crate) identity: Option<PathBuf>,
    /// Also encrypt for this recipient, such as an offline recovery key.
    #[arg(long = "recipient")]
    pub(crate) recipients: Vec<String>,
    /// Write tarballs in clear.
    #[arg(long)]
    pub(crate) no_encryption: bool,
    /// zstd level.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(crate) level: i32,
    /// Bytes of a chunk, the unit in which a file's data is stored and written over.
    #[arg(long, default_value_t = KvfsOptions::default().chunk_bytes,
          value_parser = clap::value_parser!(u32).range(4096..=1 << 20))]
    pub(crate) chunk_bytes: u32,
}

/// An option of a mount. Those that mount(8) handles itself, and those that say how it is anyway,
/// are taken and do nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum MountOption {
    /// Nothing can be changed.
    #[value(name = "ro")]
    ReadOnly,
    /// Reading a file does not note the time.
    #[value(name = "noatime")]
    NoAtime,
    /// Set-id bits mean nothing.
    #[value(name = "nosuid")]
    NoSuid,
    /// Device nodes cannot be opened.
    #[value(name = "nodev")]
    NoDev,
    /// Nothing can be executed.
    #[value(name = "noexec")]
    NoExec,
    /// The contrary of one before it.
    #[value(name = "rw", hide = true)]
    ReadWrite,
    #[value(name = "atime", alias = "relatime", hide = true)]
    Atime,
    #[value(name = "suid", hide = true)]
    Suid,
    #[value(name = "dev", hide = true)]
    Dev,
    #[value(name = "exec", hide = true)]
    Exec,
    /// As it is without it.
    #[value(alias = "defaults", alias = "async", alias = "sync", alias = "allow_other")]
    #[value(alias = "default_permissions", alias = "auto", alias = "noauto", alias = "nofail")]
    #[value(alias = "nouser", alias = "_netdev", alias = "lazytime", alias = "nolazytime")]
    #[value(alias = "diratime", alias = "nodiratime", alias = "norelatime", hide = true)]
    Default,
}

impl MountArgs {
    /// Whether an option is chosen, and its contrary not after it.
    pub(crate) fn has(&self, option: MountOption, contrary: MountOption) -> bool {
        let last = self.options.iter().rfind(|it| **it == option || **it == contrary);
        last == Some(&option)
    }
}

/// Mount the filesystem and stay until it is unmounted, with the agent running.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier mount /srv/store /home/me/files")]
pub(crate) struct MountArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// The directory to mount on.
    pub(crate) mountpoint: PathBuf,
    /// Let nothing be changed.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Options as mount(8) has them: ro, noatime, nosuid, nodev, noexec.
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',', hide_possible_values = true)]
    pub(crate) options: Vec<MountOption>,
    /// Take no snapshot and free no space but when asked to.
    #[arg(long)]
    pub(crate) no_agent: bool,
}

/// Where snapshots stand, what is where, what went wrong.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier status /srv/store --json")]
pub(crate) struct StatusArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Again every two seconds, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

/// List snapshots.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier snapshots /srv/store")]
pub(crate) struct SnapshotsArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Print the operation log.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier log /srv/store --from 1000 --to 2000")]
pub(crate) struct LogArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// The first transaction.
    #[arg(long)]
    pub(crate) from: Option<u64>,
    /// The last transaction.
    #[arg(long)]
    pub(crate) to: Option<u64>,
}

/// Statistics of the key-value store and the index.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier stats /srv/store")]
pub(crate) struct StatsArgs {
    /// The store.
    pub(crate) store: PathBuf,
}

/// Print the key-value store in readable form.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier dump /srv/store --keys map")]
pub(crate) struct DumpArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Only tables whose name starts so.
    #[arg(long, default_value = "")]
    pub(crate) keys: String,
}

/// Check the key-value store against itself and the index; changes nothing without --repair.
#[derive(Debug, Args)]
#[command(after_help = "Example: tier fsck /srv/store --repair")]
pub(crate) struct FsckArgs {
    /// The store.
    pub(crate) store: PathBuf,
    /// Put right what can be. What has lost its name comes into /lost+found, and data that is
    /// lost here and archived is evicted data from then on. The store must not be mounted.
    #[arg(long)]
    pub(crate) repair: bool,
}
