//! The seek table of the zstd seekable format 0.1.0
//! (<https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md>),
//! without its optional checksums: the root of the tarball has a digest of each frame.
//!
//! It lets any reader of the format find the frame that holds a byte of the tar stream, and is how
//! a tarball whose manifest is lost is read. A reader that has the manifest does not need it.

use tier_types::{to_u64, to_usize};

/// Magic number of the skippable frame that holds the table.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
/// Magic number of a frame with data (RFC 8878).
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
/// Number of frames, descriptor, magic.
pub(crate) const FOOTER_BYTES: usize = 9;
const SKIPPABLE_HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 8;
const CHECKSUM_FLAG: u8 = 0x80;
const RESERVED_BITS: u8 = 0x7c;
/// The format's own limit.
const FRAMES_MAX: u32 = 0x0800_0000;

/// Compressed and decompressed size of the frame that some bytes begin with; `None` if they begin
/// with none that is whole, or one that does not say how long it is.
pub(crate) fn frame_size(bytes: &[u8]) -> Option<FrameSize> {
    bytes.starts_with(&ZSTD_MAGIC.to_le_bytes()).then_some(())?;
    let compressed = zstd::zstd_safe::find_frame_compressed_size(bytes).ok()?;
    let decompressed = zstd::zstd_safe::get_frame_content_size(bytes).ok()??;
    let (compressed, decompressed) = (compressed.try_into().ok()?, decompressed.try_into().ok()?);
    Some(FrameSize { compressed, decompressed })
}

/// The sizes of one frame in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameSize {
    pub(crate) compressed: u32,
    pub(crate) decompressed: u32,
}

pub(crate) fn encode(frames: &[FrameSize]) -> Option<Vec<u8>> {
    // A skippable frame, so that a decoder that does not know the table skips it.
    let n_frames = u32::try_from(frames.len()).ok().filter(|&n| n <= FRAMES_MAX)?;
    let table_bytes = frames.len().checked_mul(ENTRY_BYTES)?.checked_add(FOOTER_BYTES)?;
    let mut out = Vec::with_capacity(SKIPPABLE_HEADER_BYTES + table_bytes);
    out.extend(SKIPPABLE_MAGIC.to_le_bytes());
    out.extend(u32::try_from(table_bytes).ok()?.to_le_bytes());
    for frame in frames {
        out.extend(frame.compressed.to_le_bytes());
        out.extend(frame.decompressed.to_le_bytes());
    }
    out.extend(n_frames.to_le_bytes());
    out.push(0);
    out.extend(FOOTER_MAGIC.to_le_bytes());
    Some(out)
}

/// Length of the whole table, from the footer that ends it.
pub(crate) fn table_len(footer: &[u8; FOOTER_BYTES]) -> Result<u64, &'static str> {
    let (n_frames, entry_bytes) = parse_footer(footer)?;
    Ok(to_u64(SKIPPABLE_HEADER_BYTES + FOOTER_BYTES) + u64::from(n_frames) * to_u64(entry_bytes))
}

pub(crate) fn decode(table: &[u8]) -> Result<Vec<FrameSize>, &'static str> {
    let footer = table.last_chunk::<FOOTER_BYTES>().ok_or("the seek table is too short")?;
    let (n_frames, entry_bytes) = parse_footer(footer)?;
    // What the footer says, and what was read because of it, must agree with the header in front.
    let expected = to_usize(table_len(footer)?);
    if table.len() != expected {
        return Err("the seek table has the wrong length");
    }
    let (magic, rest) = table.split_first_chunk::<4>().ok_or("the seek table is too short")?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or("the seek table is too short")?;
    let frame_bytes = to_usize(u64::from(u32::from_le_bytes(*len)));
    if u32::from_le_bytes(*magic) != SKIPPABLE_MAGIC || frame_bytes != rest.len() {
        return Err("the seek table does not start where it should");
    }
    // The footer lies behind the entries, and without the limit could pass for one more.
    let entries = rest.chunks_exact(entry_bytes).take(to_usize(u64::from(n_frames)));
    let sizes = entries.map(|entry| {
        let (compressed, rest) = entry.split_first_chunk::<4>()?;
        let (decompressed, _) = rest.split_first_chunk::<4>()?;
        Some(FrameSize {
            compressed: u32::from_le_bytes(*compressed),
            decompressed: u32::from_le_bytes(*decompressed),
        })
    });
    sizes.collect::<Option<Vec<_>>>().ok_or("the seek table is too short")
}

/// Number of frames and length of an entry.
fn parse_footer(footer: &[u8; FOOTER_BYTES]) -> Result<(u32, usize), &'static str> {
    let [n0, n1, n2, n3, descriptor, m0, m1, m2, m3] = *footer;
    if u32::from_le_bytes([m0, m1, m2, m3]) != FOOTER_MAGIC {
        return Err("no seek table at the end");
    }
    // A later version of the format may mean something by them.
    if descriptor & RESERVED_BITS != 0 {
        return Err("the seek table has reserved bits set");
    }
    let n_frames = u32::from_le_bytes([n0, n1, n2, n3]);
    if n_frames > FRAMES_MAX {
        return Err("the seek table has too many frames");
    }
    // Another writer may have put checksums in; they are skipped.
    let checksum_bytes = if descriptor & CHECKSUM_FLAG == 0 { 0 } else { 4 };
    Ok((n_frames, ENTRY_BYTES + checksum_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_a_round_trip_and_no_cut_of_it_does() {
        let frames = [(10, 20), (u32::MAX, 0), (3, 1 << 20)]
            .map(|(compressed, decompressed)| FrameSize { compressed, decompressed });
        let table = encode(&frames).unwrap();
        assert_eq!(decode(&table).unwrap(), frames);
        assert_eq!(table_len(table.last_chunk().unwrap()).unwrap(), to_u64(table.len()));
        for len in 0..table.len() {
            assert!(decode(&table[..len]).is_err());
            assert!(decode(&table[table.len() - len..]).is_err());
        }
    }
}
