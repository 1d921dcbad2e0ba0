//! Changes of a chunk that are stored before anybody needs the whole: a small write costs its own
//! bytes, and the key-value store puts them together when the chunk is read, or when it rewrites it
//! anyway.
//!
//! A patch is the place in the chunk (u32, little-endian) and the bytes that are there from now on.

use rocksdb::MergeOperands;

/// Longer than any chunk: what a chunk becomes if patches come without the content that they
/// change. It is recognised when it is read.
const LOST_BYTES: usize = (1 << 20) + 1;

/// A patch that writes `data` at `within` bytes from the chunk's start.
pub(crate) fn to_bytes(within: usize, data: &[u8]) -> Vec<u8> {
    // A chunk is shorter than what the number can hold.
    let within = u32::try_from(within).unwrap_or(u32::MAX);
    [&within.to_le_bytes(), data].concat()
}

/// The chunk after its patches. For the store, which must get an answer whatever the bytes are.
pub(crate) fn apply(
    _key: &[u8],
    content: Option<&[u8]>,
    patches: &MergeOperands,
) -> Option<Vec<u8>> {
    let lost = || Some(vec![0; LOST_BYTES]);
    let Some(content) = content else { return lost() };
    let mut content = content.to_vec();
    for patch in patches {
        let Some((within, data)) = patch.split_first_chunk::<4>() else { return lost() };
        let Ok(within) = usize::try_from(u32::from_le_bytes(*within)) else { return lost() };
        let end = within.saturating_add(data.len());
        if end >= LOST_BYTES || content.len() >= LOST_BYTES {
            return lost();
        }
        content.resize(content.len().max(end), 0);
        if let Some(place) = content.get_mut(within..end) {
            place.copy_from_slice(data);
        }
    }
    Some(content)
}

/// Patches are kept apart until there is the content that they change.
pub(crate) fn combine(
    _key: &[u8],
    _content: Option<&[u8]>,
    _patches: &MergeOperands,
) -> Option<Vec<u8>> {
    None
}

/// Whether this is what is left of a chunk whose content is lost.
pub(crate) fn is_lost(content: &[u8]) -> bool {
    content.len() >= LOST_BYTES
}
