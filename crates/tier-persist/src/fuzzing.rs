//! Decoders of untrusted bytes, for the fuzz targets. Not part of the public interface: it is
//! there only in a build for fuzzing.

use tier_index::TarballId;
use tier_types::{Epoch, SnapshotId};

use crate::format::checkpoint;
use crate::format::claim::Claim;
use crate::format::digest::frame_digest;
use crate::format::keys::Keys;
use crate::format::manifest::Manifest;
use crate::format::names::FilesystemId;
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::parse::parse_member;
use crate::format::tarball::row::{FrameRow, TarballRow};
use crate::format::tarball::toc::group::read_groups;
use crate::format::tarball::toc::root::TocRoot;
use crate::format::{age, names, seekable};
use crate::read::link::ChainLink;
use crate::read::scanner::{self, Expected};

/// The contents of a manifest and of a claim, and the whole objects in clear.
pub fn manifest(bytes: &[u8], keys: &Keys) {
    drop(Manifest::from_content(bytes, keys.signer()));
    drop(Claim::from_content(bytes, keys.signer()));
    let filesystem = FilesystemId::from_bytes([0x5a; 16]);
    let name = names::manifest_name(filesystem, Epoch::new(1), SnapshotId::new(1));
    drop(Manifest::from_object(bytes, &name, keys));
    let name = names::claim_name(filesystem, Epoch::new(1));
    drop(Claim::from_object(bytes, &name, keys));
}

/// A part of a table of contents, and its root.
pub fn table_of_contents(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut before = tier_types::Ino::new(0);
    let _ = read_groups(bytes, &mut |stored| {
        // Both ways must say the same of an entry.
        let mut indexed = Vec::new();
        let readable = stored.index_entries(&mut indexed);
        let decoded = stored.decode();
        assert_eq!(readable.is_some(), decoded.is_some());
        let entry = decoded?;
        assert!(entry.index_entries().eq(indexed));
        // Encoding asserts what an entry must be: none that was read may trip over that.
        entry.append_to(before, &mut again);
        before = entry.ino;
        Some(Ok::<(), ()>(()))
    });
    drop(TocRoot::from_bytes(bytes));
}

/// The contents of a checkpoint's objects.
pub fn checkpoint(bytes: &[u8]) {
    if let Some(inodes) = checkpoint::read_inodes(bytes) {
        let mut again = checkpoint::begin();
        for inode in &inodes {
            checkpoint::append_inode(inode, &mut again);
        }
        assert_eq!(checkpoint::read_inodes(&again), Some(inodes));
    }
    for step in checkpoint::read_steps(bytes).into_iter().flatten() {
        drop(ChainLink::from_bytes(&step.link));
        step.tarballs.iter().for_each(|row| drop(TarballRow::from_bytes(row)));
    }
}

/// A decompressed frame.
pub fn frame(bytes: &[u8]) {
    let id = TarballId { epoch: Epoch::new(1), snapshot: SnapshotId::new(1), part: 0 };
    let filesystem = FilesystemId::from_bytes([0x5a; 16]);
    scanner::fuzz_frame(bytes, Expected { filesystem, id, chunk_bytes: 512 });
    let mut blocks = Blocks::new(bytes, 0);
    while let Ok(Some(member)) = blocks.next_member() {
        drop(parse_member(&member.records, member.header, member.content_bytes));
        let _ = TarballIdentity::from_records(&member.records);
    }
}

/// A compressed frame, as far as a row says that is forged to fit it, and the row that the index
/// keeps of a tarball.
pub fn compressed_frame(bytes: &[u8]) {
    // The digest is made to fit: no input would get past a wrong one to the decompressor.
    let (digest, object) = (frame_digest(bytes), || "fuzz".to_string());
    for decompressed in [0, 1000, 100_000, u32::MAX] {
        let compressed = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let frame = FrameRow { offset: 0, compressed, decompressed, digest };
        drop(frame.decompress(bytes, &object));
        drop(frame.decompress_start(bytes, 700, &object));
    }
    drop(TarballRow::from_bytes(bytes));
}

/// A seek table.
pub fn seek_table(bytes: &[u8]) {
    if let Some(footer) = bytes.last_chunk() {
        let _ = seekable::table_len(footer);
    }
    if let Ok(frames) = seekable::decode(bytes) {
        // A table with checksums is longer than it is when it is encoded again, which leaves them
        // out.
        assert_eq!(seekable::encode(&frames).map(|table| table.len() <= bytes.len()), Some(true));
    }
}

/// An age header, and a whole small object.
pub fn age_object(bytes: &[u8], keys: &Keys) {
    if let Some(header) = age::header_len(bytes).and_then(|len| bytes.get(..len)) {
        drop(age::open_header(header, keys, "fuzz"));
    }
    drop(age::open_all(bytes, keys, "fuzz"));
}

/// An object's name and an identity file.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(name) = tier_types::ObjectName::new(text) {
        let _ = names::parse(&name);
    }
    drop(Keys::from_identity_file(text));
}
