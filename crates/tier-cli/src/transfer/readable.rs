//! What can be read of a range of a file of which a part cannot.
//!
//! A store fails a read as a whole if one chunk in it is damaged, missing from the archive, or
//! lost. A copy out of the store wants the rest. So a read that fails like that is made again,
//! chunk by chunk; any other error (the cloud is away, the command was stopped) is one of the whole
//! read.

use kvfs::{FsError, Kvfs};
use tier_types::{HasKind, Ino, to_u64, to_usize};

/// A piece of a file.
pub(crate) enum Piece {
    /// Its bytes.
    Data(Vec<u8>),
    /// These many cannot be read.
    Unreadable(u64, FsError),
}

/// All of a range, in pieces, shown one after another. Fewer bytes come where the file ends.
pub(crate) fn read_pieces<E: From<FsError>>(
    fs: &Kvfs,
    ino: Ino,
    offset: u64,
    len: usize,
    visit: &mut dyn FnMut(u64, Piece) -> Result<(), E>,
) -> Result<(), E> {
    match fs.read(ino, offset, len) {
        Ok(data) => return visit(offset, Piece::Data(data)),
        Err(error) if is_lost(&error) => {
            tracing::debug!(%ino, offset, len, %error, "reading chunk by chunk");
        }
        Err(error) => return Err(error.into()),
    }
    let end = offset.saturating_add(to_u64(len));
    let mut at = offset;
    while at < end {
        let n_bytes = chunk_rest(fs, at).min(end - at);
        assert!(n_bytes > 0, "each step goes on");
        match fs.read(ino, at, to_usize(n_bytes)) {
            // The file ends here.
            Ok(data) if data.is_empty() => break,
            Ok(data) => visit(at, Piece::Data(data))?,
            Err(error) if is_lost(&error) => visit(at, Piece::Unreadable(n_bytes, error))?,
            Err(error) => return Err(error.into()),
        }
        at += n_bytes;
    }
    Ok(())
}

/// The start of a range, up to what cannot be read; an error if that is its first byte.
pub(crate) fn read_start(fs: &Kvfs, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
    let whole = fs.read(ino, offset, len);
    let Err(error) = whole else { return whole };
    if !is_lost(&error) {
        return Err(error);
    }
    // One chunk: what follows it is asked for next, and then it is the first one that fails.
    let n_bytes = chunk_rest(fs, offset).min(to_u64(len));
    fs.read(ino, offset, to_usize(n_bytes))
}

/// Bytes from an offset to the end of its chunk.
fn chunk_rest(fs: &Kvfs, offset: u64) -> u64 {
    let chunk_bytes = u64::from(fs.chunk_bytes());
    assert!(chunk_bytes > 0, "a chunk has bytes");
    chunk_bytes - offset % chunk_bytes
}

fn is_lost(error: &FsError) -> bool {
    error.kind().is_of_object()
}
