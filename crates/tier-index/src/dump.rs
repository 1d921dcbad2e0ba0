//! The canonical text form: equal indexes have equal dumps.

use std::io::{self, Write};

use tier_types::{ChunkNo, Ino};

use crate::store::{Store, Table};
use crate::{Extent, Index, IndexError, InodePlace, Place, key, wire};

impl Index {
    /// Writes everything in the index as lines of text, sorted, with maximal extents.
    pub fn dump(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        let store = self.store();
        self.dump_head(&store, out)?;
        let mut extents = store.scan(Table::Extents, &[], None)?.peekable();
        let mut pending = None;
        for pair in store.scan(Table::Inodes, &[], None)? {
            let (key, value) = pair?;
            let damaged = || store.damaged("an inode's entry cannot be read");
            let ino = key::parse_inode(&key).ok_or_else(damaged)?;
            let (inode, whole) = wire::inode_from_bytes(ino, &value).ok_or_else(damaged)?;
            let until = key::extent(ino, ChunkNo::new(0));
            while let Some(pair) = extents.next_if(|p| !matches!(p, Ok((k, _)) if **k >= until[..]))
            {
                let (key, value) = pair?;
                self.dump_extent(out, &mut pending, store.parse_extent((&key, &value))?)?;
            }
            write_pending(out, &mut pending).map_err(IndexError::Dump)?;
            write_inode(out, ino, &inode).map_err(IndexError::Dump)?;
            pending = whole;
        }
        for pair in extents {
            let (key, value) = pair?;
            self.dump_extent(out, &mut pending, store.parse_extent((&key, &value))?)?;
        }
        write_pending(out, &mut pending).map_err(IndexError::Dump)
    }

    fn dump_head(&self, store: &Store, out: &mut dyn Write) -> Result<(), IndexError> {
        writeln!(out, "tier-index 1 chunk={}", self.chunk_bytes()).map_err(IndexError::Dump)?;
        for (id, live_chunks) in store.tarballs()? {
            writeln!(out, "tarball {id} live={live_chunks}").map_err(IndexError::Dump)?;
        }
        Ok(())
    }

    fn dump_extent(
        &self,
        out: &mut dyn Write,
        pending: &mut Option<Extent>,
        next: Extent,
    ) -> Result<(), IndexError> {
        let joined = pending.as_ref().and_then(|last| last.joined(&next, self.chunk_bytes()));
        if joined.is_none() {
            write_pending(out, pending).map_err(IndexError::Dump)?;
        }
        *pending = Some(joined.unwrap_or(next));
        Ok(())
    }
}

fn write_inode(out: &mut dyn Write, ino: Ino, inode: &InodePlace) -> io::Result<()> {
    match inode {
        InodePlace::At { xid, place } => {
            write!(out, "inode {ino} xid={xid}")?;
            write_place(out, place)
        }
        InodePlace::Gone { xid } => writeln!(out, "gone {ino} xid={xid}"),
    }
}

fn write_pending(out: &mut dyn Write, pending: &mut Option<Extent>) -> io::Result<()> {
    let Some(extent) = pending.take() else { return Ok(()) };
    let Extent { ino, chunks, data_xid, place, short_bytes } = extent;
    match place {
        None => writeln!(out, "hole {ino} {chunks} xid={data_xid}"),
        Some(place) => {
            write!(out, "data {ino} {chunks} xid={data_xid}")?;
            if short_bytes > 0 {
                write!(out, " short={short_bytes}")?;
            }
            write_place(out, &place)
        }
    }
}

fn write_place(out: &mut dyn Write, place: &Place) -> io::Result<()> {
    writeln!(out, " at={} frame={} offset={}", place.tarball, place.frame, place.offset)
}
