//! The command line, as data: one struct for each command, passed whole to the function of that
//! command.
//!
//! The structs know nothing of what is done with them. What `--help` says of a command stands at
//! its struct: the first sentence, the arguments, and an example. A command line may come from
//! another process of the same program, through the control socket of a store that is open there;
//! it is parsed by the same code there, so that both processes read it alike.

mod archive;
mod files;
mod store;
mod tiering;

use std::path::Path;

use clap::{ArgAction, Parser, Subcommand};

pub(crate) use self::archive::{
    IndexCheckArgs, IndexCommand, IndexDumpArgs, IndexRebuildArgs, RestoreArgs, TarballArgs,
    TarballCommand, VerifyArgs,
};
pub(crate) use self::files::{CatArgs, ExportArgs, ImportArgs, Jobs, LsArgs};
pub(crate) use self::store::{
    DemoArgs, DumpArgs, FsckArgs, InitArgs, KeygenArgs, LogArgs, MountArgs, SnapshotsArgs,
    StatsArgs, StatusArgs,
};
pub(crate) use self::tiering::{
    EvictArgs, EvictGoal, PauseArgs, PinArgs, PushArgs, RecallArgs, ResumeArgs, SnapshotArgs,
    UnpinArgs,
};

/// What `tier --help` says of all commands.
const AFTER_HELP: &str = "\
Logging: warnings and errors go to standard error; -q leaves errors, -v adds each stage, -vv each
decision. RUST_LOG, where it is set, counts instead: RUST_LOG=warn,tier_agent=debug.

Exit codes: 0 done, 1 failed, 2 usage, 3 data damaged or missing, 4 the store is in use by another
process.

Example: tier demo";

/// Moves the cold data of a filesystem into encrypted, compressed, indexed tarballs and brings it
/// back when it is read.
#[derive(Debug, Parser)]
#[command(name = "tier", version, max_term_width = 100, after_help = AFTER_HELP)]
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

// What `--help` says of each command stands at its struct.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Keygen(KeygenArgs),
    Init(InitArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    Ls(LsArgs),
    Cat(CatArgs),
    Mount(MountArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Snapshot(SnapshotArgs),
    Push(PushArgs),
    Evict(EvictArgs),
    Recall(RecallArgs),
    Pin(PinArgs),
    Unpin(UnpinArgs),
    Status(StatusArgs),
    Snapshots(SnapshotsArgs),
    Log(LogArgs),
    Stats(StatsArgs),
    Dump(DumpArgs),
    /// Look at, check or regenerate the index.
    #[command(subcommand)]
    Index(IndexCommand),
    Fsck(FsckArgs),
    Verify(VerifyArgs),
    Restore(RestoreArgs),
    /// Look into one tarball.
    #[command(subcommand)]
    Tarball(TarballCommand),
}

impl Command {
    /// The store of a command that another process can carry out, if it has that store open.
    pub(crate) fn open_store(&self) -> Option<&Path> {
        match self {
            Self::Demo(_)
            | Self::Keygen(_)
            | Self::Init(_)
            | Self::Mount(_)
            | Self::Restore(_)
            | Self::Tarball(_) => None,
            Self::Import(args) => Some(&args.store),
            Self::Export(args) => Some(&args.store),
            Self::Ls(args) => Some(&args.store),
            Self::Cat(args) => Some(&args.store),
            Self::Pause(args) => Some(&args.store),
            Self::Resume(args) => Some(&args.store),
            Self::Snapshot(args) => Some(&args.store),
            Self::Push(args) => Some(&args.store),
            Self::Evict(args) => Some(&args.store),
            Self::Recall(args) => Some(&args.store),
            Self::Pin(args) => Some(&args.store),
            Self::Unpin(args) => Some(&args.store),
            Self::Status(args) => Some(&args.store),
            Self::Snapshots(args) => Some(&args.store),
            Self::Log(args) => Some(&args.store),
            Self::Stats(args) => Some(&args.store),
            Self::Dump(args) => Some(&args.store),
            Self::Index(IndexCommand::Dump(args)) => Some(&args.store),
            Self::Index(IndexCommand::Rebuild(args)) => Some(&args.store),
            Self::Index(IndexCommand::Check(args)) => Some(&args.store),
            Self::Fsck(args) => Some(&args.store),
            Self::Verify(args) => Some(&args.store),
        }
    }
}
