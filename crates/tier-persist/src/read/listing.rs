//! The listing of one tarball, for people: its members line by line, or the plain tar stream.

use std::io::{self, Write};

use tier_types::{FileKind, ObjectName, ObjectStore, to_u64, to_usize};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::header::type_name;
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::pax;
use crate::format::tarball::toc::entry::TocEntry;
use crate::read::scanner::{ScanVisitor, scan};
use crate::read::tarball_reader::TarballReader;

/// Writes one line for each member: frame and offset, path, what it says.
pub fn list_members(
    store: &dyn ObjectStore,
    name: &ObjectName,
    keys: &Keys,
    out: &mut dyn Write,
) -> Result<(), PersistError> {
    // By what it says itself: an object can be listed without its manifest.
    let reader = TarballReader::open(store, name, keys)?;
    // All in memory: a tarball is full at 100,000 members, unless a caller sets another limit.
    let mut entries = Entries::default();
    if let Some(identity) = scan(&reader, None, &mut entries)? {
        let TarballIdentity { filesystem, id, range, chunk_bytes, .. } = identity;
        let n_frames = reader.n_frames();
        writeln!(
            out,
            "tarball {id} of filesystem {filesystem}, xids {range}, chunks of {chunk_bytes} \
             bytes, {n_frames} frames"
        )
        .map_err(failed_to_write("the list"))?;
    }
    // The scan says what members are about, and this loop where they are. Content that goes on from
    // the frame before is skipped.
    let mut lines = entries.0.into_iter();
    let mut beyond = 0;
    for number in 0..reader.n_frames() {
        let frame = reader.frame(number)?;
        // A frame may be nothing but content.
        let content = to_usize(beyond).min(frame.len());
        beyond -= to_u64(content);
        let mut blocks = Blocks::new(&frame, content);
        let damaged = |problem| PersistError::damaged(name, problem);
        while let Some(member) = blocks.next_member().map_err(damaged)? {
            // A name may hold any byte, also those that a terminal acts on.
            let path = member.path.escape_ascii();
            let about = if member.records.get(pax::INO).is_some() {
                // The same members as the scan went through, unless the object was exchanged.
                lines.next().ok_or_else(|| damaged("it changed while it was read"))?
            } else {
                String::new()
            };
            let position = format!("{number}+{}", member.start);
            let content_bytes = member.content_bytes;
            writeln!(out, "{position:>12} {content_bytes:>10} {path}{about}")
                .map_err(failed_to_write("the list"))?;
            beyond = member.bytes_beyond(frame.len());
        }
    }
    Ok(())
}

fn failed_to_write(object: &'static str) -> impl Fn(io::Error) -> PersistError {
    move |source| PersistError::Io { operation: "write", object: object.into(), source }
}

/// What the members say, as text.
#[derive(Default)]
struct Entries(Vec<String>);

/// Damage ends the listing: what follows it would be listed at wrong positions.
impl ScanVisitor for Entries {
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError> {
        self.0.push(describe(&entry));
        Ok(())
    }

    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError> {
        Err(damage)
    }
}

/// Writes the plain tar stream.
pub fn write_tar(
    store: &dyn ObjectStore,
    name: &ObjectName,
    keys: &Keys,
    out: &mut dyn Write,
) -> Result<(), PersistError> {
    let reader = TarballReader::open(store, name, keys)?;
    // The seek table is none of these frames: the stream ends where tar ends it.
    for number in 0..reader.n_frames() {
        out.write_all(&reader.frame(number)?).map_err(failed_to_write("the tar stream"))?;
    }
    Ok(())
}

fn describe(entry: &TocEntry) -> String {
    let mut about = format!("  ino {}", entry.ino);
    if let Some(xid) = entry.gone {
        about.push_str(&format!(" gone@{xid}"));
    }
    if let Some(inode) = &entry.metadata {
        let attr = &inode.attr;
        let kind = type_name(&attr.kind);
        about.push_str(&format!(
            " {kind} {:04o} size={} xid={}",
            attr.mode, attr.size_bytes, attr.xid
        ));
        if let FileKind::Symlink(target) = &attr.kind {
            about.push_str(&format!(" -> {}", target.escape_ascii()));
        }
    }
    for piece in &entry.data {
        about.push_str(&format!(" data {}@{}", piece.run.chunks, piece.run.data_xid));
    }
    for hole in &entry.holes {
        about.push_str(&format!(" hole {}@{}", hole.chunks, hole.data_xid));
    }
    for lost in &entry.lost {
        about.push_str(&format!(" lost {}@{}", lost.chunks, lost.data_xid));
    }
    about
}
