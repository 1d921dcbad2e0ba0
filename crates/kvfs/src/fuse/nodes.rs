//! Requests about names and attributes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{
    Errno, FopenFlags, INodeNo, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, Request,
};
use tier_types::{FileKind, Ino};

use super::adapter::Adapter;
use super::answer;
use super::convert::{self, EntryName, errno};
use crate::ops::{
    Blocking, Caller, DirEntry, EntryRef, ListingPlaces, NewNode, RenameMode, SetAttr,
};
use crate::{FsError, Kvfs};

/// Entries that are read from a directory at a time: about as many as the kernel asks for.
const N_ENTRIES: usize = 32;

impl Adapter {
    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = convert::ino(parent);
        // What a file handle names, which a process may have from before a restart.
        match name.as_bytes() {
            b"." => return answer::entry_by_ino(reply, &self.fs, self.fs.know_by_number(parent)),
            b".." => return answer::entry_by_ino(reply, &self.fs, self.fs.know_parent(parent)),
            _ => {}
        }
        let name = match convert::name(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        match self.fs.look_up_known(parent, &name) {
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
        node: NewNode,
        reply: ReplyEntry,
    ) {
        let name = match convert::name(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        let parent = convert::ino(parent);
        let make = move |fs: &Kvfs| fs.create_known(parent, &name, &node);
        let fs = Arc::clone(&self.fs);
        self.answer_growth(req, reply, make, move |reply, made| answer::entry(reply, &fs, made));
    }

    /// What a caller wants to be made.
    pub(super) fn new_node(req: &Request, kind: FileKind, mode: u32, umask: u32) -> NewNode {
        NewNode {
            kind,
            mode: convert::mode(mode),
            uid: req.uid(),
            gid: req.gid(),
            inherit: Some(convert::mode(umask)),
        }
    }

    pub(super) fn make_open(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        node: NewNode,
        flags: OpenFlags,
        reply: ReplyCreate,
    ) {
        let name = match convert::name(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        let parent = convert::ino(parent);
        let make = move |fs: &Kvfs| fs.create_open(parent, &name, &node);
        let (fs, files) = (Arc::clone(&self.fs), Arc::clone(&self.files));
        let opened_as = self.opened_as(None, flags);
        self.answer_growth(req, reply, make, move |reply, made| {
            match made.and_then(|(attr, file)| Ok((answer::known_attr(&fs, &attr)?, file))) {
                Ok((attr, file)) => {
                    let number = files.insert(file, flags, opened_as);
                    reply.created(&answer::REMEMBER, &attr, answer::GENERATION, number, opened_as);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    /// How the kernel is to treat an open file. Where room is short, what is written goes past its
    /// cache: so a write fails itself that finds no room, and not a later close.
    pub(super) fn opened_as(&self, ino: Option<Ino>, flags: OpenFlags) -> FopenFlags {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        if writes && self.maps_direct && self.fs.room.is_critical() {
            FopenFlags::FOPEN_DIRECT_IO
        } else if ino.is_some_and(|ino| self.files.has_direct_writer(ino)) {
            // The pages that the kernel has may be older than what is written past them.
            FopenFlags::empty()
        } else {
            FopenFlags::FOPEN_KEEP_CACHE
        }
    }

    pub(super) fn move_name(
        &self,
        req: &Request,
        from: EntryName<'_>,
        to: EntryName<'_>,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let leaves_whiteout = flags.contains(RenameFlags::RENAME_WHITEOUT);
        let mode = match flags.difference(RenameFlags::RENAME_WHITEOUT) {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE if !leaves_whiteout => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let owner = Caller { uid: req.uid(), gid: req.gid() };
        let whiteout = leaves_whiteout.then_some(owner);
        let (name, new_name) = match (convert::name(from.name), convert::name(to.name)) {
            (Ok(name), Ok(new_name)) => (name, new_name),
            (Err(error), _) | (_, Err(error)) => return reply.error(error),
        };
        let (parent, new_parent) = (convert::ino(from.parent), convert::ino(to.parent));
        let rename = move |fs: &Kvfs| {
            let from = EntryRef::new(parent, &name);
            fs.rename_leaving(from, EntryRef::new(new_parent, &new_name), mode, whiteout)
        };
        self.answer_growth(req, reply, rename, |reply, done| answer::named(reply, Ok(done)));
    }

    pub(super) fn make_link(
        &self,
        req: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = match convert::name(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        let (ino, parent) = (convert::ino(ino), convert::ino(parent));
        let link = move |fs: &Kvfs| fs.link_known(ino, parent, &name);
        let fs = Arc::clone(&self.fs);
        self.answer_growth(req, reply, link, move |reply, linked| {
            answer::entry(reply, &fs, linked);
        });
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
                None => {
                    blocking.claim()?;
                    fs.setattr(ino, &set)?
                }
            };
            answer::kernel_attr(fs, &attr)
        };
        self.answer(req, reply, operation, answer::attr);
    }

    pub(super) fn note_access(&self, ino: Ino) {
        if self.access_times {
            // What was read was read, whether or not that can be noted.
            let _ = self.fs.note_access(ino);
        }
    }

    /// The entries between two places, until `add` says that there is no more room.
    pub(super) fn list(
        &self,
        ino: Ino,
        mut places: ListingPlaces,
        mut add: impl FnMut(&DirEntry) -> Result<bool, FsError>,
    ) -> Result<(), FsError> {
        self.note_access(ino);
        loop {
            let entries = self.fs.readdir_between(ino, places, N_ENTRIES)?;
            for entry in &entries {
                if add(entry)? {
                    return Ok(());
                }
                places.after = entry.cookie;
            }
            if entries.len() < N_ENTRIES {
                return Ok(());
            }
        }
    }

    /// The same for a kernel that knows the inodes of the entries that it gets, and of no other.
    pub(super) fn list_known(
        &self,
        ino: Ino,
        mut places: ListingPlaces,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<(), FsError> {
        self.note_access(ino);
        let mut is_empty = true;
        loop {
            let entries = match self.fs.readdir_known(ino, places, N_ENTRIES) {
                // It comes again, when the kernel asks for what follows.
                Err(_) if !is_empty => return Ok(()),
                entries => entries?,
            };
            let is_end = entries.len() < N_ENTRIES;
            let mut is_full = false;
            for entry in entries {
                is_full = is_full || answer::listed(reply, &self.fs, &entry);
                if is_full {
                    answer::forget_listed(&self.fs, &entry);
                } else {
                    places.after = entry.cookie;
                    is_empty = false;
                }
            }
            if is_full || is_end {
                return Ok(());
            }
        }
    }
}
