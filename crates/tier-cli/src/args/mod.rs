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
    CloudAddArgs, CloudCheckArgs, CloudCommand, CloudForgetArgs, CloudListArgs, IndexCheckArgs,
    IndexCommand, IndexDumpArgs, IndexRebuildArgs, RepairArgs, RestoreArgs, TakeoverArgs,
    TarballArgs, TarballCommand, VerifyArgs,
};
pub(crate) use self::files::{CatArgs, ExportArgs, ImportArgs, Jobs, LsArgs};
pub(crate) use self::store::{
    DemoArgs, DumpArgs, FsckArgs, InitArgs, KeygenArgs, LogArgs, MountArgs, MountOption,
    SnapshotsArgs, StatsArgs, StatusArgs,
};
pub(crate) use self::tiering::{
    EvictArgs, EvictGoal, PauseArgs, PinArgs, PushArgs, RecallArgs, ResumeArgs, SnapshotArgs,
    UnpinArgs,
};

/// What `tier --help` says of all commands.
const AFTER_HELP: &str = "\
Logging: warnings and errors go to standard error; -q leaves errors, -v adds each stage, -vv each
decision, -vvv each request of the kernel. RUST_LOG, where it is set, counts instead:
RUST_LOG=warn,tier_agent=debug.

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
    Repair(RepairArgs),
    Restore(RestoreArgs),
    Takeover(TakeoverArgs),
    /// Give a store a cloud, or ask what it is.
    #[command(subcommand)]
    Cloud(CloudCommand),
    /// Look into one tarball.
    #[command(subcommand)]
    Tarball(TarballCommand),
}

impl Command {
    /// The store of a command that another process can carry out, if it has that store open.
    pub(crate) fn open_store(&self) -> Option<&Path> {
        // Every command is named: a new one has to say here whether a mount can carry it out.
        match self {
            // These make a store, need none, or, like a mount, must open it themselves.
            Self::Demo(_)
            | Self::Keygen(_)
            | Self::Init(_)
            | Self::Mount(_)
            | Self::Restore(_)
            | Self::Takeover(_)
            | Self::Cloud(CloudCommand::Add(_) | CloudCommand::Forget(_) | CloudCommand::List(_))
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
            Self::Cloud(CloudCommand::Check(args)) => Some(&args.store),
            Self::Verify(args) => Some(&args.store),
            Self::Repair(args) => Some(&args.store),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(arguments: &str) -> Result<Args, ErrorKind> {
        let arguments = std::iter::once("tier").chain(arguments.split_whitespace());
        Args::try_parse_from(arguments).map_err(|error| error.kind())
    }

    fn all_commands() -> Vec<(String, clap::Command)> {
        let mut commands = Vec::new();
        for command in Args::command().get_subcommands() {
            commands.push((command.get_name().to_string(), command.clone()));
            for below in command.get_subcommands() {
                commands
                    .push((format!("{} {}", command.get_name(), below.get_name()), below.clone()));
            }
        }
        commands
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_is_explained_with_an_example() {
        for (name, command) in all_commands() {
            assert!(command.get_about().is_some(), "{name}");
            let example = format!("Example: tier {name}");
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(command.has_subcommands() || after.starts_with(&example), "{name}: {after}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name}: {}", argument.get_id());
            }
        }
    }

    #[test]
    fn the_examples_can_be_typed() {
        for (name, command) in all_commands() {
            let Some(after) = command.get_after_help().map(ToString::to_string) else { continue };
            let example = after.strip_prefix("Example: tier ").unwrap();
            let example = example.split(" | ").next().unwrap();
            assert!(parse(example).is_ok(), "{name}: {example}");
        }
    }

    #[test]
    fn flags_for_all_commands_may_stand_anywhere() {
        for line in ["--json -vv ls s", "ls s --json -vv", "ls --json -v s -v"] {
            let args = parse(line).unwrap();
            assert_eq!((args.json, args.verbose, args.quiet), (true, 2, false), "{line}");
        }
    }

    #[test]
    fn a_space_to_free_is_named_in_one_way() {
        for goal in ["--bytes 5", "--to 50", "--all"] {
            parse(&format!("evict s {goal}")).unwrap();
        }
        assert_eq!(parse("evict s").unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parse("evict s --all --to 5").unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(parse("evict s --to 101").unwrap_err(), ErrorKind::ValueValidation);
    }

    #[test]
    fn numbers_have_bounds() {
        for (line, is_right) in [
            ("import s d --jobs 1", true),
            ("import s d --jobs 256", true),
            ("import s d --jobs 0", false),
            ("import s d --jobs 257", false),
            ("export s / d --jobs x", false),
            ("init s --chunk-bytes 4096", true),
            ("init s --chunk-bytes 4095", false),
            ("init s --level 19", true),
            ("init s --level 20", false),
        ] {
            assert_eq!(parse(line).is_ok(), is_right, "{line}");
        }
    }

    #[test]
    fn as_many_files_are_copied_at_once_as_the_user_says() {
        let Command::Import(args) = parse("import s d --jobs 7").unwrap().command else { panic!() };
        assert_eq!(args.jobs.n_threads().get(), 7);
        assert!(Jobs::default().n_threads().get() >= 1);
    }

    #[test]
    fn commands_on_an_open_store_name_it() {
        let store = |line: &str| parse(line).unwrap().command.open_store().map(Path::to_path_buf);
        for line in ["status s", "index check s", "evict s --all", "export s / d", "unpin s /a"] {
            assert_eq!(store(line), Some("s".into()), "{line}");
        }
        for line in ["demo", "init s", "mount s d", "tarball ls t", "keygen"] {
            assert_eq!(store(line), None, "{line}");
        }
    }
}
