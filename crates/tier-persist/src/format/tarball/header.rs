//! The header blocks of a member: an extended header with records, then a ustar header.
//!
//! The ustar header is for stock tar and holds what fits into it; a record overrides what does not,
//! as the pax standard has it. Everything that this software reads back is in records, but for the
//! mode and small owner numbers.

use tar::{EntryType, Header};
use tier_types::{FileAttr, FileKind, InodeState, to_u64};

use crate::format::tarball::layout::padding;
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::member::{Member, Run};
use crate::format::tarball::pax::{self, PaxWriter};

impl Member {
    /// Appends the header blocks, up to where the data of the first run starts. `mark` is for the
    /// first member of a frame.
    pub(crate) fn append_header(
        &self,
        chunk_bytes: u32,
        mark: Option<&FrameMark>,
        out: &mut Vec<u8>,
    ) {
        let map = self.sparse_map(chunk_bytes);
        let mut pax = PaxWriter::default();
        let path = self.path();
        let attr = self.metadata.as_ref().map(|inode| &inode.attr);
        let whole = attr.filter(|_| self.whole_path.is_some());
        put_path(&mut pax, &path, whole);
        // Among the first records, so that a scan need not read far to see whose frame this is.
        if let Some(mark) = mark {
            mark.put(&mut pax);
        }
        pax.number(pax::INO, self.ino.get());
        if let Some(gone) = self.gone {
            pax.number(pax::GONE, gone.get());
        }
        if let Some(inode) = &self.metadata {
            put_metadata(&mut pax, inode);
        }
        put_runs(&mut pax, pax::DATA, &self.data);
        put_runs(&mut pax, pax::HOLES, &self.holes);
        put_runs(&mut pax, pax::LOST, &self.lost);
        // Stock tar makes a sparse file of it again, and takes the data's length from the map.
        if let (Some(map), Some(attr)) = (&map, attr) {
            pax.number(pax::MAP_BYTES, to_u64(map.len()));
            pax.add(b"GNU.sparse.major", b"1");
            pax.add(b"GNU.sparse.minor", b"0");
            pax.add(b"GNU.sparse.name", &path);
            pax.number("GNU.sparse.realsize", attr.size_bytes);
        }
        let map = map.unwrap_or_default();
        let mut header = new_header(&path, self.data_bytes + to_u64(map.len()));
        if let Some(attr) = attr {
            put_attributes(&mut header, attr, whole.is_some());
        }
        append_with_pax(pax, &mut header, out);
        out.extend(map);
    }

    /// Appends a member for another name of a whole inode, so that stock tar makes a hard link. It
    /// is about no inode: this software takes the names from the inode's own member.
    pub(crate) fn append_link(
        &self,
        other_path: &[u8],
        mark: Option<&FrameMark>,
        out: &mut Vec<u8>,
    ) {
        let target = self.path();
        let mut pax = PaxWriter::default();
        put_path(&mut pax, other_path, None);
        if let Some(mark) = mark {
            mark.put(&mut pax);
        }
        pax.add(b"linkpath", &target);
        let mut header = new_header(other_path, 0);
        header.set_entry_type(EntryType::Link);
        put_link_name(&mut header, &target);
        append_with_pax(pax, &mut header, out);
    }

    /// The map that starts the data of a sparse file in GNU tar's format 1.0, padded to a block;
    /// none for a member that has no hole before its end.
    fn sparse_map(&self, chunk_bytes: u32) -> Option<Vec<u8>> {
        let attr = self.metadata.as_ref().map(|inode| &inode.attr)?;
        // A part of a file lies under `.tier/`, where no program looks for its holes.
        self.whole_path.as_ref()?;
        let size = attr.size_bytes;
        // As much data as the file is long leaves no room for a hole.
        if !matches!(attr.kind, FileKind::Regular) || self.data_bytes == size {
            return None;
        }
        let mut entries: Vec<(u64, u64)> = Vec::new();
        for run in &self.data {
            let offset = run.chunks.offset_bytes(chunk_bytes);
            let len = run.chunks.len_bytes(chunk_bytes, size);
            // Runs of different transactions may be neighbours, and are one piece of data to tar.
            match entries.last_mut() {
                Some((start, n)) if *start + *n == offset => *n += len,
                _ => entries.push((offset, len)),
            }
        }
        // A file that ends with a hole has its length as an empty piece.
        if entries.last().is_none_or(|(offset, len)| offset + len < size) {
            entries.push((size, 0));
        }
        let mut map = format!("{}\n", entries.len()).into_bytes();
        for (offset, len) in entries {
            map.extend(format!("{offset}\n{len}\n").bytes());
        }
        map.resize(map.len() + padding(to_u64(map.len())), 0);
        Some(map)
    }
}

