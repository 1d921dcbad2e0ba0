//! `tier mount`: the filesystem in the kernel's tree, the agent below it, and a socket for all
//! other commands.
//!
//! What is started is ended in the opposite order, with one exception. The server is there before
//! the mount, because what fails after the mount would leave it behind. When the mount has ended,
//! the schedule ends first, then the server: a command may wait for a task that the schedule gave
//! the agent, and the server waits for its commands. Last, what was written and not synced is
//! synced, and the store closes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kvfs::{Mount, MountOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tier_rpc::Server;
use tier_store::{Atime, Layout, StoreError};
use tier_types::Persisted;

use super::live::{end_schedule, start, start_schedule};
use super::server::Commands;
use crate::args::{MountArgs, MountOption};
use crate::command;
use crate::console::heeded;
use crate::context::Context;
use crate::open_store::OpenStore;

/// For so long a mount waits for a store that another process has open: umount(8) returns before
/// the process that mounted it has synced and closed the store.
const PREDECESSOR: Duration = Duration::from_secs(5);
const PREDECESSOR_INTERVAL: Duration = Duration::from_millis(50);

/// Mounts a store, and returns when it is unmounted.
pub(crate) fn mount(context: &Context, args: &MountArgs) -> Result<()> {
    assert!(context.live().is_none(), "a mount is a process of its own");
    // The paths are checked before the store is opened, because opening it may take long.
    let path = command::mountable(args)?;
    let read_only = args.read_only || args.has(MountOption::ReadOnly, MountOption::ReadWrite);
    let store = open(context, &path, read_only)?;
    // Changes of a follower could never be archived.
    let read_only = read_only || store.is_follower();
    let live = start(Arc::clone(&store))?;
    tracing::info!(store = %path.display(), "the agent has started");
    // A read-only mount changes nothing of its own accord, and needs no schedule to archive it.
    if !args.no_agent && !read_only {
        start_schedule(&live)?;
        tracing::info!("the agent acts unasked");
    }
    let notes_access = store.config().mount.atime == Atime::Relatime;
    let options = MountOptions {
        // As the operator named it: findmnt and umount compare it with /etc/fstab.
        source: if args.store.is_absolute() { &args.store } else { &path }.display().to_string(),
        read_only,
        no_suid: args.has(MountOption::NoSuid, MountOption::Suid),
        no_dev: args.has(MountOption::NoDev, MountOption::Dev),
        no_exec: args.has(MountOption::NoExec, MountOption::Exec),
        access_times: notes_access && !args.has(MountOption::NoAtime, MountOption::Atime),
        n_threads: store.config().mount.threads,
        n_waiting: store.config().mount.waiting,
        user_pins: store.config().mount.user_pins,
    };
    // The mount asks the index which snapshot has a file, for its extended attributes.
    let archive: Arc<dyn Persisted> = store.index().clone();
    let socket = Layout::new(&path).control_socket();
    let server = Server::start(&socket, Arc::new(Commands(Arc::clone(&live))))?;
    tracing::info!(socket = %socket.display(), "listening for commands");
    let mounted = Mount::start(&store.fs, &args.mountpoint, &options, archive);
    let failed = || format!("cannot mount on {}", args.mountpoint.display());
    // An error from here drops the server and the store in turn; nothing is in the tree yet.
    let mount = Arc::new(mounted.with_context(failed)?);
    live.set_mount(Arc::clone(&mount));
    // Without signals there would be no way to end it but umount, so that it is ended here.
    let signals = unmount_on_signal(&mount).inspect_err(|_| drop(mount.unmount()))?;
    let mountpoint = mount.mountpoint().display();
    let why = if store.is_follower() { ", read-only because it is a follower" } else { "" };
    context.console.note(&format!("Mounted {} on {mountpoint}{why}.", path.display()));
    let ended = mount.wait();
    tracing::info!("the mount has ended");
    signals.close();
    end_schedule(&live);
    drop(server);
    // What programs wrote and never synced is synced here, because the mount ended in order.
    store.fs.fsync()?;
    // Its error comes after the sync: what is in the store must be safe whatever ended the mount.
    ended.context("the mount ended badly")?;
    context.console.note("Unmounted.");
    Ok(())
}

/// Opens a store, of which a predecessor may be about to let go.
fn open(context: &Context, path: &Path, read_only: bool) -> Result<Arc<OpenStore>> {
    let begin = Instant::now();
    loop {
        let opened = if read_only { context.open(path) } else { context.open_to_write(path) };
        match opened {
            Err(error) if is_busy(&error) && begin.elapsed() < PREDECESSOR => {
                tracing::debug!("waiting for another process: {error:#}");
                thread::park_timeout(PREDECESSOR_INTERVAL);
            }
            opened => return opened,
        }
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoreError::Busy { .. }))
}

/// The first signal unmounts. A mount that is in use goes on, out of sight, until no process uses
/// it; a second signal ends it at once.
fn unmount_on_signal(mount: &Arc<Mount>) -> Result<Handle> {
    // Until the first signal has been handled this stays false, and a shutdown does nothing.
    let second = Arc::new(AtomicBool::new(false));
    // SIGHUP as well: a terminal that is closed must not leave a mount without its process.
    let heeded = heeded([SIGINT, SIGTERM, SIGHUP]);
    for signal in heeded.iter().copied() {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&second))
            .context("cannot listen to signals")?;
    }
    let mut signals = Signals::new(heeded).context("cannot listen to signals")?;
    let handle = signals.handle();
    let mount = Arc::clone(mount);
    let unmount_on_each = move || {
        for _ in signals.forever() {
            unmount(&mount);
            // Only now: a second signal that comes during the unmounting is one more request, not
            // the end.
            second.store(true, Ordering::Relaxed);
        }
    };
    let started = thread::Builder::new().name("tier-signals".into()).spawn(unmount_on_each);
    started.context("cannot start a thread for signals")?;
    Ok(handle)
}

fn unmount(mount: &Mount) {
    match mount.unmount() {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            "{} is in use: it is out of sight, and ends when no process uses it any more; again to \
             end it now",
            mount.mountpoint().display()
        ),
        Err(error) => tracing::error!("cannot unmount: {error}; again to end it now"),
    }
}
