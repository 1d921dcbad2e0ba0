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

use crossbeam_channel::{Sender, unbounded};
use fuser::ReplyEmpty;

use super::convert::errno_by_ino;
use crate::Kvfs;

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
            while let Ok(first) = queue.recv() {
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
