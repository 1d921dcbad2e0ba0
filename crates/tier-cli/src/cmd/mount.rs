//! `tier mount`: the filesystem in the kernel's tree, the agent below it, and a socket for all
//! other commands.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use kvfs::{Mount, MountOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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
    let path = store.canonicalize().with_context(|| format!("no store at {}", store.display()))?;
    check_mountpoint(mountpoint, &path)?;
    let store = session.open(&path)?;
    let daemon = Arc::new(Daemon::new(Arc::clone(&store))?);
    if !how.no_agent && !how.read_only {
        daemon.start_schedule()?;
    }
    let options = MountOptions {
        source: path.display().to_string(),
        read_only: how.read_only,
        n_threads: store.base.config.mount.threads,
        n_waiting: store.base.config.mount.waiting,
    };
    let archive: Arc<dyn Persisted> = store.index.clone();
    // Before the mount: what fails from then on would leave it behind.
    let server = Server::start(&control_path(&path), Arc::new(Commands(Arc::clone(&daemon))))?;
    let mount = Mount::start(&store.fs, mountpoint, &options, archive)
        .with_context(|| format!("cannot mount on {}", mountpoint.display()))?;
    let mount = Arc::new(mount);
    daemon.set_mount(Arc::clone(&mount));
    let signals = unmount_on_signal(&mount).inspect_err(|_| drop(mount.unmount()))?;
    session.note(&format!("Mounted {} on {}.", path.display(), mount.mountpoint().display()));
    let ended = mount.wait();
    signals.close();
    // Commands may wait for what the schedule is having done.
    daemon.end();
    drop(server);
    // What was written and not synced is safe now as well.
    store.fs.fsync()?;
    ended.context("the mount ended badly")?;
    session.note("Unmounted.");
    Ok(())
}

/// Whether a store can be mounted there.
fn check_mountpoint(mountpoint: &Path, store: &Path) -> Result<()> {
    let shown = mountpoint.display();
    match mountpoint.metadata() {
        Err(error) if error.kind() == ErrorKind::NotConnected => {
            bail!("{shown} is a mount whose process has ended; first: umount {shown}")
        }
        Err(error) => Err(error).with_context(|| format!("cannot mount on {shown}")),
        Ok(metadata) if !metadata.is_dir() => bail!("{shown} is not a folder to mount on"),
        // The key-value store would write into itself.
        Ok(_) if store.starts_with(mountpoint.canonicalize()?) => {
            bail!("{shown} holds the store itself; mount somewhere else")
        }
        Ok(_) => Ok(()),
    }
}

/// The first signal unmounts; if somebody uses the mount, it goes on for him, and the second signal
/// ends the program.
fn unmount_on_signal(mount: &Arc<Mount>) -> Result<Handle> {
    let second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&second))
            .context("cannot listen to signals")?;
    }
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen to signals")?;
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
