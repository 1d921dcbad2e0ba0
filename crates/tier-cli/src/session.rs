//! Whoever gave a command: where its words go, how he stops it, and what he finds open.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use tier_agent::{AgentReport, Task};
use tier_types::{ControlSession, ErrorKind, PortError};

use crate::daemon::Daemon;
use crate::progress::Bar;
use crate::store::Store;

/// What a command knows of its surroundings.
pub(crate) struct Session {
    json: bool,
    outlet: Outlet,
}

enum Outlet {
    /// The command runs in the process that the user started.
    Here,
    /// It runs in the process that has the store open, for a user elsewhere.
    There { user: Arc<dyn ControlSession>, daemon: Arc<Daemon>, folder: PathBuf },
}

impl Session {
    /// A command of the user who started this process.
    pub(crate) fn here(json: bool) -> Self {
        Self { json, outlet: Outlet::Here }
    }

    /// A command on a store that this process has open, from a user whose relative paths count
    /// from `folder`.
    pub(crate) fn there(
        json: bool,
        user: Arc<dyn ControlSession>,
        daemon: Arc<Daemon>,
        folder: PathBuf,
    ) -> Self {
        Self { json, outlet: Outlet::There { user, daemon, folder } }
    }

    /// Whether reports are wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// The store, with its index brought up to the newest manifest.
    pub(crate) fn open(&self, path: &Path) -> Result<Arc<Store>> {
        match &self.outlet {
            Outlet::Here => Ok(Arc::new(Store::open(path)?)),
            Outlet::There { daemon, .. } => Ok(Arc::clone(daemon.store())),
        }
    }

    /// The store, even if a repair of it did not come to its end.
    pub(crate) fn open_for_check(&self, path: &Path) -> Result<Arc<Store>> {
        match &self.outlet {
            Outlet::Here => Ok(Arc::new(Store::open_for_check(path)?)),
            Outlet::There { daemon, .. } => Ok(Arc::clone(daemon.store())),
        }
    }

    /// The store, whose index may be behind, or wrong.
    pub(crate) fn open_behind(&self, path: &Path) -> Result<Arc<Store>> {
        match &self.outlet {
            Outlet::Here => Ok(Arc::new(Store::open_behind(path)?)),
            Outlet::There { daemon, .. } => Ok(Arc::clone(daemon.store())),
        }
    }

    /// The process that has the store open, if it is not this command alone.
    pub(crate) fn daemon(&self) -> Option<&Arc<Daemon>> {
        match &self.outlet {
            Outlet::Here => None,
            Outlet::There { daemon, .. } => Some(daemon),
        }
    }

    /// A path of the host as the user means it.
    pub(crate) fn host_path(&self, path: &Path) -> PathBuf {
        match &self.outlet {
            Outlet::Here => path.to_path_buf(),
            Outlet::There { folder, .. } => folder.join(path),
        }
    }

    /// Prints a report: `text` for people, `json` for programs.
    pub(crate) fn report(&self, json: &Value, text: &str) -> Result<()> {
        let mut out = self.out();
        let written = if self.json { writeln!(out, "{json:#}") } else { write!(out, "{text}") };
        written.and_then(|()| out.flush()).context("cannot write the report")
    }

    /// Standard output, for much text.
    pub(crate) fn out(&self) -> BufWriter<Box<dyn Write + '_>> {
        let out: Box<dyn Write> = match &self.outlet {
            Outlet::Here => Box::new(io::stdout().lock()),
            Outlet::There { user, .. } => Box::new(Remote(user.as_ref())),
        };
        BufWriter::with_capacity(1 << 16, out)
    }

    /// Says something besides, on standard error.
    pub(crate) fn note(&self, text: &str) {
        match &self.outlet {
            // If nobody can be told, the work goes on all the same.
            Outlet::Here => drop(writeln!(io::stderr(), "{text}")),
            Outlet::There { user, .. } => user.note(text),
        }
    }

    /// A line that shows what is going on.
    pub(crate) fn bar(&self, what: &str) -> Bar {
        match &self.outlet {
            Outlet::Here => Bar::on_terminal(what),
            Outlet::There { user, .. } => Bar::remote(what, Arc::clone(user)),
        }
    }

    /// From now on and as long as it is held, Ctrl-C asks for a stop at the next safe point instead
    /// of ending the program.
    pub(crate) fn stop(&self) -> Result<Stop> {
        let mut signals = Vec::new();
        let flag = match &self.outlet {
            Outlet::There { user, .. } => user.cancelled(),
            Outlet::Here => {
                let flag = Arc::new(AtomicBool::new(false));
                for signal in [SIGINT, SIGTERM] {
                    let registered = signal_hook::flag::register(signal, Arc::clone(&flag));
                    signals.push(registered.context("cannot listen to signals")?);
                }
                flag
            }
        };
        Ok(Stop { flag, signals })
    }

    /// Has the store's agent perform a task.
    pub(crate) fn perform(&self, store: &Store, task: Task, what: &str) -> Result<AgentReport> {
        let bar = Arc::new(self.bar(what));
        let _watching = store.audience.join(bar);
        let stop = self.stop()?;
        Ok(store.agent()?.perform(task, &stop.flag)?)
    }
}

/// The wish to stop.
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    signals: Vec<SigId>,
}

impl Stop {
    /// True when a stop was asked for.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// An error if a stop was asked for.
    pub(crate) fn check(&self) -> Result<()> {
        match self.flag.load(Ordering::Relaxed) {
            true => Err(PortError::new(ErrorKind::Cancelled, "stopped").into()),
            false => Ok(()),
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        for signal in self.signals.drain(..) {
            signal_hook::low_level::unregister(signal);
        }
    }
}

struct Remote<'a>(&'a dyn ControlSession);

impl Write for Remote<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A reader that has seen enough: the same as a closed pipe.
        let sent = self.0.output(bytes);
        sent.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
