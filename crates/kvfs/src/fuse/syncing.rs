//! Requests for durability. They wait for the disk, and so do it on a thread of their own: all that
//! come while one sync is under way share the next one.
//!
//! A queue of its own, and not the pool of requests that wait for evicted data: those may wait for
//! minutes, and a sync behind them would as well. One thread is enough, because a second sync at
//! the same time would find nothing to do.

use std::io;
use std::iter;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use fuser::ReplyEmpty;
use tier_types::{LogReader, Xid, with_causes};

use super::convert::errno_by_ino;
use crate::Kvfs;

/// What is not asked to be durable is so after this time and that of a sync.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is written and synced without being asked for: sync(2) does not reach a FUSE filesystem,
/// and most programs ask for nothing.
#[derive(Default)]
struct Background {
    synced: Option<Xid>,
}

impl Background {
    fn round(&mut self, fs: &Kvfs) {
        // What is to be durable does not wait for these, for which there may be no room.
        if let Err(error) = fs.write_access_times() {
            tracing::debug!(error = %with_causes(&error), "access times are kept in memory");
        }
        let last = fs.last_xid();
        // Where nothing was done nothing is synced.
        if self.synced == Some(last) {
            return;
        }
        match fs.fsync() {
            Ok(()) => self.synced = Some(last),
            // The next request for a sync hears of it.
            Err(error) => {
                tracing::debug!(error = %with_causes(&error), "not synced in the background");
            }
        }
    }
}

/// The thread.
pub(super) struct Syncing {
    /// There are never more requests than the kernel has under way. Gone when the thread is to end.
    requests: Option<Sender<ReplyEmpty>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncing {
    pub(super) fn start(fs: Arc<Kvfs>) -> io::Result<Self> {
        let (requests, queue) = unbounded::<ReplyEmpty>();
        let thread = thread::Builder::new().name("kvfs-sync".into()).spawn(move || {
            let mut background = Background::default();
            let mut next = Instant::now() + INTERVAL;
            loop {
                // However many requests come in between.
                if Instant::now() >= next {
                    background.round(&fs);
                    next = Instant::now() + INTERVAL;
                }
                let first = match queue.recv_deadline(next) {
                    Ok(first) => first,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                // Collected before the sync begins: a request that comes during it may be about a
                // change that this sync does not cover.
                let waiting: Vec<_> = iter::once(first).chain(queue.try_iter()).collect();
                let done = fs.fsync();
                for reply in waiting {
                    match &done {
                        Ok(()) => reply.ok(),
                        Err(error) => reply.error(errno_by_ino(error)),
                    }
                }
            }
        })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Answers when everything done so far is durable.
    pub(super) fn submit(&self, reply: ReplyEmpty) {
        // The thread ends only with this value, or by a panic: then the reply is dropped, which
        // answers EIO.
        if let Some(requests) = &self.requests {
            let _ = requests.send(reply);
        }
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use tier_types::{FileKind, Ino};

    use super::*;
    use crate::testing::{filesystem, name, node};

    #[test]
    fn what_nothing_asked_for_is_durable_after_a_round_and_an_idle_one_does_nothing() {
        let (_dir, fs) = filesystem();
        let ino = fs.create_node(Ino::ROOT, &name("f"), &node(FileKind::Regular)).unwrap().ino;
        fs.write(ino, 0, &[1; 5000]).unwrap();
        assert!(fs.committer.unsynced_bytes() > 0);
        let mut background = Background::default();
        background.round(&fs);
        assert_eq!(fs.committer.unsynced_bytes(), 0);
        assert_eq!(background.synced, Some(fs.last_xid()));
        let n_writes = fs.db.n_writes().unwrap();
        background.round(&fs);
        assert_eq!(fs.db.n_writes().unwrap(), n_writes);
        fs.write(ino, 0, &[2; 5000]).unwrap();
        background.round(&fs);
        assert_eq!(fs.committer.unsynced_bytes(), 0);
    }
}
