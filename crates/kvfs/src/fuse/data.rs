//! Requests about data, and the space that it takes.
//!
//! What may need evicted data is tried without waiting on the thread that answers the kernel, and
//! done again from the start on one that may wait if it finds some. An operation that found cold
//! data has changed nothing, so that the first try costs no more than a look at the chunk map.

use std::sync::Arc;
use std::time::Instant;

use fuser::{
    Errno, ReplyData, ReplyEmpty, ReplyLseek, ReplyStatfs, ReplyWrite, Request, WriteFlags,
};
use tier_types::{ByteRange, Ino, to_u64};

use super::adapter::Adapter;
use super::answer;
use super::convert::{errno, strips};
use super::waiting::{Reply, WaitingCaller, WaitsFor};
use crate::ops::{Blocking, FilePosition};
use crate::{Core, FsError, Kvfs};

const BLOCK_BYTES: u32 = 4096;

/// Flags of fallocate(2).
const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;
const ZERO_RANGE: i32 = 16;

/// Places of lseek(2).
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

impl Adapter {
    /// Reads what may be evicted: at once if it is not, else on a thread that waits.
    pub(super) fn answer_read(
        &self,
        req: &Request,
        reply: ReplyData,
        read: impl Fn(&Kvfs, Blocking<'_>) -> Result<Vec<u8>, FsError> + Send + 'static,
    ) {
        // Hardly any request needs more than this.
        match read(&self.fs, Blocking::NonBlocking) {
            Err(FsError::Cold { .. }) => {
                let fs = Arc::clone(&self.fs);
                let work =
                    move |caller: &dyn WaitingCaller| read(&fs, Blocking::Cancellable(caller));
                self.waiting.submit(WaitsFor::Data, req.pid(), reply, work, answer::data);
            }
            done => answer::data(reply, done),
        }
    }

    /// Does what may need evicted data or room: at once if it does not, else on a thread that
    /// waits.
    pub(super) fn answer<R: Reply, T: 'static>(
        &self,
        req: &Request,
        reply: R,
        operation: impl Fn(&Kvfs, Blocking<'_>) -> Result<T, FsError> + Send + 'static,
        reply_with: impl FnOnce(R, Result<T, FsError>) + Send + 'static,
    ) {
        match operation(&self.fs, Blocking::NonBlocking) {
            Err(error) if let Some(what) = self.waits_for(&error) => {
                self.answer_in_time(what, req, reply, operation, reply_with);
            }
            done => reply_with(reply, done),
        }
    }

    /// What a change waits for that failed and may work later.
    fn waits_for(&self, error: &FsError) -> Option<WaitsFor> {
        if matches!(error, FsError::Cold { .. }) {
            return Some(WaitsFor::ChangedData);
        }
        let may_come = matches!(error, FsError::NoSpace(_)) && self.fs.room_may_come();
        may_come.then_some(WaitsFor::Room)
    }

    /// Does a change on a thread that waits, when there is room for it and its data is back. The
    /// kernel gives up what it holds back of a write that fails, so that an archive that is away is
    /// waited for as well.
    fn answer_in_time<R: Reply, T: 'static>(
        &self,
        what: WaitsFor,
        req: &Request,
        reply: R,
        operation: impl Fn(&Kvfs, Blocking<'_>) -> Result<T, FsError> + Send + 'static,
        reply_with: impl FnOnce(R, Result<T, FsError>) + Send + 'static,
    ) {
        // From now on, and not from when a thread has taken it.
        let (fs, since) = (Arc::clone(&self.fs), Instant::now());
        let work = move |caller: &dyn WaitingCaller| {
            fs.do_when_possible(since, &|failed| may_wait(failed, caller), &mut || {
                operation(&fs, Blocking::Cancellable(caller))
            })
        };
        self.waiting.submit(what, req.pid(), reply, work, reply_with);
    }

    /// Does what needs room for a few rows, and is done at once if it finds it.
    pub(super) fn answer_growth<R: Reply, T: 'static>(
        &self,
        req: &Request,
        reply: R,
        operation: impl Fn(&Kvfs) -> Result<T, FsError> + Send + 'static,
        reply_with: impl FnOnce(R, Result<T, FsError>) + Send + 'static,
    ) {
        let in_turn = move |fs: &Kvfs, blocking: Blocking<'_>| {
            claim_growth(fs, blocking)?;
            operation(fs)
        };
        self.answer(req, reply, in_turn, reply_with);
    }

    /// A write; the kernel's buffer is copied only if it has to wait.
    pub(super) fn write_data(
        &self,
        req: &Request,
        at: FilePosition,
        data: &[u8],
        flags: WriteFlags,
        reply: ReplyWrite,
    ) {
        let FilePosition { ino, offset } = at;
        let strip = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let reply_with = self.written_at(at, data.len(), flags);
        let len = to_u64(data.len());
        // Privileges go before the data comes: a crash between the two must not leave new content
        // that runs with the old set-id bits.
        let notices = Arc::clone(&self.notices);
        let write = move |fs: &Kvfs, blocking: Blocking<'_>, data: &[u8]| {
            if strip {
                claim_growth(fs, blocking)?;
                notices.strip_privileges(fs, ino)?;
            }
            fs.write_with(blocking, ino, offset, data).map(|()| len)
        };
        match write(&self.fs, Blocking::NonBlocking, data) {
            Err(error) if let Some(what) = self.waits_for(&error) => {
                let data = data.to_vec();
                let operation = move |fs: &Kvfs, blocking: Blocking<'_>| write(fs, blocking, &data);
                self.answer_in_time(what, req, reply, operation, reply_with);
            }
            done => reply_with(reply, done),
        }
    }

    /// How a write is answered. One that went past the kernel's cache may have made pages stale
    /// that the kernel read meanwhile: of an asynchronous one it takes no notice itself. They go
    /// before the writer is told that it is done.
    fn written_at(
        &self,
        at: FilePosition,
        len: usize,
        flags: WriteFlags,
    ) -> impl FnOnce(ReplyWrite, Result<u64, FsError>) + Send + 'static {
        let is_direct = !flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let (waiting, notices) = (self.waiting.pages(), Arc::clone(&self.notices));
        let files = Arc::clone(&self.files);
        move |reply, done| {
            if !is_direct || !files.is_cached(at.ino) {
                return answer::written(reply, done);
            }
            let range = ByteRange { offset: at.offset, len: to_u64(len) };
            waiting.submit_owed(move || {
                notices.drop_range(at.ino, range);
                answer::written(reply, done);
            });
        }
    }

    pub(super) fn allocate(
        &self,
        req: &Request,
        ino: Ino,
        range: ByteRange,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & KEEP_SIZE != 0;
        let asked = mode & !KEEP_SIZE;
        // A hole that grows the file is none, and neither are the flags that are not named here.
        let known = asked == 0 || asked == ZERO_RANGE || (asked == PUNCH_HOLE && keep_size);
        if !known {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let (strip, notices) = (strips(req), Arc::clone(&self.notices));
        let ByteRange { offset, len } = range;
        let operation = move |fs: &Kvfs, blocking: Blocking<'_>| {
            if strip {
                claim_growth(fs, blocking)?;
                notices.strip_privileges(fs, ino)?;
            }
            match asked {
                PUNCH_HOLE => fs.punch_hole_with(blocking, ino, offset, len),
                ZERO_RANGE => fs.zero_range(blocking, ino, range, keep_size),
                _ if keep_size => Ok(()),
                _ => {
                    claim_growth(fs, blocking)?;
                    fs.allocate(ino, offset, len)
                }
            }
        };
        self.answer(req, reply, operation, answer::empty);
    }

    pub(super) fn copy(
        &self,
        req: &Request,
        from: FilePosition,
        to: FilePosition,
        len: u64,
        reply: ReplyWrite,
    ) {
        let (strip, notices) = (strips(req), Arc::clone(&self.notices));
        let copy = move |fs: &Kvfs, blocking: Blocking<'_>| {
            if strip {
                blocking.claim()?;
                notices.strip_privileges(fs, to.ino)?;
            }
            fs.copy_range(blocking, from, to, len)
        };
        self.answer(req, reply, copy, answer::written);
    }

    pub(super) fn seek(
        &self,
        req: &Request,
        ino: Ino,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Ok(from) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let seek: fn(&Core, Ino, u64) -> Result<Option<u64>, FsError> = match whence {
            SEEK_DATA => Core::next_data,
            SEEK_HOLE => Core::next_hole,
            _ => return reply.error(Errno::EINVAL),
        };
        if !self.files.has_writer(ino) {
            return answer::seek(reply, seek(&self.fs, ino, from));
        }
        // The kernel does not send what it holds back before it asks; so it is told to.
        let (fs, notices) = (Arc::clone(&self.fs), Arc::clone(&self.notices));
        let work = move |_: &dyn WaitingCaller| {
            notices.drop_pages(ino);
            seek(&fs, ino, from)
        };
        self.waiting.submit(WaitsFor::Pages, req.pid(), reply, work, answer::seek);
    }

    pub(super) fn stat(&self, reply: ReplyStatfs) {
        match self.fs.statfs() {
            Ok(stat) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
                // What is used and what a writer can still take need not add up: a store with a
                // capacity may be on a disk that others fill.
                let (all, available) = (blocks(stat.limit_bytes), blocks(stat.free_bytes));
                let free = all.saturating_sub(blocks(stat.used_bytes));
                let files = stat.n_inodes.saturating_add(stat.n_inodes_free);
                let (n_free, name_max) = (stat.n_inodes_free, stat.name_bytes_max);
                reply.statfs(
                    all,
                    free,
                    available,
                    files,
                    n_free,
                    BLOCK_BYTES,
                    name_max,
                    BLOCK_BYTES,
                );
            }
            Err(error) => reply.error(errno(&error)),
        }
    }
}

