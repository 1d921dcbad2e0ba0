//! What is in one tarball, for people.

use std::io::Write;

use tier_types::{FileKind, ObjectName, ObjectStore, to_u64};

use super::reader::TarballReader;
use super::scanner::scan;
use super::stream::{FrameSource, TarStream};
use super::{TocEntry, padding};
use crate::{Keys, PersistError};

/// Writes one line for each member: frame and offset, path, what it says.
pub fn list_members(
    store: &dyn ObjectStore,
    name: &ObjectName,
    keys: &Keys,
    out: &mut dyn Write,
) -> Result<(), PersistError> {
    let reader = TarballReader::open(store, name, keys)?;
    let mut lines = Vec::new();
    let identity = scan(reader.frames(), name.to_string(), &mut |_, entry| {
        lines.push(describe(&entry));
        Ok(())
    })?;
    let mut lines = lines.into_iter();
    let failed =
        |source| PersistError::Io { operation: "write", object: "the list".into(), source };
    writeln!(
        out,
        "tarball {} of filesystem {}, xids {}, chunks of {} bytes, {} frames",
        identity.id,
        identity.filesystem,
        identity.range,
        identity.chunk_bytes,
        reader.n_frames()
    )
    .map_err(failed)?;
    let mut stream = TarStream::new(reader.frames(), name.to_string());
    while let Some(member) = stream.next_member()? {
        let path = member.path.escape_ascii();
        let about = if member.records.get(super::pax::INO).is_some() {
            lines.next().unwrap_or_default()
        } else {
            String::new()
        };
        let place = format!("{}+{}", member.start.frame, member.start.offset);
        writeln!(out, "{place:>12} {:>10} {path}{about}", member.content_bytes).map_err(failed)?;
        stream.skip(member.content_bytes + to_u64(padding(member.content_bytes)))?;
    }
    Ok(())
}

/// Writes the plain tar stream.
pub fn write_tar(
    store: &dyn ObjectStore,
    name: &ObjectName,
    keys: &Keys,
    out: &mut dyn Write,
) -> Result<(), PersistError> {
    let reader = TarballReader::open(store, name, keys)?;
    let mut frames = reader.frames();
    while let Some((_, frame)) = frames.next_frame()? {
        out.write_all(&frame).map_err(|source| PersistError::Io {
            operation: "write",
            object: "the tar stream".into(),
            source,
        })?;
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
        let kind = super::member::type_name(&attr.kind);
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
    about
}
