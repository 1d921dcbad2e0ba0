//! Reads a tarball from its first member to its last and says what is in it, without its table of
//! contents.

use tier_types::to_u64;

use super::identity::{self, TarballIdentity};
use super::parse::{ParsedMember, parse_member};
use super::stream::{FrameSource, RawMember, TarStream};
use super::toc::Piece;
use super::{Run, TocEntry, padding};
use crate::PersistError;

/// Calls `visit` for every member that is about an inode, and returns what the tarball says it is.
pub(crate) fn scan(
    source: impl FrameSource,
    object: String,
    visit: &mut dyn FnMut(&TarballIdentity, TocEntry) -> Result<(), PersistError>,
) -> Result<TarballIdentity, PersistError> {
    let mut stream = TarStream::new(source, object);
    let first = stream.next_member()?.filter(|member| member.path == identity::PATH);
    let first = first.ok_or_else(|| stream.damaged("its first member is not .tier/tarball"))?;
    let identity = TarballIdentity::from_records(&first.records);
    let identity = identity.map_err(|problem| stream.damaged(problem))?;
    while let Some(raw) = stream.next_member()? {
        let parsed = parse_member(&raw.records, &raw.header, raw.content_bytes);
        match parsed.map_err(|problem| stream.damaged(problem))? {
            Some(parsed) => {
                let entry = locate(&mut stream, &raw, parsed, identity.chunk_bytes)?;
                visit(&identity, entry)?;
            }
            None => stream.skip(raw.content_bytes + to_u64(padding(raw.content_bytes)))?,
        }
    }
    Ok(identity)
}

/// Passes over the member's content and notes where each run of it lies.
fn locate<S: FrameSource>(
    stream: &mut TarStream<S>,
    raw: &RawMember,
    parsed: ParsedMember,
    chunk_bytes: u32,
) -> Result<TocEntry, PersistError> {
    let ParsedMember { member, map_bytes } = parsed;
    stream.skip(map_bytes)?;
    let mut data = Vec::new();
    let mut left = member.data_bytes;
    for run in &member.data {
        let run_bytes = run.chunks.len().saturating_mul(u64::from(chunk_bytes)).min(left);
        left -= run_bytes;
        locate_run(stream, *run, run_bytes, chunk_bytes, &mut data)?;
    }
    if left > 0 {
        return Err(stream.damaged("a member has more data than its runs"));
    }
    stream.skip(to_u64(padding(raw.content_bytes)))?;
    Ok(TocEntry {
        ino: member.ino,
        frame: raw.start.frame,
        offset: raw.start.offset,
        gone: member.gone,
        metadata: member.metadata,
        data,
        holes: member.holes,
    })
}

fn locate_run<S: FrameSource>(
    stream: &mut TarStream<S>,
    run: Run,
    mut bytes: u64,
    chunk_bytes: u32,
    pieces: &mut Vec<Piece>,
) -> Result<(), PersistError> {
    let mut rest = Some(run.chunks);
    while let Some(chunks) = rest {
        let position = stream.position()?;
        let n_bytes = stream.left_in_frame()?.min(bytes);
        let n_chunks = n_bytes.div_ceil(u64::from(chunk_bytes));
        let short = n_chunks * u64::from(chunk_bytes) - n_bytes;
        let end = tier_types::ChunkNo::new(chunks.start().get().saturating_add(n_chunks));
        let here = tier_types::ChunkRange::new(chunks.start(), end);
        let here = here.filter(|here| chunks.covers(*here));
        let here = here.ok_or_else(|| stream.damaged("a run has no data"))?;
        if short > 0 && (n_bytes < bytes || end < chunks.end()) {
            return Err(stream.damaged("a chunk is cut within a file"));
        }
        pieces.push(Piece {
            run: Run { chunks: here, ..run },
            frame: position.frame,
            offset: position.offset,
            short_bytes: u32::try_from(short).unwrap_or(0),
        });
        stream.skip(n_bytes)?;
        bytes -= n_bytes;
        rest = tier_types::ChunkRange::new(end, chunks.end());
    }
    Ok(())
}
