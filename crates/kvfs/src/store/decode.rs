//! Rows of a chunk map and keys of extended attributes, decoded. Bytes that cannot be decoded are
//! an error that names the inode and the damage.

use tier_types::{ChunkNo, ChunkRange, ChunkRun, Ino};

use super::keys;
use super::rows::{self, RunState};
use crate::FsError;
use crate::error::Damage;

/// The name in the key of an extended attribute.
pub(super) fn xattr_name(ino: Ino, key: &[u8]) -> Result<&[u8], FsError> {
    keys::name_of(key).ok_or_else(|| FsError::damaged(ino, Damage::XattrKey))
}

/// The first chunk of a run, and its state.
pub(super) fn parse_run(
    ino: Ino,
    key: &[u8],
    bytes: &[u8],
) -> Result<(ChunkNo, RunState), FsError> {
    let parsed = keys::parse_second(key).zip(rows::run_from_bytes(bytes));
    let (start, state) = parsed.ok_or_else(|| FsError::damaged(ino, Damage::ChunkMap))?;
    Ok((ChunkNo::new(start), state))
}

/// A run of these chunks; `None` for no chunks.
pub(super) fn run(start: ChunkNo, end: ChunkNo, run: RunState) -> Option<ChunkRun> {
    let RunState { state, data_xid } = run;
    ChunkRange::new(start, end).map(|chunks| ChunkRun { chunks, state, data_xid })
}
