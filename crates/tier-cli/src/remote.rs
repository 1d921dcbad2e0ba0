//! A command on a store that another process has open: it is carried out there.

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
use tier_types::{ControlCommand, ControlSession, ErrorKind, PortError};

use crate::args::Args;
use crate::daemon::control_path;
use crate::exit;
use crate::progress::Bar;

/// Has a command carried out by the process that has its store open, and returns its exit code;
/// `None` if there is no such process.
pub(crate) fn run(args: &Args) -> Option<Result<u8>> {
    let store = args.command.open_store()?;
    match Client::connect(&control_path(store)) {
        Ok(None) => None,
        Ok(Some(client)) => Some(command(client)),
        Err(error) => Some(Err(error.into())),
    }
}

fn command(client: Client) -> Result<u8> {
    let folder = std::env::current_dir().context("cannot tell the current folder")?;
    let command = ControlCommand {
        arguments: std::env::args_os().skip(1).map(OsStringExt::into_vec).collect(),
        directory: folder.into_os_string().into_vec(),
    };
    let mut canceller = client.canceller()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to signals")?;
    let listening = thread::Builder::new().name("tier-signals".into());
    listening
        .spawn(move || {
            // The first one asks, the second one does not wait for the answer.
            for (n, _) in signals.forever().enumerate() {
                if n > 0 {
                    std::process::exit(i32::from(exit::FAILED));
                }
                canceller.cancel();
            }
        })
        .context("cannot start a thread for signals")?;
    Ok(client.run(&command, &Terminal::default())?)
}

/// The user who started this process.
#[derive(Default)]
struct Terminal {
    bar: Mutex<Option<Bar>>,
}

impl ControlSession for Terminal {
    fn output(&self, bytes: &[u8]) -> Result<(), PortError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|source| {
            PortError::new(ErrorKind::Failed, "cannot write to standard output").with_source(source)
        })
    }

    fn note(&self, text: &str) {
        // If nobody can be told, the work goes on all the same.
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn progress(&self, text: &str) {
        let mut bar = self.bar.lock();
        if text.is_empty() {
            *bar = None;
            return;
        }
        let (what, message) = text.split_once(": ").unwrap_or((text, ""));
        let bar = bar.get_or_insert_with(|| Bar::on_terminal(what));
        bar.say(|| message.to_string());
    }

    fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::default()
    }
}