/// Appends header blocks of a plain file of the format's own, such as a table of contents.
pub(crate) fn append_plain_header(
    path: &[u8],
    pax: PaxWriter,
    content_bytes: u64,
    out: &mut Vec<u8>,
) {
    append_with_pax(pax, &mut new_header(path, content_bytes), out);
}

/// A header that has no checksum yet.
fn new_header(path: &[u8], content_bytes: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    let old = header.as_old_mut();
    // What stock tar makes of members that are no inode: for the owner's eyes only.
    octal(&mut old.mode, 0o600);
    octal(&mut old.uid, 0);
    octal(&mut old.gid, 0);
    octal(&mut old.mtime, 0);
    octal(&mut old.size, content_bytes);
    fill(&mut old.name, path);
    header
}

/// A number in octal digits, as many as the field has but for the NUL at its end. Sizes fit,
/// because members do; what may not is cut by the caller, and a pax record has it.
fn octal(field: &mut [u8], mut number: u64) {
    let n_digits = field.len() - 1;
    for digit in field.iter_mut().take(n_digits).rev() {
        let [low, ..] = number.to_le_bytes();
        *digit = b'0' + (low & 7);
        number >>= 3;
    }
    assert_eq!(number, 0, "the number fits into its field");
}

/// The sum of all bytes, those of the checksum itself taken as spaces.
fn set_checksum(header: &mut Header) {
    header.as_old_mut().cksum = *b"        ";
    let sum: u32 = header.as_bytes().iter().map(|&byte| u32::from(byte)).sum();
    let (digits, end) = header.as_old_mut().cksum.split_at_mut(7);
    octal(digits, u64::from(sum));
    end.copy_from_slice(b" ");
}

/// As many bytes as fit; a pax record has the rest.
fn fill(field: &mut [u8], bytes: &[u8]) {
    for (slot, byte) in field.iter_mut().zip(bytes) {
        *slot = *byte;
    }
}

fn put_link_name(header: &mut Header, target: &[u8]) {
    fill(&mut header.as_old_mut().linkname, target);
}

/// The largest number of a 7-digit octal field; a pax record has the true one.
const OCTAL_MAX: u32 = 0o777_7777;

fn put_attributes(header: &mut Header, attr: &FileAttr, whole: bool) {
    let old = header.as_old_mut();
    octal(&mut old.mode, u64::from(attr.mode));
    octal(&mut old.uid, u64::from(attr.uid.min(OCTAL_MAX)));
    octal(&mut old.gid, u64::from(attr.gid.min(OCTAL_MAX)));
    // The field has no sign; the record of the time has one.
    let modified = attr.modified.seconds.max(0).unsigned_abs();
    octal(&mut old.mtime, modified.min(0o777_7777_7777));
    // Metadata under `.tier/` is a plain file to stock tar, whatever the inode is.
    if whole {
        put_kind(header, &attr.kind);
    }
}

fn put_kind(header: &mut Header, kind: &FileKind) {
    let device = match kind {
        // Tar has no sockets: a socket has no path of its own here, and so never comes this far.
        FileKind::Regular | FileKind::Socket => None,
        FileKind::Directory => {
            header.set_entry_type(EntryType::Directory);
            None
        }
        FileKind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            put_link_name(header, target);
            None
        }
        FileKind::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            None
        }
        FileKind::CharDevice(device) => {
            header.set_entry_type(EntryType::Char);
            Some(device)
        }
        FileKind::BlockDevice(device) => {
            header.set_entry_type(EntryType::Block);
            Some(device)
        }
    };
    if let (Some(device), Some(ustar)) = (device, header.as_ustar_mut()) {
        ustar.set_device_major(device.major.min(OCTAL_MAX));
        ustar.set_device_minor(device.minor.min(OCTAL_MAX));
    }
}

