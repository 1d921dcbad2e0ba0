//! One tarball: pax tar in independent zstd frames, with a table of contents at its end
//! (`docs/formats/tarball.md`).

mod blocks;
mod frames;
mod identity;
mod listing;
mod locate;
mod mark;
mod member;
mod parse;
mod pax;
mod reader;
mod row;
mod scanner;
mod toc;

pub use listing::{list_members, write_tar};

pub(crate) use frames::{BuiltFrames, CompressedFrame, FrameBuilder};
pub(crate) use identity::TarballIdentity;
pub(crate) use mark::FrameMark;
pub(crate) use member::{Member, Run, header_bytes_about};
pub(crate) use reader::TarballReader;
pub(crate) use row::{FrameRow, TarballRow, WireRow, decompress, decompress_start, frame_digest};
pub(crate) use scanner::{Expected, ScanVisitor, scan};
pub(crate) use toc::{TocEntry, TocWriter};

/// Unit of the tar format.
pub(crate) const BLOCK_BYTES: usize = 512;
/// Everything that is not a whole inode under its own path lies here.
pub(crate) const TIER_FOLDER: &str = ".tier";
/// No frame that a writer makes is larger when decompressed; a reader refuses more.
pub(crate) const FRAME_BYTES_MAX: u32 = 32 << 20;

/// Bytes that fill the last block of `len` bytes.
pub(crate) fn padding(len: u64) -> usize {
    let block = tier_types::to_u64(BLOCK_BYTES);
    tier_types::to_usize((block - len % block) % block)
}

/// Reads bytes as a table of contents.
#[cfg(fuzzing)]
pub(crate) fn fuzz_table(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut before = tier_types::Ino::new(0);
    let _ = toc::read_groups(bytes, &mut |stored| {
        // Both ways must say the same of an entry.
        let mut indexed = Vec::new();
        let readable = stored.index_entries(&mut indexed);
        let entry = stored.decode();
        assert_eq!(readable.is_some(), entry.is_some());
        let entry = entry?;
        assert!(entry.index_entries().eq(indexed));
        entry.append_to(before, &mut again);
        before = entry.ino;
        Some(Ok::<(), ()>(()))
    });
    drop(toc::TocRoot::from_bytes(bytes));
}

/// Reads bytes as the members of a frame.
#[cfg(fuzzing)]
pub(crate) fn fuzz_frame(bytes: &[u8], known: Expected) {
    scanner::fuzz_frame(bytes, known);
    let mut blocks = blocks::Blocks::new(bytes, 0);
    while let Ok(Some(member)) = blocks.next_member() {
        drop(parse::parse_member(&member.records, member.header, member.content_bytes));
        drop(TarballIdentity::from_records(&member.records));
    }
}

/// Decompresses bytes as far as a row says that is forged to fit them.
#[cfg(fuzzing)]
pub(crate) fn fuzz_decompress(bytes: &[u8]) {
    let (digest, object) = (frame_digest(bytes), || "fuzz".to_string());
    for decompressed in [0, 1000, 100_000, u32::MAX] {
        let compressed = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let frame = FrameRow { offset: 0, compressed, decompressed, digest };
        drop(decompress(bytes, &frame, &object));
        drop(decompress_start(bytes, &frame, 700, &object));
    }
}
