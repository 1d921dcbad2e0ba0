//! The client's side of the control socket: a command on a store that another process has open.
//!
//! Only one process can have a store open. A command therefore looks for the socket of its store
//! before it opens it. If a process answers there, the command is carried out by that process, and
//! this one only prints what comes back. A socket that is left from a crash has no process behind
//! it, and is no hindrance. If a process opens the store between the look and the opening, the
//! store's lock tells them apart: the command fails as on a store that is in use.

use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tier_rpc::Client;
use tier_store::Layout;
use tier_types::{ControlCommand, ControlSession, ErrorKind, PortError};

use crate::args::Command;
use crate::console::{self, ProgressBar};

/// Has a command carried out by the process that has its store open, and returns its exit code;
/// `None` if there is no such process.
pub(crate) fn hand_over(command: &Command) -> Result<Option<u8>> {
    let Some(store) = command.open_store() else { return Ok(None) };
    // A socket without a process is no answer, and the command goes on to open the store itself.
    let client = Client::connect(&Layout::new(store).control_socket())?;
    if client.is_some() {
        tracing::debug!(store = %store.display(), "another process has the store open; asking it");
    }
    client.map(run).transpose()
}

/// The arguments go over as they are, so that they are parsed where they are used.
fn run(client: Client) -> Result<u8> {
    let directory = std::env::current_dir().context("cannot tell the current directory")?;
    // Bytes and not text: a path of the host need not be UTF-8.
    let command = ControlCommand {
        arguments: std::env::args_os().skip(1).map(OsStringExt::into_vec).collect(),
        directory: directory.into_os_string().into_vec(),
    };
    // Before the command is sent, so that a Ctrl-C at any time reaches it.
    pass_signals_on(&client)?;
    Ok(client.run(&command, &Terminal::default())?)
}

/// The first Ctrl-C asks the other process to stop; the second one does not wait for its answer.
fn pass_signals_on(client: &Client) -> Result<()> {
    let mut canceller = client.canceller()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to signals")?;
    let pass_on = move || {
        for (n, _) in signals.forever().enumerate() {
            // The other process goes on to its next safe point: only this end of the command is
            // left.
            if n > 0 {
                std::process::exit(i32::from(console::FAILED));
            }
            canceller.cancel();
        }
    };
    let started = thread::Builder::new().name("tier-signals".into()).spawn(pass_on);
    // The thread is not joined: it waits for signals until this process ends.
    started.map(drop).context("cannot start a thread for signals")
}

/// What the other process says, on the terminal of this one.
#[derive(Default)]
struct Terminal {
    bar: Mutex<Option<ProgressBar>>,
}

impl ControlSession for Terminal {
    fn output(&self, bytes: &[u8]) -> Result<(), PortError> {
        let mut out = io::stdout().lock();
        // Flushed each time, because the user may wait for a line that is not complete.
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|source| {
            PortError::new(ErrorKind::Failed, "cannot write to standard output").with_source(source)
        })
    }

    fn note(&self, text: &str) {
        // Where standard error is closed, the work goes on all the same.
        drop(writeln!(io::stderr(), "{text}"));
    }

    fn progress(&self, text: &str) {
        let mut shown = self.bar.lock();
        if text.is_empty() {
            // Dropped, the line disappears, so that the output that follows stands alone.
            *shown = None;
            return;
        }
        // The other end sends the name of the work and its state in one text.
        let (what, message) = text.split_once(": ").unwrap_or((text, ""));
        let bar = shown.get_or_insert_with(|| ProgressBar::on_terminal(what));
        bar.text(|| message.to_string());
    }

    fn cancelled(&self) -> Arc<AtomicBool> {
        // Ctrl-C goes to the other process: nothing here looks at a flag.
        Arc::default()
    }
}
