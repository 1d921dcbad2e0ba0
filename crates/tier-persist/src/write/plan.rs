//! What to write of an inode: pure, from what changed and where its chunks are, to members.

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, FileKind, Ino, InodeState};

use crate::format::tarball::layout::TIER_FOLDER;
use crate::format::tarball::member::{Member, Run};

/// The most that members hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PlanLimits {
    /// The filesystem's chunk size.
    pub(crate) chunk_bytes: u32,
    /// A file up to this size can be one member.
    pub(crate) whole_bytes: u64,
    /// Data bytes of one member with a part of a file; at least a chunk.
    pub(crate) part_bytes: u64,
    /// A file up to this size is written whole even if only part of it changed.
    pub(crate) rewrite_bytes: u64,
    /// Runs of one member.
    pub(crate) n_runs: usize,
}

/// Longest path of a member; what is longer goes under a number.
const PATH_BYTES_MAX: usize = 4000;

/// The path under which an inode can be a member of its own, for people with stock tar: short
/// enough, not ours, and of a kind that tar has.
pub(crate) fn member_path(inode: &InodeState, path: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let ours =
        |path: &[u8]| path.split(|&byte| byte == b'/').next() == Some(TIER_FOLDER.as_bytes());
    let path = path.filter(|path| path.len() <= PATH_BYTES_MAX && !ours(path));
    path.filter(|_| !matches!(inode.attr.kind, FileKind::Socket))
}

/// The member for an inode that is written whole, if its runs allow it: all data is in the
/// key-value store, not too much of it, and all changed or little. `runs` are all runs of the file
/// up to its end.
pub(crate) fn whole_member(
    inode: &InodeState,
    path: Vec<u8>,
    runs: &[ChunkRun],
    touched: &[ChunkRange],
    limits: &PlanLimits,
) -> Option<Member> {
    let attr = &inode.attr;
    let mut member =
        Member { metadata: Some(inode.clone()), whole_path: Some(path), ..Member::of(attr.ino) };
    if !matches!(attr.kind, FileKind::Regular) {
        return Some(member);
    }
    let rewrite = attr.size_bytes <= limits.rewrite_bytes && !touched.is_empty();
    for run in runs {
        match run.state {
            ChunkState::Cold => return None,
            ChunkState::Hot | ChunkState::Warm => {
                if !rewrite && !touched.iter().any(|range| range.covers(run.chunks)) {
                    return None;
                }
                member.data.push(Run { chunks: run.chunks, data_xid: run.data_xid });
                member.data_bytes += run.chunks.len_bytes(limits.chunk_bytes, attr.size_bytes);
            }
            ChunkState::Hole => push_hole(&mut member.holes, run, touched),
        }
    }
    let fits = member.data_bytes <= limits.whole_bytes;
    (fits && member.data.len() + member.holes.len() <= limits.n_runs).then_some(member)
}

/// Splits what changed of a file into members. The metadata is one of its own: it does not depend on
/// whether data can be read.
pub(crate) struct PartMembers {
    limits: PlanLimits,
    file_bytes: u64,
    current: Member,
}

impl PartMembers {
    pub(crate) fn new(inode: &InodeState, limits: PlanLimits) -> Self {
        let current = Member { metadata: Some(inode.clone()), ..Member::of(inode.attr.ino) };
        Self { limits, file_bytes: inode.attr.size_bytes, current }
    }

    /// Adds a run that changed, and returns the members that are full by it.
    pub(crate) fn add(&mut self, run: &ChunkRun) -> Vec<Member> {
        let mut full = Vec::new();
        match run.state {
            // What is cold was persisted before it was evicted.
            ChunkState::Cold => {}
            ChunkState::Hole => {
                full.extend(self.make_room(0));
                push_hole(&mut self.current.holes, run, &[run.chunks]);
            }
            ChunkState::Hot | ChunkState::Warm => {
                let mut rest = Some(run.chunks);
                while let Some(chunks) = rest {
                    full.extend(self.make_room(u64::from(self.limits.chunk_bytes)));
                    let room = self.limits.part_bytes.saturating_sub(self.current.data_bytes);
                    let n_chunks = (room / u64::from(self.limits.chunk_bytes)).max(1);
                    let end = chunks.start().get().saturating_add(n_chunks);
                    let end = ChunkNo::new(end).min(chunks.end());
                    rest = ChunkRange::new(end, chunks.end());
                    let Some(now) = ChunkRange::new(chunks.start(), end) else { break };
                    self.current.data.push(Run { chunks: now, data_xid: run.data_xid });
                    self.current.data_bytes +=
                        now.len_bytes(self.limits.chunk_bytes, self.file_bytes);
                }
            }
        }
        full
    }

