//! The commands, one file each: a function of the [`Context`] and the command's own arguments.
//!
//! A command says what it did through the context's console, and fails with an error whose kind
//! makes the exit code. It does not know in which process it runs. `tier mount` is not here: it
//! serves the other commands, from the layer above, and only its arguments are checked here.

mod abilities;
mod cat;
mod cloud;
mod demo;
mod dump;
mod evict;
mod export;
mod fsck;
mod import;
mod index;
mod init;
mod keygen;
mod log;
mod lost;
mod ls;
mod mount;
mod pause;
mod pin;
mod push;
mod recall;
mod repair;
mod restore;
mod snapshot;
mod snapshots;
mod stats;
mod status;
mod takeover;
mod tarball;
mod verify;

use std::io::Write;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::mount::mountable;
use crate::args::{CloudCommand, Command, IndexCommand, TarballCommand};
use crate::context::Context;

/// Carries out a command.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    tracing::debug!(?command, "running");
    match command {
        Command::Demo(args) => demo::run(context, args),
        Command::Keygen(args) => keygen::run(context, args),
        Command::Init(args) => init::run(context, args),
        Command::Import(args) => import::run(context, args),
        Command::Export(args) => export::run(context, args),
        Command::Ls(args) => ls::run(context, args),
        Command::Cat(args) => cat::run(context, args),
        // Only a command handed over by another version of the program comes here: `main` takes the
        // others.
        Command::Mount(_) => bail!("tier mount needs a process of its own"),
        Command::Pause(_) => pause::pause(context),
        Command::Resume(_) => pause::resume(context),
        Command::Snapshot(args) => snapshot::run(context, args),
        Command::Push(args) => push::run(context, args),
        Command::Evict(args) => evict::run(context, args),
        Command::Recall(args) => recall::run(context, args),
        Command::Pin(args) => pin::pin(context, args),
        Command::Unpin(args) => pin::unpin(context, args),
        Command::Status(args) => status::run(context, args),
        Command::Snapshots(args) => snapshots::run(context, args),
        Command::Log(args) => log::run(context, args),
        Command::Stats(args) => stats::run(context, args),
        Command::Dump(args) => dump::run(context, args),
        Command::Index(IndexCommand::Dump(args)) => index::dump(context, args),
        Command::Index(IndexCommand::Rebuild(args)) => index::rebuild(context, args),
        Command::Index(IndexCommand::Check(args)) => index::check(context, args),
        Command::Fsck(args) => fsck::run(context, args),
        Command::Verify(args) => verify::run(context, args),
        Command::Repair(args) => repair::run(context, args),
        Command::Restore(args) => restore::run(context, args),
        Command::Takeover(args) => takeover::run(context, args),
        Command::Cloud(CloudCommand::Add(args)) => cloud::add(context, args),
        Command::Cloud(CloudCommand::Forget(args)) => cloud::forget(context, args),
        Command::Cloud(CloudCommand::List(args)) => cloud::list(context, args),
        Command::Cloud(CloudCommand::Check(args)) => cloud::check(context, args),
        Command::Tarball(TarballCommand::Ls(args)) => tarball::ls(context, args),
        Command::Tarball(TarballCommand::Cat(args)) => tarball::cat(context, args),
    }
}

/// Completes what was written to standard output.
fn flush(mut out: impl Write) -> Result<()> {
    // A buffered writer that is merely dropped swallows the error of its last write.
    out.flush().context("cannot write to standard output")
}
