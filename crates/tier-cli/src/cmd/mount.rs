//! `tier mount`: the filesystem in the kernel's tree, the agent below it, and a socket for all
//! other commands.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use kvfs::{Mount, MountOptions};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tier_rpc::Server;
use tier_types::Persisted;

use crate::daemon::{Commands, Daemon, control_path};
use crate::session::Session;

/// How to mount.
pub(crate) struct How {
    pub(crate) read_only: bool,
    pub(crate) no_agent: bool,
}

pub(crate) fn mount(session: &Session, store: &Path, mountpoint: &Path, how: &How) -> Result<()> {
    if !mountpoint.is_dir() {
        bail!("{} is not a folder to mount on", mountpoint.display());
    }
    let path = store.canonicalize().with_context(|| format!("no store at {}", store.display()))?;
    let store = session.open(&path)?;
    let daemon = Arc::new(Daemon::new(Arc::clone(&store))?);
    if !how.no_agent && !how.read_only {
        daemon.start_schedule()?;
    }
    let options = MountOptions {
        source: path.display().to_string(),
        read_only: how.read_only,
        n_threads: store.config.mount.threads,
        n_waiting: store.config.mount.waiting,
    };
    let archive: Arc<dyn Persisted> = store.index.clone();
    let mount = Mount::start(&store.fs, mountpoint, &options, archive)
        .with_context(|| format!("cannot mount on {}", mountpoint.display()))?;
    let mount = Arc::new(mount);
    daemon.set_mount(Arc::clone(&mount));
    let server = Server::start(&control_path(&path), Arc::new(Commands(Arc::clone(&daemon))))?;
    let signals = unmount_on_signal(&mount)?;
    session.note(&format!("Mounted {} on {}.", path.display(), mount.mountpoint().display()));
    let ended = mount.wait();
    signals.close();
    drop(server);
    daemon.end();
    // What was written and not synced is safe now as well.
    store.fs.fsync()?;
    ended.context("the mount ended badly")?;
    session.note("Unmounted.");
    Ok(())
}

/// The first signal unmounts; if somebody uses the mount, it goes on for him, and the second signal
/// ends the program.
fn unmount_on_signal(mount: &Arc<Mount>) -> Result<Handle> {
    let second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&second))
            .context("cannot listen to signals")?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to signals")?;
    let handle = signals.handle();
    let mount = Arc::clone(mount);
    let thread = thread::Builder::new().name("tier-signals".into());
    let thread = thread.spawn(move || {
        for _ in signals.forever() {
            match mount.unmount() {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    "{} is in use: it is out of sight, and ends when nobody uses it any more; \
                     again to end it now",
                    mount.mountpoint().display()
                ),
                Err(error) => tracing::error!("cannot unmount: {error}; again to end it now"),
            }
            second.store(true, Ordering::Relaxed);
        }
    });
    thread.context("cannot start a thread for signals")?;
    Ok(handle)
}