    /// The last member.
    pub(crate) fn finish(self) -> Option<Member> {
        let Member { metadata, data, holes, .. } = &self.current;
        let says_something = metadata.is_some() || !data.is_empty() || !holes.is_empty();
        says_something.then_some(self.current)
    }

    fn make_room(&mut self, bytes: u64) -> Option<Member> {
        let Member { metadata, data, holes, data_bytes, .. } = &self.current;
        let full = data.len() + holes.len() >= self.limits.n_runs
            || (metadata.is_some() && bytes > 0)
            || (*data_bytes > 0 && data_bytes + bytes > self.limits.part_bytes);
        let next = Member::of(self.current.ino);
        full.then(|| std::mem::replace(&mut self.current, next))
    }
}

/// What orders members: directory, type as the name's ending tells it, inode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct SortKey {
    pub(crate) directory: Option<Ino>,
    pub(crate) ending: Vec<u8>,
    pub(crate) ino: Ino,
}

impl SortKey {
    pub(crate) fn of(inode: &InodeState) -> Self {
        let link = inode.links.first();
        let name = link.map_or(&b""[..], |link| link.name.as_bytes());
        let dot = name.iter().rposition(|&byte| byte == b'.');
        let ending = dot.and_then(|dot| name.get(dot..)).unwrap_or_default().to_vec();
        Self { directory: link.map(|link| link.parent), ending, ino: inode.attr.ino }
    }
}

/// Notes that a range is unmapped, as far as it changed. What was never written needs no note.
fn push_hole(holes: &mut Vec<Run>, run: &ChunkRun, touched: &[ChunkRange]) {
    if run.data_xid.get() > 0 {
        let parts = touched.iter().filter_map(|range| range.intersection(run.chunks));
        holes.extend(parts.map(|chunks| Run { chunks, data_xid: run.data_xid }));
    }
}

#[cfg(test)]
mod tests {
    use tier_types::{FileAttr, Timestamp, Xid};

    use super::*;

    const LIMITS: PlanLimits = PlanLimits {
        chunk_bytes: 10,
        whole_bytes: 50,
        part_bytes: 40,
        rewrite_bytes: 20,
        n_runs: 100,
    };

    fn inode(size_bytes: u64) -> InodeState {
        let zero = Timestamp::default();
        let attr = FileAttr {
            ino: Ino::new(7),
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes,
            accessed: zero,
            modified: zero,
            changed: zero,
            created: zero,
            xid: Xid::new(9),
        };
        InodeState { attr, links: Vec::new(), xattrs: Vec::new() }
    }

    fn range(start: u64, end: u64) -> ChunkRange {
        ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
    }

    fn run(start: u64, end: u64, state: ChunkState, xid: u64) -> ChunkRun {
        ChunkRun { chunks: range(start, end), state, data_xid: Xid::new(xid) }
    }

    #[test]
    fn a_file_is_whole_if_all_of_it_changed() {
        let runs = [run(0, 3, ChunkState::Hot, 5), run(3, u64::MAX, ChunkState::Hole, 4)];
        let whole = |touched: &[ChunkRange]| {
            whole_member(&inode(25), b"a".to_vec(), &runs, touched, &LIMITS)
        };
        let member = whole(&[range(0, u64::MAX)]).unwrap();
        assert_eq!((member.data_bytes, member.holes.len()), (25, 1));
        assert_eq!(whole(&[range(0, 2)]), None);
    }

    #[test]
    fn a_small_file_is_whole_if_any_of_it_changed_and_none_is_cold() {
        let hot = [run(0, 1, ChunkState::Warm, 5), run(1, 2, ChunkState::Hot, 6)];
        let cold = [run(0, 1, ChunkState::Cold, 5), run(1, 2, ChunkState::Hot, 6)];
        let inode = inode(15);
        let whole = |runs: &[ChunkRun], touched: &[ChunkRange]| {
            whole_member(&inode, b"a".to_vec(), runs, touched, &LIMITS).is_some()
        };
        assert!(whole(&hot, &[range(1, 2)]));
        assert!(!whole(&cold, &[range(1, 2)]));
        assert!(!whole(&hot, &[]));
    }

    #[test]
    fn parts_are_cut_at_the_limit_and_the_metadata_is_alone() {
        let mut parts = PartMembers::new(&inode(95), LIMITS);
        let mut members = parts.add(&run(0, 10, ChunkState::Hot, 5));
        members.extend(parts.add(&run(10, 12, ChunkState::Cold, 5)));
        members.extend(parts.finish());
        let bytes: Vec<_> = members.iter().map(|member| member.data_bytes).collect();
        assert_eq!(bytes, [0, 40, 40, 15]);
        let with_metadata: Vec<_> = members.iter().map(|m| m.metadata.is_some()).collect();
        assert_eq!(with_metadata, [true, false, false, false]);
    }
}
