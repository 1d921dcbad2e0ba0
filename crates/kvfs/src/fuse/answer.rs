//! Answers: what the filesystem returned, as replies to the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{
    Errno, Generation, ReplyAttr, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyWrite, ReplyXattr,
};
use tier_types::{FileAttr, FileKind};

use super::convert::{self, errno, errno_by_ino};
use crate::ops::DirEntry;
use crate::{FsError, Kvfs};

/// How long the kernel may remember what it was told. Everything else that changes the filesystem,
/// eviction and recall among it, tells the kernel at once.
pub(super) const REMEMBER: Duration = Duration::from_hours(1);
/// Inode numbers are never used again.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn kernel_attr(fs: &Kvfs, attr: &FileAttr) -> Result<fuser::FileAttr, FsError> {
    let allocated_bytes = match attr.kind {
        FileKind::Regular => fs.allocated_bytes_of(attr)?,
        FileKind::Directory
        | FileKind::Symlink(_)
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice(_)
        | FileKind::BlockDevice(_) => 0,
    };
    Ok(convert::attr(&fs.with_access(attr.clone()), allocated_bytes, fs.chunk_bytes()))
}

/// Adds an entry to a listing, whose inode was counted as known. Whether there was no room for it.
/// One whose attributes cannot be read is one without a node, of which the kernel takes the name
/// alone; it asks when it needs more.
pub(super) fn listed(reply: &mut ReplyDirectoryPlus, fs: &Kvfs, entry: &DirEntry) -> bool {
    let found = entry.attr.as_ref().and_then(|attr| kernel_attr(fs, attr).ok());
    let attr = found.unwrap_or_else(convert::no_inode);
    let (number, name) = (convert::number(entry.ino), OsStr::from_bytes(&entry.name));
    let is_full = reply.add(number, entry.cookie, name, &REMEMBER, &attr, GENERATION);
    if !is_full && found.is_none() {
        forget_listed(fs, entry);
    }
    is_full
}

/// The kernel is not told of this inode.
pub(super) fn forget_listed(fs: &Kvfs, entry: &DirEntry) {
    // The kernel does not count itself as knowing a directory and its parent by these.
    let is_counted = entry.attr.is_some() && !matches!(entry.name.as_slice(), b"." | b"..");
    if is_counted {
        fs.forget(entry.ino, 1);
    }
}

pub(super) fn empty(reply: ReplyEmpty, done: Result<(), FsError>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno_by_ino(&error)),
    }
}

pub(super) fn named(reply: ReplyEmpty, done: Result<Result<(), FsError>, Errno>) {
    match done {
        Ok(Ok(())) => reply.ok(),
        Ok(Err(error)) => reply.error(errno(&error)),
        Err(error) => reply.error(error),
    }
}

pub(super) fn data(reply: ReplyData, read: Result<Vec<u8>, FsError>) {
    match read {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno_by_ino(&error)),
    }
}

#[expect(clippy::expect_used, reason = "writes and copies are limited to much less")]
pub(super) fn written(reply: ReplyWrite, written: Result<u64, FsError>) {
    match written {
        Ok(n) => reply.written(u32::try_from(n).expect("less than 4 GiB at a time")),
        Err(error) => reply.error(errno_by_ino(&error)),
    }
}

pub(super) fn attr(reply: ReplyAttr, attr: Result<fuser::FileAttr, FsError>) {
    match attr {
        Ok(attr) => reply.attr(&REMEMBER, &attr),
        Err(error) => reply.error(errno_by_ino(&error)),
    }
}

/// Answers with a value, or how long it is if that was asked.
pub(super) fn xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, FsError>) {
    match value {
        Ok(value) => {
            let Ok(len) = u32::try_from(value.len()) else { return reply.error(Errno::E2BIG) };
            match size {
                0 => reply.size(len),
                size if size < len => reply.error(Errno::ERANGE),
                _ => reply.data(&value),
            }
        }
        Err(error) => reply.error(errno_by_ino(&error)),
    }
}

#[expect(clippy::expect_used, reason = "sizes of files and offsets of seeks are at most that")]
pub(super) fn seek(reply: ReplyLseek, found: Result<Option<u64>, FsError>) {
    match found {
        Ok(Some(at)) => reply.offset(i64::try_from(at).expect("at most i64::MAX")),
        Ok(None) => reply.error(Errno::ENXIO),
        Err(error) => reply.error(errno_by_ino(&error)),
    }
}

/// Answers with an inode that the kernel knows by this.
pub(super) fn entry(reply: ReplyEntry, fs: &Kvfs, known: Result<FileAttr, FsError>) {
    match known.and_then(|attr| known_attr(fs, &attr)) {
        Ok(attr) => reply.entry(&REMEMBER, &attr, GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

/// The same for an inode that was asked for by a number: if it is gone, the number is stale.
pub(super) fn entry_by_ino(reply: ReplyEntry, fs: &Kvfs, known: Result<FileAttr, FsError>) {
    match known.and_then(|attr| known_attr(fs, &attr)) {
        Ok(attr) => reply.entry(&REMEMBER, &attr, GENERATION),
        Err(error) => reply.error(errno_by_ino(&error)),
    }
}

/// The attributes of an inode that was counted as known; without them the kernel is not told of it.
pub(super) fn known_attr(fs: &Kvfs, attr: &FileAttr) -> Result<fuser::FileAttr, FsError> {
    kernel_attr(fs, attr).inspect_err(|_| fs.forget(attr.ino, 1))
}
