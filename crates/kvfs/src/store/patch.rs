//! Patches: merge operands that change a part of a chunk.
//!
//! A small write costs its own bytes, and RocksDB puts chunk row and patches together when the row
//! is read, or when it is rewritten anyway (`docs/adr/0011`). A patch is the place in the chunk
//! (u32, little-endian) and the bytes that are there from now on. Of a chunk that lies in its row
//! the bytes are changed; to one that lies in a file the patch is added. The merge operator has to
//! answer whatever the bytes are: a chunk whose row is missing or whose patches make no sense gets
//! an empty row, which is none, and every reader takes that for damage.

use rocksdb::MergeOperands;
use tier_types::to_usize;

use super::extents::{
    CHUNK_BYTES_MAX, Content, Patches, extent_to_bytes, inline_to_bytes, overwrite,
};

/// What a chunk row becomes if patches come without the content that they change.
const LOST: Vec<u8> = Vec::new();

/// A patch that writes `data` at `within` bytes from the chunk's start.
pub(crate) fn to_bytes(within: u32, data: &[u8]) -> Vec<u8> {
    [&within.to_le_bytes(), data].concat()
}

/// RocksDB's full merge: the chunk row after its patches.
#[expect(clippy::unnecessary_wraps, reason = "the type of a merge operator")]
pub(super) fn merge(_key: &[u8], row: Option<&[u8]>, patches: &MergeOperands) -> Option<Vec<u8>> {
    Some(apply(row, patches))
}

/// RocksDB's partial merge: patches stay apart until there is the content that they change.
pub(super) fn merge_partly(
    _key: &[u8],
    _row: Option<&[u8]>,
    _patches: &MergeOperands,
) -> Option<Vec<u8>> {
    None
}

fn apply<'a>(row: Option<&[u8]>, patches: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut patches = patches.into_iter().map(parse);
    match row.and_then(Content::from_bytes) {
        None => LOST,
        Some(Content::Inline(bytes)) => {
            let mut content = bytes.to_vec();
            let all = patches.try_for_each(|patch| {
                let (within, data) = patch?;
                overwrite(&mut content, within, data);
                Some(())
            });
            all.map_or(LOST, |()| inline_to_bytes(&content))
        }
        Some(Content::InFile(extent, before)) => {
            let all = patches.try_fold(before.to_bytes(), |before, patch| {
                let (within, data) = patch?;
                Some(Patches::from_bytes(&before)?.with(within, data))
            });
            all.map_or(LOST, |all| [extent_to_bytes(extent), all].concat())
        }
    }
}

/// `None` if this is no patch of any chunk.
fn parse(patch: &[u8]) -> Option<(usize, &[u8])> {
    let (within, data) = patch.split_first_chunk::<4>()?;
    let within = to_usize(u64::from(u32::from_le_bytes(*within)));
    let fits = within.checked_add(data.len())? <= CHUNK_BYTES_MAX;
    (fits && !data.is_empty()).then_some((within, data))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::extents::{FileExtent, Place};

    const IN_FILE: FileExtent =
        FileExtent { place: Place { file: 3, offset: 8192 }, len: 200, checksum: 7 };

    #[test]
    fn patches_without_content_or_sense_make_a_lost_chunk() {
        let patch = to_bytes(3, b"x");
        let content = inline_to_bytes(b"content");
        let is_lost = |row: &[u8]| Content::from_bytes(row).is_none();
        assert!(is_lost(&apply(None, [patch.as_slice()])));
        assert!(is_lost(&apply(Some(&content), [&patch[..3]])), "cut off");
        let far = to_bytes(1 << 20, b"x");
        assert!(is_lost(&apply(Some(&content), [far.as_slice()])), "behind every chunk");
        assert!(is_lost(&apply(Some(&LOST), [patch.as_slice()])), "lost is lost for ever");
        assert_eq!(apply(Some(&content), [patch.as_slice()]), inline_to_bytes(b"conxent"));
        let in_file = extent_to_bytes(IN_FILE);
        assert!(is_lost(&apply(Some(&in_file), [far.as_slice()])));
    }

    fn encode((within, data): &(usize, Vec<u8>)) -> Vec<u8> {
        to_bytes(u32::try_from(*within).unwrap(), data)
    }

    proptest! {
        #[test]
        fn patches_do_what_writes_into_a_buffer_do(
            content in prop::collection::vec(any::<u8>(), 0..200),
            patches in prop::collection::vec(
                (0..300_usize, prop::collection::vec(any::<u8>(), 1..100)), 0..10),
        ) {
            let mut expected = content.clone();
            for (within, data) in &patches {
                let end = within + data.len();
                expected.resize(expected.len().max(end), 0);
                expected[*within..end].copy_from_slice(data);
            }
            let encoded: Vec<_> = patches.iter().map(encode).collect();
            let row = inline_to_bytes(&content);
            let patched = apply(Some(&row), encoded.iter().map(Vec::as_slice));
            prop_assert_eq!(patched, inline_to_bytes(&expected));
            // The same on top of bytes in a file, all at once and one after the other.
            let row = extent_to_bytes(IN_FILE);
            let at_once = apply(Some(&row), encoded.iter().map(Vec::as_slice));
            let stepwise = encoded.iter().fold(row, |row, patch| {
                apply(Some(&row), [patch.as_slice()])
            });
            prop_assert_eq!(&at_once, &stepwise);
            let Some(Content::InFile(extent, patches)) = Content::from_bytes(&at_once) else {
                panic!("a chunk in a file stays there");
            };
            prop_assert_eq!(extent, IN_FILE);
            let mut read = content.clone();
            patches.apply(&mut read, 0);
            prop_assert_eq!(read, expected);
        }
    }
}
