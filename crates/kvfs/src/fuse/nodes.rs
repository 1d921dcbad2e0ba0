//! Requests about names and attributes.

use std::ffi::OsStr;

use fuser::{Errno, FileHandle, INodeNo, OpenFlags, RenameFlags, ReplyAttr, ReplyEntry, Request};
use tier_types::{FileAttr, FileKind, Ino};

use super::adapter::Adapter;
use super::answer;
use super::convert::{self, errno, errno_by_ino};
use crate::ops::{Blocking, DirEntry, EntryRef, NewNode, RenameMode, SetAttr};
use crate::{FsError, Kvfs};

/// Entries that are read from a directory at a time: about as many as the kernel asks for.
const N_ENTRIES: usize = 32;

impl Adapter {
    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = match convert::name(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        match self.fs.lookup(convert::ino(parent), &name) {
            // Number 0: there is no such name, and the kernel may remember that.
            Err(FsError::NotFound) => {
                reply.entry(&answer::REMEMBER, &convert::no_inode(), answer::GENERATION);
            }
            found => answer::entry(reply, &self.fs, found),
        }
    }

    pub(super) fn make(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        kind: FileKind,
        mode: u32,
        umask: u32,
    ) -> Result<FileAttr, Errno> {
        let name = convert::name(name)?;
        let node = NewNode {
            kind,
            mode: convert::mode(mode),
            uid: req.uid(),
            gid: req.gid(),
            inherit: Some(convert::mode(umask)),
        };
        let made = self.fs.create_node(convert::ino(parent), &name, &node);
        made.map_err(|error| errno(&error))
    }

    pub(super) fn made(&self, reply: ReplyEntry, made: Result<FileAttr, Errno>) {
        match made {
            Ok(attr) => answer::entry(reply, &self.fs, Ok(attr)),
            Err(error) => reply.error(error),
        }
    }

    pub(super) fn make_open(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: OpenFlags,
    ) -> Result<(fuser::FileAttr, FileHandle), Errno> {
        let attr = self.make(req, parent, name, FileKind::Regular, mode, umask)?;
        // Another caller may remove it between the two: then the answer is that it is gone.
        let file = self.fs.open_handle(attr.ino);
        let opened = file.and_then(|file| Ok((answer::kernel_attr(&self.fs, &attr)?, file)));
        let (attr, file) = opened.map_err(|error| errno_by_ino(&error))?;
        Ok((attr, self.files.insert(file, flags)))
    }

    pub(super) fn move_name(
        &self,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
    ) -> Result<Result<(), FsError>, Errno> {
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let (name, newname) = (convert::name(name)?, convert::name(newname)?);
        let from = EntryRef::new(convert::ino(parent), &name);
        let to = EntryRef::new(convert::ino(newparent), &newname);
        Ok(self.fs.rename(from, to, mode))
    }

    pub(super) fn set_attributes(
        &self,
        req: &Request,
        ino: Ino,
        size: Option<u64>,
        set: SetAttr,
        reply: ReplyAttr,
    ) {
        let operation = move |fs: &Kvfs, blocking: Blocking<'_>| {
            let attr = match size {
                Some(size) => {
                    fs.truncate_with(blocking, ino, size, &set)?;
                    fs.getattr(ino)?
                }
                None if set == SetAttr::default() => fs.getattr(ino)?,
                None => fs.setattr(ino, &set)?,
            };
            answer::kernel_attr(fs, &attr)
        };
        self.answer(req, reply, operation, answer::attr);
    }

    pub(super) fn note_access(&self, ino: Ino) {
        if !self.read_only {
            // What was read was read, whether or not that can be noted.
            let _ = self.fs.note_access(ino);
        }
    }

    /// The entries after a cookie, until `add` says that there is no more room.
    pub(super) fn list(
        &self,
        ino: Ino,
        mut after: u64,
        mut add: impl FnMut(&DirEntry) -> Result<bool, FsError>,
    ) -> Result<(), FsError> {
        self.note_access(ino);
        loop {
            let entries = self.fs.readdir(ino, after, N_ENTRIES)?;
            for entry in &entries {
                if add(entry)? {
                    return Ok(());
                }
                after = entry.cookie;
            }
            if entries.len() < N_ENTRIES {
                return Ok(());
            }
        }
    }
}
