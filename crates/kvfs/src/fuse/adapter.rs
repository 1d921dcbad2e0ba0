//! The FUSE adapter: the kernel's requests as calls of the filesystem.
//!
//! Each method turns the library's types into the filesystem's and the answer into a reply; what
//! takes more than that is in `nodes` and `data`. Methods run on the threads that answer the kernel
//! and return soon: evicted data, the disk, and pages that the kernel holds back are waited for on
//! other threads, which the reply goes along to.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tier_types::{ByteRange, FileKind, to_usize};

use super::answer;
use super::convert::{self, EntryName, errno, errno_by_ino};
use super::handles::Handles;
use super::listings::Listings;
use super::notices::Notices;
use super::syncing::Syncing;
use super::tier_xattrs::TierXattrs;
use super::waiting::Waiting;
use crate::Kvfs;
use crate::ops::{Blocking, FilePosition, SetAttr};

const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel has under way beside those that its callers wait for: what it writes
/// back, and what it reads ahead. Writes may wait for room, and must not take the places of reads;
/// their number is bounded by the pages that the kernel lets be dirty.
const N_BACKGROUND_MAX: u16 = 4096;
/// From so many on it reads ahead no more than it must.
const N_BACKGROUND_CONGESTED: u16 = 48;

/// The filesystem as the library wants it.
pub(super) struct Adapter {
    pub(super) fs: Arc<Kvfs>,
    pub(super) files: Arc<Handles>,
    pub(super) listings: Listings,
    pub(super) waiting: Waiting,
    pub(super) syncing: Syncing,
    pub(super) notices: Arc<Notices>,
    pub(super) xattrs: TierXattrs,
    /// The kernel can map files that are open past its cache.
    pub(super) maps_direct: bool,
    /// Reads note the time.
    pub(super) access_times: bool,
    /// Any user that may write a file may pin it.
    pub(super) user_pins: bool,
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            // Always: what the kernel would have to ask for later is at hand in a listing.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_WRITEBACK_CACHE,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_POSIX_ACL | InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            // File handles, as of an NFS server, are found by their inode's number.
            InitFlags::FUSE_EXPORT_SUPPORT,
        ] {
            // An older kernel goes without.
            let _ = config.add_capabilities(wanted);
        }
        let maps_direct = InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        self.maps_direct = config.add_capabilities(maps_direct).is_ok();
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_readahead(WRITE_BYTES_MAX);
        let _ = config.set_max_background(N_BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(N_BACKGROUND_CONGESTED);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        tracing::trace!(%parent, ?name, "lookup");
        self.look_up(parent, name, reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        tracing::trace!(%ino, nlookup, "forget");
        self.fs.forget(convert::ino(ino), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        tracing::trace!(%ino, "getattr");
        let found = self.fs.getattr(convert::ino(ino));
        answer::attr(reply, found.and_then(|attr| answer::kernel_attr(&self.fs, &attr)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        tracing::trace!(%ino, ?mode, ?uid, ?gid, ?size, "setattr");
        let time = |time: TimeOrNow| match time {
            TimeOrNow::SpecificTime(time) => convert::timestamp(time),
            TimeOrNow::Now => self.fs.now(),
        };
        // The kernel sends this one late, when something else may have changed the inode since. An
        // inode that is gone is found by what follows.
        let late = |changed| {
            let known = self.fs.getattr(convert::ino(ino)).map(|attr| attr.changed);
            known.map_or(changed, |known| known.max(changed))
        };
        // A user other than root cannot set these bits on files of others, and so loses them.
        let cut_by_user = size.is_some() && req.uid() != 0;
        let set = SetAttr {
            mode: mode.map(convert::mode),
            uid,
            gid,
            accessed: atime.map(time),
            modified: mtime.map(time),
            changed: ctime.map(convert::timestamp).map(late),
            strip: uid.is_some() || gid.is_some() || cut_by_user,
        };
        self.set_attributes(req, convert::ino(ino), size, set, reply);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        tracing::trace!(%ino, "readlink");
        let ino = convert::ino(ino);
        match self.fs.getattr(ino).map(|attr| attr.kind) {
            Ok(FileKind::Symlink(target)) => {
                self.note_access(ino);
                reply.data(&target);
            }
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(errno_by_ino(&error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        tracing::trace!(%parent, ?name, mode, "mknod");
        match convert::node_kind(mode, rdev) {
            Some(kind) => {
                let node = Self::new_node(req, kind, mode, umask);
                self.make(req, parent, name, node, reply);
            }
            None => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        tracing::trace!(%parent, ?name, mode, "mkdir");
        let node = Self::new_node(req, FileKind::Directory, mode, umask);
        self.make(req, parent, name, node, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        tracing::trace!(%parent, ?link_name, "symlink");
        let kind = FileKind::Symlink(target.as_os_str().as_bytes().to_vec());
        let node = Self::new_node(req, kind, 0o777, 0);
        self.make(req, parent, link_name, node, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        tracing::trace!(%parent, ?name, "unlink");
        let done = convert::name(name).map(|name| self.fs.unlink(convert::ino(parent), &name));
        answer::named(reply, done);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        tracing::trace!(%parent, ?name, "rmdir");
        let done = convert::name(name).map(|name| self.fs.rmdir(convert::ino(parent), &name));
        answer::named(reply, done);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        tracing::trace!(%parent, ?name, %newparent, ?newname, ?flags, "rename");
        let from = EntryName { parent, name };
        let to = EntryName { parent: newparent, name: newname };
        self.move_name(req, from, to, flags, reply);
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        tracing::trace!(%ino, %newparent, ?newname, "link");
        self.make_link(req, ino, newparent, newname, reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        tracing::trace!(%ino, ?flags, "open");
        match self.fs.open_handle(convert::ino(ino)) {
            Ok(handle) => {
                let opened_as = self.opened_as(Some(handle.ino()), flags);
                reply.opened(self.files.insert(handle, flags, opened_as), opened_as);
            }
            Err(error) => reply.error(errno_by_ino(&error)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        tracing::trace!(%parent, ?name, mode, "create");
        let node = Self::new_node(req, FileKind::Regular, mode, umask);
        self.make_open(req, parent, name, node, OpenFlags(flags), reply);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        tracing::trace!(%ino, offset, size, "read");
        let (ino, len) = (convert::ino(ino), to_usize(u64::from(size)));
        self.note_access(ino);
        let read =
            move |fs: &Kvfs, blocking: Blocking<'_>| fs.read_with(blocking, ino, offset, len);
        self.answer_read(req, reply, read);
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        tracing::trace!(%ino, offset, n_bytes = data.len(), "write");
        let at = FilePosition { ino: convert::ino(ino), offset };
        self.write_data(req, at, data, write_flags, reply);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Closing promises nothing; the kernel need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        tracing::trace!(%fh, "release");
        let written_past_cache = self.files.remove(fh);
        reply.ok();
        if let Some(ino) = written_past_cache {
            // What a reader that is gone by now left there may be older.
            let notices = Arc::clone(&self.notices);
            self.waiting.pages().submit_owed(move || notices.drop_pages(ino));
        }
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        tracing::trace!(%ino, "fsync");
        self.syncing.submit(reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        tracing::trace!(%ino, "fsyncdir");
        self.syncing.submit(reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        tracing::trace!(%ino, "opendir");
        reply.opened(self.listings.open(self.fs.listing_end()), FopenFlags::empty());
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.close(fh);
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        tracing::trace!(%ino, offset, "readdir");
        let places = self.listings.places(fh, offset, self.fs.listing_end());
        let listed = self.list(convert::ino(ino), places, |entry| {
            let number = convert::number(entry.ino);
            let kind = convert::listed_type(entry.attr.as_ref());
            Ok(reply.add(number, entry.cookie, kind, OsStr::from_bytes(&entry.name)))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        tracing::trace!(%ino, offset, "readdirplus");
        let places = self.listings.places(fh, offset, self.fs.listing_end());
        match self.list_known(convert::ino(ino), places, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.stat(reply);
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        tracing::trace!(%ino, ?name, "setxattr");
        self.set_xattr(req, convert::ino(ino), (name.as_bytes(), value), flags, reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        tracing::trace!(%ino, ?name, "getxattr");
        self.get_xattr(convert::ino(ino), name.as_bytes(), size, reply);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        tracing::trace!(%ino, "listxattr");
        self.list_xattrs(req, convert::ino(ino), size, reply);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        tracing::trace!(%ino, ?name, "removexattr");
        self.remove_xattr(req, convert::ino(ino), name.as_bytes(), reply);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        tracing::trace!(%ino, offset, length, mode, "fallocate");
        let range = ByteRange { offset, len: length };
        self.allocate(req, convert::ino(ino), range, mode, reply);
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        tracing::trace!(%ino, offset, whence, "lseek");
        self.seek(req, convert::ino(ino), offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        tracing::trace!(%ino_in, offset_in, %ino_out, offset_out, len, "copy_file_range");
        let from = FilePosition { ino: convert::ino(ino_in), offset: offset_in };
        let to = FilePosition { ino: convert::ino(ino_out), offset: offset_out };
        self.copy(req, from, to, len, reply);
    }
}
