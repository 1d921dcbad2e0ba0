//! Patches: merge operands that change a part of a chunk.
//!
//! A small write costs its own bytes, and RocksDB puts chunk and patches together when the chunk is
//! read, or when it is rewritten anyway (`docs/adr/0011`). A patch is the place in the chunk (u32,
//! little-endian) and the bytes that are there from now on. The merge operator has to answer
//! whatever the bytes are: a chunk whose content is missing or whose patches make no sense becomes
//! [`LOST_BYTES`] zeros, which no chunk can have, and every reader takes that for damage.

use rocksdb::MergeOperands;

/// Longer than any chunk: what a chunk becomes if patches come without the content that they
/// change.
const LOST_BYTES: usize = (1 << 20) + 1;

/// A patch that writes `data` at `within` bytes from the chunk's start.
pub(crate) fn to_bytes(within: u32, data: &[u8]) -> Vec<u8> {
    [&within.to_le_bytes(), data].concat()
}

/// RocksDB's full merge: the chunk after its patches.
#[expect(clippy::unnecessary_wraps, reason = "the type of a merge operator")]
pub(super) fn merge(
    _key: &[u8],
    content: Option<&[u8]>,
    patches: &MergeOperands,
) -> Option<Vec<u8>> {
    Some(apply(content, patches))
}

/// RocksDB's partial merge: patches stay apart until there is the content that they change.
pub(super) fn merge_partly(
    _key: &[u8],
    _content: Option<&[u8]>,
    _patches: &MergeOperands,
) -> Option<Vec<u8>> {
    None
}

fn apply<'a>(content: Option<&[u8]>, patches: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let patched = content.and_then(|content| {
        let mut content = content.to_vec();
        for patch in patches {
            apply_one(&mut content, patch)?;
        }
        Some(content)
    });
    patched.unwrap_or_else(|| vec![0; LOST_BYTES])
}

/// `None` if this is no patch of this content.
fn apply_one(content: &mut Vec<u8>, patch: &[u8]) -> Option<()> {
    let (within, data) = patch.split_first_chunk::<4>()?;
    let within = usize::try_from(u32::from_le_bytes(*within)).ok()?;
    let end = within.checked_add(data.len())?;
    if end >= LOST_BYTES || content.len() >= LOST_BYTES {
        return None;
    }
    if content.len() < end {
        content.resize(end, 0);
    }
    content.get_mut(within..end)?.copy_from_slice(data);
    Some(())
}

/// Whether this is what is left of a chunk whose content is lost.
pub(super) fn is_lost(content: &[u8]) -> bool {
    content.len() >= LOST_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patches_without_content_or_sense_make_a_lost_chunk() {
        let patch = to_bytes(3, b"x");
        assert!(is_lost(&apply(None, [patch.as_slice()])));
        assert!(is_lost(&apply(Some(b"content"), [&patch[..3]])), "cut off");
        let far = to_bytes(1 << 20, b"x");
        assert!(is_lost(&apply(Some(b"content"), [far.as_slice()])), "behind every chunk");
        let lost = vec![0; LOST_BYTES];
        assert!(is_lost(&apply(Some(&lost), [patch.as_slice()])), "lost is lost for ever");
        assert_eq!(apply(Some(b"content"), [patch.as_slice()]), b"conxent");
    }

    proptest! {
        #[test]
        fn patches_do_what_writes_into_a_buffer_do(
            content in prop::collection::vec(any::<u8>(), 0..200),
            patches in prop::collection::vec(
                (0..300_usize, prop::collection::vec(any::<u8>(), 0..100)), 0..10),
        ) {
            let mut expected = content.clone();
            for (within, data) in &patches {
                let end = within + data.len();
                expected.resize(expected.len().max(end), 0);
                expected[*within..end].copy_from_slice(data);
            }
            let encode = |(within, data): &(usize, Vec<u8>)| {
                to_bytes(u32::try_from(*within).unwrap(), data)
            };
            let encoded: Vec<_> = patches.iter().map(encode).collect();
            prop_assert_eq!(apply(Some(&content), encoded.iter().map(Vec::as_slice)), expected);
        }
    }
}
