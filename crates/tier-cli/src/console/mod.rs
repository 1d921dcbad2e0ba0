//! The console of a command: where its report, its notes and its progress go, and how its user
//! stops it.
//!
//! A command runs in one of two processes. [`Console::Local`] is that of the process that the user
//! started: standard output and error, and signals. While another process has the store open (a
//! mount), the command runs *there*, and [`Console::Remote`] carries what it says over the control
//! socket to the process that the user started, and a Ctrl-C back. A command does not see the
//! difference: it has a [`Console`], which knows no store.

mod exit;
mod local;
pub(crate) mod output;
mod progress;
mod remote;
mod signals;
mod stop;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;
use tier_types::ControlSession;

pub(crate) use self::exit::{
    BUSY, DAMAGED, DamageFound, FAILED, USAGE, code, is_broken_pipe, message,
};
use self::local::LocalConsole;
pub(crate) use self::progress::{ProgressBar, ProgressFanOut};
use self::remote::RemoteConsole;
pub(crate) use self::signals::heeded;
pub(crate) use self::stop::StopGuard;

/// Much output goes out in pieces of this size.
const OUT_BYTES: usize = 1 << 16;

/// Where a command talks to its user.
pub(crate) enum Console {
    /// The user started this process.
    Local(LocalConsole),
    /// The user started another process, which handed the command to this one.
    Remote(RemoteConsole),
}

impl Console {
    /// The console of this process. `json` asks for reports as JSON.
    pub(crate) fn local(json: bool) -> Self {
        Self::Local(LocalConsole { json })
    }

    /// The console of a process that handed over a command. The host's relative paths count from
    /// its `directory`.
    pub(crate) fn remote(json: bool, session: Arc<dyn ControlSession>, directory: PathBuf) -> Self {
        Self::Remote(RemoteConsole { json, session, directory })
    }

    /// Whether reports are wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Local(local) => local.json,
            Self::Remote(remote) => remote.json,
        }
    }

    /// A path of the host as the user means it.
    pub(crate) fn host_path(&self, path: &Path) -> PathBuf {
        match self {
            Self::Local(_) => path.to_path_buf(),
            // An absolute path takes the place of the directory that it is joined to, as it should.
            Self::Remote(remote) => remote.directory.join(path),
        }
    }

    /// Prints a report: `json` if that is wanted, else `text`.
    pub(crate) fn report(&self, json: &Value, text: &str) -> Result<()> {
        let mut out = self.out();
        // JSON is indented, because a report is also looked at on a terminal.
        let written = if self.json() { writeln!(out, "{json:#}") } else { write!(out, "{text}") };
        written.and_then(|()| out.flush()).context("cannot write the report")
    }

    /// Standard output, for much text. What is written is complete when it is flushed.
    pub(crate) fn out(&self) -> BufWriter<Box<dyn Write + '_>> {
        let out: Box<dyn Write> = match self {
            Self::Local(_) => Box::new(LocalConsole::out()),
            Self::Remote(remote) => Box::new(remote.out()),
        };
        // Over the socket each write is a message of its own, hence a buffer there too.
        BufWriter::with_capacity(OUT_BYTES, out)
    }

    /// Says something besides, on standard error.
    pub(crate) fn note(&self, text: &str) {
        match self {
            Self::Local(_) => LocalConsole::note(text),
            Self::Remote(remote) => remote.session.note(text),
        }
    }

    /// A line that shows how far the work named `what` has got.
    pub(crate) fn progress(&self, what: &str) -> ProgressBar {
        match self {
            Self::Local(_) => ProgressBar::on_terminal(what),
            Self::Remote(remote) => ProgressBar::remote(what, Arc::clone(&remote.session)),
        }
    }

    /// As long as the guard is held, Ctrl-C asks for a stop at the next safe point instead of
    /// ending the program.
    pub(crate) fn stop(&self) -> Result<StopGuard> {
        match self {
            Self::Local(_) => StopGuard::on_signals(),
            // The flag belongs to the connection, which also raises it when the client is gone.
            Self::Remote(remote) => Ok(StopGuard::on_flag(remote.session.cancelled())),
        }
    }
}
