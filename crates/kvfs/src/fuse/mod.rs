//! The FUSE mount: the kernel's requests, answered on several threads.
//!
//! The library (`fuser`) reads requests on a few threads and calls the [`Adapter`]. None of these
//! threads waits for anything but the local store: requests that need evicted data go to
//! [`Waiting`], requests for durability to [`Syncing`], and seeks that have to make the kernel
//! write first to a small [`Waiting`] of their own, because what they wait for may itself wait in
//! the large one. Whatever changes attributes or names by another way than the kernel (eviction,
//! recall, a command on the mounted store) tells it through [`Notices`]; so the kernel may remember
//! everything for an hour.

mod adapter;
mod answer;
mod convert;
mod data;
mod deferred;
mod handles;
mod listings;
mod mounting;
mod nodes;
mod notices;
mod pool;
mod queue;
mod syncing;
mod tier_xattrs;
mod waiting;
mod xattrs;

use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fuser::{Config, MountOption, Session, SessionACL};
use parking_lot::Mutex;
use rustix::mount::{UnmountFlags, unmount};
use tier_types::{FileName, Ino, Persisted, with_causes};

use crate::Kvfs;
use adapter::Adapter;
use notices::Notices;
use syncing::Syncing;
use tier_xattrs::TierXattrs;
use waiting::Waiting;

/// With fewer, a request that reads from the disk holds up all others.
const N_THREADS_MIN: usize = 3;

/// How a filesystem is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of mount(8)")]
pub struct MountOptions {
    /// What `mount` and `df` call it.
    pub source: String,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Set-id bits mean nothing.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
    /// Reads note the time of access, as `relatime` does.
    pub access_times: bool,
    /// Threads that answer the kernel; 0 for one more than the machine has cores: each request
    /// wakes one up, which costs more than most requests, and more so the more there are.
    pub n_threads: usize,
    /// Requests that can wait at a time for evicted data, to change it, and for room, each.
    pub n_waiting: usize,
    /// Any user that may write a file may pin it, so that it is never evicted; else only root.
    pub user_pins: bool,
}

/// A mounted filesystem.
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    notices: Arc<Notices>,
    session: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl Mount {
    /// Mounts a filesystem on a directory and answers the kernel from then on. `archive` knows what
    /// is persisted.
    pub fn start(
        fs: &Arc<Kvfs>,
        mountpoint: &Path,
        options: &MountOptions,
        archive: Arc<dyn Persisted>,
    ) -> io::Result<Self> {
        let notices = Arc::new(Notices::default());
        let adapter = Adapter {
            fs: Arc::clone(fs),
            files: Arc::default(),
            listings: listings::Listings::default(),
            waiting: Waiting::start(options.n_waiting)?,
            syncing: Syncing::start(Arc::clone(fs))?,
            notices: Arc::clone(&notices),
            xattrs: TierXattrs { archive },
            maps_direct: false,
            access_times: options.access_times && !options.read_only,
            user_pins: options.user_pins,
        };
        // The kernel would follow a relative path from wherever it is used.
        let mountpoint = mountpoint.canonicalize()?;
        let session = match mounting::mount(&mountpoint, options) {
            Ok(device) => {
                let session = Session::from_fd(adapter, device, acl(), config(options));
                session.inspect_err(|_| {
                    // The error of the session is the one that matters.
                    let _ = unmount(&mountpoint, UnmountFlags::DETACH);
                })?
            }
            // A user that may not mount has a helper do it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Session::new(adapter, &mountpoint, &config(options))?
            }
            Err(error) => return Err(error),
        };
        // Before the first answer: from then on the kernel remembers attributes, and has to hear of
        // changes.
        notices.connect(session.notifier());
        let told = Arc::clone(&notices);
        fs.on_residency_change(Box::new(move |ino| told.forget_attributes(ino)));
        let thread = thread::Builder::new().name("kvfs-mount".into());
        let (answered, mounted_at) = (Arc::clone(fs), mountpoint.clone());
        let answering = thread.spawn(move || {
            let ended = session.run();
            if ended.is_err() {
                // Nothing answers any more: a process that uses it must not wait for that.
                let _ = unmount(&mounted_at, UnmountFlags::DETACH);
            }
            // With the session all requests have ended: nothing is told to the kernel any more.
            answered.forget_all();
            if let Err(error) = answered.write_access_times() {
                tracing::debug!(error = %with_causes(&error), "access times are lost");
            }
            ended
        });
        let answering = answering.inspect_err(|_| {
            let _ = unmount(&mountpoint, UnmountFlags::DETACH);
        })?;
        tracing::info!(mountpoint = %mountpoint.display(), "mounted");
        Ok(Self { mountpoint, notices, session: Mutex::new(Some(answering)) })
    }

    /// Where it is.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Waits until it is unmounted, by this process or another one.
    pub fn wait(&self) -> io::Result<()> {
        let session = self.session.lock().take();
        match session.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(io::Error::other("a thread that answers the kernel panicked")),
        }
    }

    /// Unmounts it. If a process uses it, it disappears from the tree all the same, goes on serving
    /// that process, and ends when the last file is closed; then the answer is false.
    pub fn unmount(&self) -> io::Result<bool> {
        match unmount(&self.mountpoint, UnmountFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::BUSY) => {
                unmount(&self.mountpoint, UnmountFlags::DETACH)?;
                Ok(false)
            }
            // A user other than root has a helper do it, which root owns.
            Err(rustix::io::Errno::PERM) => self.unmount_by_helper(),
            Err(error) => Err(error.into()),
        }
    }

    /// Attributes changed by another way than this mount.
    pub fn forget_attributes(&self, ino: Ino) {
        self.notices.forget_attributes(ino);
    }

    /// A name appeared or disappeared by another way than this mount.
    pub fn forget_entry(&self, dir: Ino, name: &FileName) {
        self.notices.forget_entry(dir, name);
    }

    fn unmount_by_helper(&self) -> io::Result<bool> {
        for (flag, at_once) in [("-u", true), ("-uz", false)] {
            let mut helper = std::process::Command::new("fusermount3");
            if helper.arg(flag).arg("--").arg(&self.mountpoint).output()?.status.success() {
                return Ok(at_once);
            }
        }
        Err(io::Error::other("fusermount3 cannot unmount it"))
    }
}

fn acl() -> SessionACL {
    if rustix::process::geteuid().is_root() { SessionACL::All } else { SessionACL::Owner }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype("tier".into()),
        MountOption::DefaultPermissions,
    ];
    // A user's helper adds that neither set-id bits nor device nodes mean anything.
    let chosen = [(options.read_only, MountOption::RO), (options.no_exec, MountOption::NoExec)];
    config.mount_options.extend(chosen.into_iter().filter(|(is_on, _)| *is_on).map(|(_, it)| it));
    // The permissions say what others may do; a user other than root mounts for that user alone.
    config.acl = acl();
    let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
    config.n_threads = Some(match options.n_threads {
        0 => n_cores.saturating_add(1).max(N_THREADS_MIN),
        n => n,
    });
    config.clone_fd = true;
    config
}
