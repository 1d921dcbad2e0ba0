//! The canonical text form of an index: equal indexes have equal dumps, byte for byte.
//!
//! It is what tests and `tier index check` compare. Two indexes that answer every question alike
//! may differ in their rows, because extents are cut as they happen to be applied and may lie
//! inline; in a dump extents are joined as far as they go, and nothing tells where one lay. Rows
//! are read in one pass over two tables, of which each is in order of inode numbers.

use std::io::{self, Write};

use tier_types::Ino;

use crate::database::Database;
use crate::record::{InodeRange, InodeRecord, visit_records};
use crate::{Extent, ExtentContent, Index, IndexError, InodeLocation, Location, StoredData};

impl Index {
    /// Writes everything in the index as lines of text, sorted, with maximal extents.
    pub fn dump(&self, out: &mut dyn Write) -> Result<(), IndexError> {
        let database = self.database();
        self.dump_head(&database, out)?;
        let mut pending = None;
        visit_records(&database, InodeRange::ALL, &mut |record: &InodeRecord| {
            if let Some(newest) = &record.newest {
                write_pending(out, &mut pending).map_err(IndexError::Dump)?;
                write_inode(out, record.ino, newest).map_err(IndexError::Dump)?;
            }
            record
                .extents
                .iter()
                .try_for_each(|extent| self.dump_extent(out, &mut pending, *extent))
        })?;
        write_pending(out, &mut pending).map_err(IndexError::Dump)
    }

    fn dump_head(&self, database: &Database, out: &mut dyn Write) -> Result<(), IndexError> {
        writeln!(out, "tier-index 1 chunk={}", self.chunk_bytes()).map_err(IndexError::Dump)?;
        for (id, live_chunks) in database.tarballs()? {
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

fn write_inode(out: &mut dyn Write, ino: Ino, inode: &InodeLocation) -> io::Result<()> {
    match inode {
        InodeLocation::At { xid, location } => {
            write!(out, "inode {ino} xid={xid}")?;
            write_location(out, location)
        }
        InodeLocation::Gone { xid } => writeln!(out, "gone {ino} xid={xid}"),
    }
}

fn write_pending(out: &mut dyn Write, pending: &mut Option<Extent>) -> io::Result<()> {
    let Some(extent) = pending.take() else { return Ok(()) };
    let Extent { ino, chunks, data_xid, content } = extent;
    match content {
        ExtentContent::Hole => writeln!(out, "hole {ino} {chunks} xid={data_xid}"),
        ExtentContent::Lost => writeln!(out, "lost {ino} {chunks} xid={data_xid}"),
        ExtentContent::Data(StoredData { location, short_bytes }) => {
            write!(out, "data {ino} {chunks} xid={data_xid}")?;
            if short_bytes > 0 {
                write!(out, " short={short_bytes}")?;
            }
            write_location(out, &location)
        }
    }
}

fn write_location(out: &mut dyn Write, location: &Location) -> io::Result<()> {
    let Location { tarball, frame, offset } = location;
    writeln!(out, " at={tarball} frame={frame} offset={offset}")
}
