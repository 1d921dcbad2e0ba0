//! Answers: what the filesystem returned, as replies to the kernel.

use std::time::Duration;

use fuser::{
    Errno, Generation, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyWrite,
    ReplyXattr,
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
    let resident_bytes = match attr.kind {
        FileKind::Regular => fs.resident_bytes_of(attr)?,
        FileKind::Directory
        | FileKind::Symlink(_)
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice(_)
        | FileKind::BlockDevice(_) => 0,
    };
    Ok(convert::attr(attr, resident_bytes, fs.chunk_bytes()))
}

/// Attributes in a listing. An entry whose attributes cannot be read is one without a node, of
/// which the kernel takes the name alone; it asks when it needs more.
pub(super) fn listed_attr(fs: &Kvfs, entry: &DirEntry) -> Result<fuser::FileAttr, FsError> {
    let known = entry.attr.as_ref().map(|attr| kernel_attr(fs, attr));
    match known {
        Some(Err(error)) if error.is_damage() => Ok(convert::no_inode()),
        Some(attr) => attr,
        None => Ok(convert::no_inode()),
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

pub(super) fn entry(reply: ReplyEntry, fs: &Kvfs, found: Result<FileAttr, FsError>) {
    match found.and_then(|attr| kernel_attr(fs, &attr)) {
        Ok(attr) => reply.entry(&REMEMBER, &attr, GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}
