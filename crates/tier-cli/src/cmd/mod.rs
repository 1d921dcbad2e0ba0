//! One function for each command.

mod demo;
mod files;
mod index;
mod inspect;
mod keys;
mod restore;
mod tarball;
mod tiering;
mod verify;

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};

use crate::args::{Args, Command, IndexCommand, TarballCommand};

pub(crate) fn run(args: &Args) -> Result<()> {
    let json = args.json;
    match &args.command {
        Command::Demo { dir, work_dir, keep } => {
            demo::demo(dir.as_deref(), work_dir.as_deref(), *keep)
        }
        Command::Keygen { output } => keys::keygen(output.as_deref()),
        Command::Init { store, cloud, identity, recipients, no_encryption, level } => {
            let new = keys::NewStore {
                cloud: cloud.clone(),
                identity: identity.clone(),
                recipients: recipients.clone(),
                encryption: !no_encryption,
                level: *level,
            };
            keys::init(store, &new, json)
        }
        Command::Import { store, dir, into } => files::import(store, dir, into, json),
        Command::Export { store, path, dir, snapshot } => match snapshot {
            None => files::export(store, path, dir, json),
            Some(snapshot) => restore::export_snapshot(store, path, dir, (*snapshot, json)),
        },
        Command::Ls { store, path, long, recursive } => {
            files::ls(store, path, (*long, *recursive), json)
        }
        Command::Cat { store, path } => files::cat(store, path),
        Command::Snapshot { store } => tiering::snapshot(store, json),
        Command::Push { store } => tiering::push(store, json),
        Command::Evict { store, goal, dry_run } => tiering::evict(store, goal, *dry_run, json),
        Command::Recall { store, paths } => tiering::recall(store, paths, json),
        Command::Pin { store, paths } => tiering::pin(store, paths, true),
        Command::Unpin { store, paths } => tiering::pin(store, paths, false),
        Command::Status { store, watch: false } => inspect::status(store, json),
        Command::Status { store, watch: true } => inspect::watch(store, json),
        Command::Snapshots { store } => inspect::snapshots(store, json),
        Command::Log { store, from, to } => inspect::log(store, (*from, *to), json),
        Command::Stats { store } => inspect::stats(store, json),
        Command::Dump { store, keys } => inspect::dump(store, keys),
        Command::Index(IndexCommand::Dump { store }) => index::dump(store),
        Command::Index(IndexCommand::Rebuild { store, full_scan, from_cloud }) => {
            index::rebuild(store, (*full_scan, *from_cloud), json)
        }
        Command::Index(IndexCommand::Check { store }) => index::check(store, json),
        Command::Verify { store, read_data } => verify::verify(store, *read_data, json),
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
            restore::restore(store, &source, json)
        }
        Command::Tarball(TarballCommand::Ls { file, identity }) => {
            tarball::ls(file, identity.as_deref())
        }
        Command::Tarball(TarballCommand::Cat { file, identity }) => {
            tarball::cat(file, identity.as_deref())
        }
    }
}

/// Standard output for much text.
fn stdout() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

fn flush(mut out: impl Write) -> Result<()> {
    out.flush().context("cannot write to standard output")
}
