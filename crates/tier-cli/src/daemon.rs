//! A store that a process has open for longer: its commands, its agent, its schedule.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use kvfs::{Kvfs, Mount};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tier_agent::{Schedule, Scheduler, SchedulerStatus, Space, Surroundings, Task};
use tier_types::{Control, ControlCommand, ControlSession, MountedInstance, PortError};

use crate::args::Args;
use crate::session::Session;
use crate::store::Store;
use crate::{cmd, exit};

/// The socket of a store.
pub(crate) fn control_path(store: &Path) -> PathBuf {
    store.join("control.sock")
}

/// Carries out commands on a store that is open, one thread each.
pub(crate) struct Daemon {
    store: Arc<Store>,
    scheduler: Mutex<Option<Arc<Scheduler>>>,
    mount: OnceLock<Arc<Mount>>,
}

impl Daemon {
    /// Starts the store's agent, which recovers what a crash left.
    pub(crate) fn new(store: Arc<Store>) -> Result<Self> {
        store.agent_in_background()?;
        Ok(Self { store, scheduler: Mutex::new(None), mount: OnceLock::new() })
    }

    /// From now on the agent acts unasked.
    pub(crate) fn start_schedule(&self) -> Result<()> {
        let settings = &self.store.base.config.agent;
        let space = &self.store.base.config.space;
        let schedule = Schedule {
            snapshot_interval: Duration::from_secs(settings.snapshot_seconds),
            snapshot_operations: settings.snapshot_operations,
            high_percent: space.high_percent,
            low_percent: space.low_percent,
            retry_interval: Duration::from_secs(settings.retry_seconds),
        };
        let surroundings = StoreSurroundings {
            fs: Arc::clone(&self.store.fs),
            capacity_bytes: space.capacity_bytes,
        };
        let agent = self.store.agent()?;
        let scheduler = Scheduler::start(agent, schedule, Box::new(surroundings))?;
        *self.scheduler.lock() = Some(Arc::new(scheduler));
        Ok(())
    }

    /// Names the mount, which hears of what changes by another way.
    pub(crate) fn set_mount(&self, mount: Arc<Mount>) {
        let _ = self.mount.set(mount);
    }

    /// Ends the schedule; what is under way stops at the next safe point.
    pub(crate) fn end(&self) {
        let scheduler = self.scheduler.lock().take();
        drop(scheduler);
    }

    pub(crate) fn mount(&self) -> Option<&Arc<Mount>> {
        self.mount.get()
    }

    pub(crate) fn scheduler(&self) -> Option<Arc<Scheduler>> {
        self.scheduler.lock().clone()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// The commands of a daemon, for its socket.
pub(crate) struct Commands(pub(crate) Arc<Daemon>);

impl Control for Commands {
    fn run(&self, command: &ControlCommand, user: Arc<dyn ControlSession>) -> u8 {
        let arguments = command.arguments.iter().cloned().map(OsString::from_vec);
        let args = match Args::try_parse_from(std::iter::once("tier".into()).chain(arguments)) {
            Ok(args) => args,
            // The other side parsed them before: it is another version of this program.
            Err(error) => {
                user.note(&error.to_string());
                return exit::USAGE;
            }
        };
        let folder = PathBuf::from(OsString::from_vec(command.directory.clone()));
        let session = Session::there(args.json, Arc::clone(&user), Arc::clone(&self.0), folder);
        match cmd::run(&args, &session) {
            Ok(()) => 0,
            Err(error) => {
                if !exit::is_broken_pipe(&error) {
                    user.note(&format!("tier: {}", exit::message(&error)));
                }
                exit::code(&error)
            }
        }
    }
}

/// What `tier status` says of the agent.
pub(crate) fn status(scheduler: Option<&SchedulerStatus>) -> (String, Value) {
    let Some(status) = scheduler else { return ("acts when asked".into(), Value::Null) };
    let what = match (status.paused, status.task) {
        (true, _) => "paused",
        (false, Some(Task::Snapshot | Task::Secure)) => "taking a snapshot",
        (false, Some(Task::Evict(_) | Task::EvictDryRun(_))) => "evicting",
        (false, None) => "waiting",
    };
    let mut text = what.to_string();
    if let Some(error) = &status.last_error {
        text.push_str(&format!("; last error: {error}"));
    }
    let json = json!({
        "state": what,
        "paused": status.paused,
        "tasks_done": status.n_done,
        "last_error": status.last_error,
    });
    (text, json)
}

struct StoreSurroundings {
    fs: Arc<Kvfs>,
    /// Zero for the whole disk.
    capacity_bytes: u64,
}

impl Surroundings for StoreSurroundings {
    fn backlog_operations(&self) -> u64 {
        self.fs.backlog_operations()
    }

    fn space(&self) -> Result<Space, PortError> {
        let used_bytes = self.fs.usage()?.physical_bytes;
        Ok(match self.capacity_bytes {
            0 => {
                let disk = self.fs.disk_space()?;
                let (taken_bytes, capacity_bytes) = (disk.used_bytes, disk.capacity_bytes);
                Space { used_bytes, taken_bytes, capacity_bytes }
            }
            capacity_bytes => Space { used_bytes, taken_bytes: used_bytes, capacity_bytes },
        })
    }
}
