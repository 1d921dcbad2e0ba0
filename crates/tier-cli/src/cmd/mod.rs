//! One function for each command.

mod demo;
mod files;
mod fsck;
mod index;
mod inspect;
mod keys;
mod mount;
mod restore;
mod tarball;
mod tiering;
mod verify;

use std::io::Write;

use anyhow::{Context, Result};
use tier_persist::ScanMode;

use crate::args::{Args, Command, IndexCommand, TarballCommand};
use crate::fill_index::How;
use crate::session::Session;

/// Carries out a command for a session.
pub(crate) fn run(args: &Args, session: &Session) -> Result<()> {
    match &args.command {
        Command::Demo { dir, work_dir, keep } => {
            demo::demo(session, dir.as_deref(), work_dir.as_deref(), *keep)
        }
        Command::Keygen { output } => keys::keygen(session, output.as_deref()),
        Command::Init { store, cloud, identity, recipients, no_encryption, level, chunk_bytes } => {
            let new = keys::NewStore {
                cloud: cloud.clone(),
                identity: identity.clone(),
                recipients: recipients.clone(),
                encryption: !no_encryption,
                level: *level,
                chunk_bytes: *chunk_bytes,
            };
            keys::init(session, store, &new)
        }
        Command::Import { store, dir, into, jobs } => {
            files::import(session, store, (dir, into), *jobs)
        }
        Command::Export { store, path, dir, snapshot, jobs } => match snapshot {
            None => files::export(session, store, (path, dir), *jobs),
            Some(at) => restore::export_snapshot(session, store, (path, dir), (*at, *jobs)),
        },
        Command::Ls { store, path, long, recursive } => {
            files::ls(session, store, path, (*long, *recursive))
        }
        Command::Cat { store, path } => files::cat(session, store, path),
        Command::Mount { store, mountpoint, read_only, no_agent } => {
            let how = mount::How { read_only: *read_only, no_agent: *no_agent };
            mount::mount(session, store, mountpoint, &how)
        }
        Command::Pause { .. } => tiering::pause(session, true),
        Command::Resume { .. } => tiering::pause(session, false),
        Command::Snapshot { store } => tiering::snapshot(session, store),
        Command::Push { store } => tiering::push(session, store),
        Command::Evict { store, goal, dry_run } => tiering::evict(session, store, goal, *dry_run),
        Command::Recall { store, paths } => tiering::recall(session, store, paths),
        Command::Pin { store, paths } => tiering::pin(session, store, paths, true),
        Command::Unpin { store, paths } => tiering::pin(session, store, paths, false),
        Command::Status { store, watch: false } => inspect::status(session, store),
        Command::Status { store, watch: true } => inspect::watch(session, store),
        Command::Snapshots { store } => inspect::snapshots(session, store),
        Command::Log { store, from, to } => inspect::log(session, store, (*from, *to)),
        Command::Stats { store } => inspect::stats(session, store),
        Command::Dump { store, keys } => inspect::dump(session, store, keys),
        Command::Index(command) => run_index(command, session),
        Command::Fsck { store, repair } => fsck::fsck(session, store, *repair),
        Command::Verify { store, read_data } => verify::verify(session, store, *read_data),
        Command::Restore {
            store,
            cloud,
            identity,
            snapshot,
            filesystem,
            recipients,
            trust_signer,
        } => {
            let source = restore::Source {
                cloud: cloud.clone(),
                identity: identity.clone(),
                snapshot: *snapshot,
                filesystem: filesystem.clone(),
                recipients: recipients.clone(),
                trust_signer: *trust_signer,
            };
            restore::restore(session, store, &source)
        }
        Command::Tarball(command) => run_tarball(command, session),
    }
}

fn run_index(command: &IndexCommand, session: &Session) -> Result<()> {
    match command {
        IndexCommand::Dump { store } => index::dump(session, store),
        IndexCommand::Rebuild { store, full_scan, from_cloud } => {
            let mode = if *full_scan { ScanMode::Full } else { ScanMode::Tables };
            index::rebuild(session, store, How { mode, from_cloud: *from_cloud })
        }
        IndexCommand::Check { store } => index::check(session, store),
    }
}

fn run_tarball(command: &TarballCommand, session: &Session) -> Result<()> {
    match command {
        TarballCommand::Ls { file, identity } => tarball::ls(session, file, identity.as_deref()),
        TarballCommand::Cat { file, identity } => tarball::cat(session, file, identity.as_deref()),
    }
}

fn flush(mut out: impl Write) -> Result<()> {
    out.flush().context("cannot write to standard output")
}
