//! The context of a command: its console, how it opens a store, and what is live in this process.
//!
//! A command is a function of its [`Context`] and its arguments. It runs in the process that the
//! user started, which opens the store for it ([`Context::local`]); or in a process that has the
//! store open for longer, such as a mount ([`Context::live_store`]). There the opener yields the
//! store that is open, and [`Live`] holds what else that process has: the scheduler of the agent,
//! and the mount, which is to hear of what changes behind the kernel's back. So no command knows
//! how it came to run where it runs, and what serves a store depends on commands, never the other
//! way round.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use kvfs::Mount;
use parking_lot::Mutex;
use tier_agent::{AgentError, AgentReport, NotUploaded, Scheduler, Task};

use crate::console::Console;
use crate::open_store::{OpenMode, OpenStore};

/// Opens the store at a path, or yields the one that is open.
type Opener = Box<dyn Fn(&Path, OpenMode) -> Result<Arc<OpenStore>> + Send + Sync>;

/// What a command works with, besides its arguments.
pub(crate) struct Context {
    pub(crate) console: Console,
    opener: Opener,
    live: Option<Arc<Live>>,
}

impl Context {
    /// The context in a process that was started for this one command.
    pub(crate) fn local(console: Console) -> Self {
        let opener = |path: &Path, mode| {
            tracing::debug!(store = %path.display(), ?mode, "opening the store");
            // Shared although one command owns it, because a live store comes as the same type.
            Ok(Arc::new(OpenStore::open(path, mode)?))
        };
        Self { console, opener: Box::new(opener), live: None }
    }

    /// The context in a process that has a store open. The other process found its control socket
    /// inside that store, so that the path says the same store by another name.
    pub(crate) fn live_store(console: Console, live: Arc<Live>) -> Self {
        let store = Arc::clone(&live.store);
        // The mode is not looked at: the store is open, in the one way that all commands can work
        // with.
        let opener = move |_: &Path, _| Ok(Arc::clone(&store));
        Self { console, opener: Box::new(opener), live: Some(live) }
    }

    /// The store, whole and with an index that is up to date.
    pub(crate) fn open(&self, path: &Path) -> Result<Arc<OpenStore>> {
        self.open_as(path, OpenMode::Regular)
    }

    /// The same, for a command that changes it: an error if nothing may be written.
    pub(crate) fn open_to_write(&self, path: &Path) -> Result<Arc<OpenStore>> {
        let store = self.open(path)?;
        store.fs.check_writable()?;
        store.store.dir().check_not_being_taken_over()?;
        Ok(store)
    }

    /// The same, for a command that changes what is archived: not on a follower.
    pub(crate) fn open_to_archive(&self, path: &Path) -> Result<Arc<OpenStore>> {
        let store = self.open_to_write(path)?;
        if store.is_follower() { Err(AgentError::Follower.into()) } else { Ok(store) }
    }

    pub(crate) fn open_as(&self, path: &Path, mode: OpenMode) -> Result<Arc<OpenStore>> {
        (self.opener)(path, mode)
    }

    /// What is live in this process, if the store was open before the command came.
    pub(crate) fn live(&self) -> Option<&Live> {
        self.live.as_deref()
    }

    /// The mount of the store, if this process has one.
    pub(crate) fn mount(&self) -> Option<&Mount> {
        self.live()?.mount()
    }

    /// The scheduler of the store's agent, if this process has one. Not to be kept: it ends when it
    /// is dropped.
    pub(crate) fn scheduler(&self) -> Option<Arc<Scheduler>> {
        self.live()?.scheduler()
    }

    /// Has the store's agent perform a task, shown as `what`, until it is done or stopped.
    pub(crate) fn perform(&self, store: &OpenStore, task: Task, what: &str) -> Result<AgentReport> {
        // The bar is held until the task ends: the fan-out keeps only a weak reference to it.
        let bar = Arc::new(self.console.progress(what));
        let _shown = store.progress.join(bar);
        // The guard is held until the agent has answered; dropped, Ctrl-C would end the process.
        let stop = self.console.stop()?;
        Ok(store.agent()?.perform(task, stop.flag())?)
    }

    /// The same for a task of which something is done also if nothing can be uploaded: what was
    /// done, and why nothing was uploaded, which is an error in the end.
    pub(crate) fn perform_all(
        &self,
        store: &OpenStore,
        task: Task,
        what: &str,
    ) -> Result<(AgentReport, Result<()>)> {
        match self.perform(store, task, what) {
            Ok(report) => Ok((report, Ok(()))),
            Err(error) => {
                let error = error.downcast::<AgentError>()?;
                let AgentError::NotUploaded(not_uploaded) = error else {
                    return Err(error.into());
                };
                let NotUploaded { done, why } = *not_uploaded;
                Ok((done, Err(why.into())))
            }
        }
    }
}

/// A store that a process has open for longer than a command, and what it does with it.
pub(crate) struct Live {
    pub(crate) store: Arc<OpenStore>,
    scheduler: Mutex<Option<Arc<Scheduler>>>,
    mount: OnceLock<Arc<Mount>>,
}

impl Live {
    /// An open store, neither mounted nor with a schedule.
    pub(crate) fn new(store: Arc<OpenStore>) -> Self {
        Self { store, scheduler: Mutex::new(None), mount: OnceLock::new() }
    }

    /// Sets the scheduler, or takes it away: it ends when no command uses it any more.
    pub(crate) fn set_scheduler(&self, scheduler: Option<Scheduler>) {
        let scheduler = scheduler.map(Arc::new);
        let is_one = scheduler.is_some();
        // Taken out under the lock, so that no later command finds a scheduler that ends.
        let former = std::mem::replace(&mut *self.scheduler.lock(), scheduler);
        assert!(!(is_one && former.is_some()), "a live store has one schedule");
        // The lock is not held while the former one ends, which may take as long as its task.
        drop(former);
    }

    fn scheduler(&self) -> Option<Arc<Scheduler>> {
        // A share keeps the scheduler for as long as one command looks at it, and no longer.
        self.scheduler.lock().clone()
    }

    /// Names the mount of the store, of which there is one at most.
    pub(crate) fn set_mount(&self, mount: Arc<Mount>) {
        assert!(self.mount.set(mount).is_ok(), "a live store is mounted once");
    }

    fn mount(&self) -> Option<&Mount> {
        self.mount.get().map(AsRef::as_ref)
    }
}