/// Whether a caller waits for what a change failed of. One that cannot be interrupted any more does
/// not wait for an archive.
fn may_wait(failed: &FsError, caller: &dyn WaitingCaller) -> bool {
    let waits_for_room = matches!(failed, FsError::NoSpace(_));
    (waits_for_room || !caller.is_claimed()) && !caller.is_cancelled()
}

/// For what cannot be cancelled half way: only when there is room the answer is claimed, and from
/// then on the caller waits for it.
pub(super) fn claim_growth(fs: &Kvfs, blocking: Blocking<'_>) -> Result<(), FsError> {
    if matches!(blocking, Blocking::Cancellable(_)) {
        fs.check_growth()?;
    }
    blocking.claim()
}

#[cfg(test)]
mod tests {
    use super::super::deferred::Deferred;
    use super::super::deferred::testing::Said;
    use super::*;

    #[test]
    fn who_cannot_be_interrupted_any_more_waits_for_room_alone() {
        let (room, archive) = (FsError::NoSpace("the disk"), FsError::Cold { ino: Ino::ROOT });
        let caller = Deferred::new(Said::default());
        assert!(may_wait(&room, &caller) && may_wait(&archive, &caller));
        assert!(caller.claim());
        assert!(may_wait(&room, &caller) && !may_wait(&archive, &caller));
        drop(caller.take());
        assert!(!may_wait(&room, &caller) && !may_wait(&archive, &caller));
    }
}