/// Path, and for a symbolic link its target, if the plain header cannot hold them.
fn put_path(pax: &mut PaxWriter, path: &[u8], whole: Option<&FileAttr>) {
    let target = match whole.map(|attr| &attr.kind) {
        Some(FileKind::Symlink(target)) => Some(target.as_slice()),
        Some(
            FileKind::Regular
            | FileKind::Directory
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice(_)
            | FileKind::BlockDevice(_),
        )
        | None => None,
    };
    // The header's fields have 100 bytes; a record says in which encoding the others are.
    let plain = |text: &[u8]| text.len() < 100 && text.is_ascii();
    let utf8 = |text: &[u8]| std::str::from_utf8(text).is_ok();
    if !utf8(path) || !target.is_none_or(utf8) {
        pax.add(b"hdrcharset", b"BINARY");
    }
    if !plain(path) {
        pax.add(b"path", path);
    }
    if let Some(target) = target.filter(|target| !plain(target)) {
        pax.add(b"linkpath", target);
    }
}

fn put_metadata(pax: &mut PaxWriter, inode: &InodeState) {
    let attr = &inode.attr;
    // The parser takes this record's presence for that of all metadata.
    pax.number(pax::XID, attr.xid.get());
    pax.add(pax::TYPE.as_bytes(), type_name(&attr.kind).as_bytes());
    pax.number(pax::SIZE, attr.size_bytes);
    pax.number(pax::NLINK, u64::from(attr.nlink));
    // An inode may have very many names: their room is made once.
    let links_bytes = inode.links.iter().map(|link| link.name.as_bytes().len() + 24).sum();
    let mut links = Vec::with_capacity(links_bytes);
    pax::put_links(&mut links, &inode.links);
    pax.add(pax::LINKS.as_bytes(), &links);
    match &attr.kind {
        FileKind::Symlink(target) => pax.add(pax::TARGET.as_bytes(), target),
        FileKind::CharDevice(device) | FileKind::BlockDevice(device) => {
            let numbers = format!("{}:{}", device.major, device.minor);
            pax.add(pax::DEVICE.as_bytes(), numbers.as_bytes());
        }
        FileKind::Regular | FileKind::Directory | FileKind::Fifo | FileKind::Socket => {}
    }
    // The standard's own records, for stock tar too; whatever fits into the header has none.
    if attr.uid > OCTAL_MAX {
        pax.number("uid", u64::from(attr.uid));
    }
    if attr.gid > OCTAL_MAX {
        pax.number("gid", u64::from(attr.gid));
    }
    pax.time("mtime", attr.modified);
    pax.time("atime", attr.accessed);
    pax.time("ctime", attr.changed);
    pax.time(pax::CREATED, attr.created);
    let mut unnameable = Vec::new();
    for xattr in &inode.xattrs {
        // The first equals sign ends a record's key.
        if xattr.name.contains(&b'=') {
            pax::put_counted(&mut unnameable, &xattr.name);
            pax::put_counted(&mut unnameable, &xattr.value);
        } else {
            pax.add(&[pax::XATTR_PREFIX.as_bytes(), &xattr.name].concat(), &xattr.value);
        }
    }
    if !unnameable.is_empty() {
        pax.add(pax::XATTRS.as_bytes(), &unnameable);
    }
}

pub(crate) fn type_name(kind: &FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink(_) => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice(_) => "char-device",
        FileKind::BlockDevice(_) => "block-device",
    }
}

/// `first-end@xid` for each run, joined by commas.
fn put_runs(pax: &mut PaxWriter, key: &str, runs: &[Run]) {
    if runs.is_empty() {
        return;
    }
    let mut value = Vec::new();
    for run in runs {
        if !value.is_empty() {
            value.push(b',');
        }
        pax::push_number(&mut value, run.chunks.start().get());
        value.push(b'-');
        pax::push_number(&mut value, run.chunks.end().get());
        value.push(b'@');
        pax::push_number(&mut value, run.data_xid.get());
    }
    pax.add(key.as_bytes(), &value);
}

fn append_with_pax(pax: PaxWriter, header: &mut Header, out: &mut Vec<u8>) {
    let records = pax.into_bytes();
    if !records.is_empty() {
        // The name is seen only by a program without pax, which extracts the records as a file.
        let mut extended = new_header(b"PaxHeaders/tier", to_u64(records.len()));
        extended.set_entry_type(EntryType::XHeader);
        set_checksum(&mut extended);
        out.extend_from_slice(extended.as_bytes());
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(to_u64(records.len())), 0);
    }
    // Last of all, because it covers every other field.
    set_checksum(header);
    out.extend_from_slice(header.as_bytes());
}
