//! Where chunk data lives: large chunks in extent files, small ones and patches in their rows.
//!
//! RocksDB is a good home for small rows and a poor one for large values: each byte is written to
//! its log and then to a table or blob file, evicted values lie among living ones and come back
//! only when those are rewritten, and one damaged block stops a compaction (`docs/adr/0019`). So
//! the bytes of a large chunk go to the end of an extent file (`files`) and its row says where
//! (`content`). Evicting a chunk punches a hole, which rewrites nothing.
//!
//! # A write
//! Append the bytes; commit the row that refers to them, and with it a row of the table `unsynced`,
//! which says what the chunk was before. A sync makes files durable first and the key-value store's
//! log after them, so that what an application was told to be durable is.
//!
//! # A loss of power
//! The system may write the log to the disk before the files although neither was synced: then
//! a row that survives refers to bytes that did not. No sync covered it, so that both the chunk's
//! old and its new content are right, and opening the store goes back to the old one. It needs the
//! old bytes for that, which is why an extent is given back only after a sync.
//!
//! # Giving back
//! The batch that takes the last row of an extent away puts it into the table `freed`, under the
//! generation of the moment. `Core::reclaim` ends the generation, syncs, and gives back what the
//! generations hold that no KVS snapshot can see any more (`pins`). A crash in between leaves rows
//! of `freed`, which are worked off the next time; a hole can be punched twice.

mod assembler;
mod content;
mod files;
mod pins;
#[cfg(test)]
mod tests;

pub(super) use assembler::Assembler;
pub(super) use content::overwrite;
pub(crate) use content::{
    CHUNK_BYTES_MAX, ChunkExtent, Content, FileExtent, Patches, Place, extent_to_bytes,
    inline_to_bytes,
};
pub(crate) use files::{Appended, Committing, ExtentFiles};
pub(super) use pins::{Pin, Pins};
