//! The kernel's requests to the disk.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::blocks::BLOCK_BYTES;
use super::file::SyncedFile;
use super::nodes::{Content, Entry, Names, Nodes};

/// Everything goes through the kernel, which may remember all.
const REMEMBER: Duration = Duration::from_hours(1);
const GENERATION: Generation = Generation(0);
/// Modes of `fallocate`, as the kernel has them.
const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;

/// The disk as the library wants it.
pub(super) struct Disk(pub(super) Arc<Mutex<Nodes>>);

fn entry(reply: ReplyEntry, attr: Result<FileAttr, Errno>) {
    match attr {
        Ok(attr) => reply.entry(&REMEMBER, &attr, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.0.lock().find(Entry { directory: parent, name }));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, n_lookups: u64) {
        self.0.lock().forget(ino, n_lookups);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.lock().attr(ino) {
            Ok(attr) => reply.attr(&REMEMBER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut nodes = self.0.lock();
        let sized = size.map_or(Ok(()), |size| nodes.resize(ino, size));
        if let (Some(mode), Ok(node)) = (mode, nodes.node(ino)) {
            node.mode = u16::try_from(mode & 0o7777).unwrap_or_default();
        }
        match sized.and_then(|()| nodes.attr(ino)) {
            Ok(attr) => reply.attr(&REMEMBER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let content = match mode & 0o170_000 {
            0o140_000 => Content::Other(FileType::Socket),
            0o010_000 => Content::Other(FileType::NamedPipe),
            _ => Content::File(SyncedFile::default()),
        };
        entry(reply, self.0.lock().make(Entry { directory: parent, name }, content, mode));
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let content = Content::directory(Names::new());
        entry(reply, self.0.lock().make(Entry { directory: parent, name }, content, mode));
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let content = Content::File(SyncedFile::default());
        match self.0.lock().make(Entry { directory: parent, name }, content, mode) {
            Ok(attr) => {
                reply.created(&REMEMBER, &attr, GENERATION, FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    /// The kernel keeps what it has of a file, as it does of a file on a disk.
    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.lock().remove(Entry { directory: parent, name }));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.0.lock().remove(Entry { directory: parent, name }));
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        entry(reply, self.0.lock().link(ino, Entry { directory: newparent, name: newname }));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) =
            (Entry { directory: parent, name }, Entry { directory: newparent, name: newname });
        empty(reply, self.0.lock().rename(from, to, flags));
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().file(ino) {
            Ok(file) => reply.data(&file.now().read(offset..offset.saturating_add(size.into()))),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.lock().write(ino, offset, data) {
            Ok(n_bytes) => reply.written(n_bytes),
            Err(error) => reply.error(error),
        }
    }

    /// Punches holes, or gives blocks out beforehand.
    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let bytes = offset..offset.saturating_add(length);
        let done = match mode {
            0 => self.0.lock().allocate(ino, bytes, true),
            KEEP_SIZE => self.0.lock().allocate(ino, bytes, false),
            mode if mode == PUNCH_HOLE | KEEP_SIZE => self.0.lock().punch(ino, bytes),
            _ => Err(Errno::EOPNOTSUPP),
        };
        empty(reply, done);
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.lock().sync(ino));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.0.lock().sync(ino));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut nodes = self.0.lock();
        // By number, which is the place: a listing goes on where it was, whatever names come and
        // go.
        let mut names: Vec<_> = match nodes.names(ino) {
            Ok(names) => names.iter().map(|(name, number)| (*number, name.clone())).collect(),
            Err(error) => return reply.error(error),
        };
        names.sort();
        for (number, name) in names.iter().filter(|(number, _)| *number > offset) {
            let kind = nodes.attr(INodeNo(*number)).map_or(FileType::RegularFile, |a| a.kind);
            if reply.add(INodeNo(*number), *number, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let nodes = self.0.lock();
        let (n_blocks, n_free) = (nodes.faults.n_blocks(), nodes.n_free_blocks());
        let block_bytes = u32::try_from(BLOCK_BYTES).unwrap();
        reply.statfs(n_blocks, n_free, n_free, 1000, 1000, block_bytes, 255, block_bytes);
    }
}
