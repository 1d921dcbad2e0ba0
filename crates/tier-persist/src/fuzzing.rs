//! Decoders of untrusted bytes, for the fuzz targets. Not part of the public interface: it is
//! there only in a build for fuzzing.

use tier_index::TarballId;
use tier_types::{Epoch, SnapshotId};

use crate::manifest::Manifest;
use crate::tarball::{self, Expected, TarballRow};
use crate::{FilesystemId, Keys, age_stream, names, seekable};

/// The content of a manifest, and the whole object in clear.
pub fn manifest(bytes: &[u8], keys: &Keys) {
    drop(Manifest::from_content(bytes));
    let filesystem = FilesystemId::from_bytes([0x5a; 16]);
    let name = names::manifest_name(filesystem, Epoch::new(1), SnapshotId::new(1));
    drop(Manifest::from_object(bytes, &name, keys));
}

/// A part of a table of contents, and its root.
pub fn table_of_contents(bytes: &[u8]) {
    tarball::fuzz_table(bytes);
}

/// A decompressed frame.
pub fn frame(bytes: &[u8]) {
    let id = TarballId { epoch: Epoch::new(1), snapshot: SnapshotId::new(1), part: 0 };
    let filesystem = FilesystemId::from_bytes([0x5a; 16]);
    tarball::fuzz_frame(bytes, Expected { filesystem, id, chunk_bytes: 512 });
}

/// A compressed frame, and the row that the index keeps of a tarball.
pub fn compressed_frame(bytes: &[u8]) {
    tarball::fuzz_decompress(bytes);
    drop(TarballRow::from_bytes(bytes));
}

/// A seek table.
pub fn seek_table(bytes: &[u8]) {
    if let Some(footer) = bytes.last_chunk() {
        let _ = seekable::table_len(footer);
    }
    if let Ok(frames) = seekable::decode(bytes) {
        assert_eq!(seekable::encode(&frames).map(|table| table.len() <= bytes.len()), Some(true));
    }
}

/// An age header, and a whole small object.
pub fn age_object(bytes: &[u8], keys: &Keys) {
    if let Some(header) = age_stream::header_len(bytes).and_then(|len| bytes.get(..len)) {
        drop(age_stream::open_header(header, keys, "fuzz"));
    }
    drop(age_stream::open_all(bytes, keys, "fuzz"));
}

/// An object's name and an identity file.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(name) = tier_types::ObjectName::new(text) {
        let _ = names::parse(&name);
    }
    drop(Keys::from_identity_file(text));
}
