//! The import of one name that is not of a directory.
//!
//! It is looked up in the store first. If it is imported, or is a name of a file that is, there is
//! nothing to do. Else the file is made under its staged name, or linked there, and published under
//! its own. The slot of a file with several names is held from the look-up until the file has a
//! number, so that no other worker makes the same file from another of its names.

use std::fs::{File, Metadata};
use std::path::Path;

use anyhow::Result;
use kvfs::FsError;
use kvfs::ops::{NewFile, NewNode};
use tier_types::{ByteRange, FileAttr, FileName, Ino, to_u64};

use super::Import;
use super::attributes::{look_at, node, times};
use super::content::first_piece;
use super::links::LinkSlot;
use super::resume::{StagedName, is_imported};
use crate::transfer::xattrs;

/// A name of the host, and where its copy goes.
pub(super) struct Source<'a> {
    /// On the host.
    pub(super) path: &'a Path,
    /// In the store.
    pub(super) dir: Ino,
    pub(super) name: &'a FileName,
}

impl Import<'_> {
    pub(super) fn file(&self, source: &Source<'_>, buffer: &mut [u8]) -> Result<()> {
        let Source { path, dir, name } = *source;
        // Looked at once: what changes from here on differs in time, and the next import finds it.
        let metadata = look_at(path)?;
        let before = match self.fs.lookup(dir, name) {
            Err(FsError::NotFound) => None,
            found => Some(found?),
        };
        let node = node(path, &metadata)?;
        // Held from here until the file has a number, so that no other of its names makes it twice.
        let mut slot = self.links.slot(&metadata);
        let imported = before.as_ref().filter(|before| match slot.first() {
            // Of a file with several names the number decides: attributes may be equal by accident.
            Some(first) => before.ino == first,
            None => is_imported(before, &node, &metadata),
        });
        if let Some(imported) = imported {
            tracing::debug!(path = %path.display(), ino = %imported.ino, "imported before");
            // In an import that goes on, this is how the other names learn of the file.
            slot.fill(imported.ino);
            return self.done(dir, name, 0);
        }
        let mut staged = StagedName::new(self.fs, dir, name, before)?;
        let bytes = match slot.first() {
            Some(first) => {
                tracing::debug!(path = %path.display(), ino = %first, "another name of a file");
                self.in_room(|| self.fs.link(first, dir, staged.name()))?;
                0
            }
            None => self.make(source, &staged, New { node, metadata: &metadata, slot }, buffer)?,
        };
        // Behind content and times: where another file has the name, a stop before this leaves that
        // file as it was.
        self.in_room(|| staged.publish())?;
        self.done(dir, name, bytes)
    }

    /// Makes a file under its staged name, and returns the bytes of its content.
    fn make(
        &self,
        source: &Source<'_>,
        staged: &StagedName<'_>,
        new: New<'_>,
        buffer: &mut [u8],
    ) -> Result<u64> {
        let New { node, metadata, mut slot } = new;
        // Opened before anything is made in the store: what cannot be read leaves nothing there.
        let file = metadata.is_file().then(|| File::open(source.path)).transpose()?;
        let content = match &file {
            Some(file) => first_piece(file, metadata.len(), buffer)?,
            None => Vec::new(),
        };
        let copied = to_u64(content.len());
        assert!(copied <= metadata.len(), "the first piece ends with the file");
        let times = times(metadata)?;
        // All attributes go in with the first transaction, so that a small file needs no other.
        let xattrs = xattrs::read(source.path)?;
        let new =
            NewFile { node, accessed: times.accessed, modified: times.modified, xattrs, content };
        let create = || self.fs.create_file(source.dir, staged.name(), &new);
        let FileAttr { ino, .. } = self.in_room(create)?;
        tracing::debug!(path = %source.path.display(), %ino, bytes = metadata.len(), "importing");
        // It has a number: workers that met its other names go on.
        slot.fill(ino);
        drop(slot);
        let Some(file) = file else { return Ok(0) };
        // Each write has set the time to now, so that the host's time is put back at the end.
        if copied < metadata.len() {
            self.rest(&file, ino, ByteRange::between(copied, metadata.len()), buffer)?;
            self.attributes(source.path, ino, metadata)?;
        }
        Ok(metadata.len())
    }
}

/// A file to be made.
struct New<'a> {
    node: NewNode,
    metadata: &'a Metadata,
    slot: LinkSlot<'a>,
}
