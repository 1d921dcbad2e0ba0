//! The plan of an inode: pure, from what changed and where its chunks are, to members.
//!
//! An inode is written as a whole under its own path if all its data is at hand, changed or little,
//! and not too much of it: then stock tar restores it. Otherwise only what changed is written,
//! under `.tier/`, in parts of a frame each, with the metadata in a member of its own, which shares
//! a frame with others. Cold chunks are never written: they were persisted before they were
//! evicted, and the index knows where. Chunks that are lost, because the filesystem was restored
//! from an archive that lacks them, are written as lost where they changed, with the transaction
//! that they had; and a file with some is never whole, because stock tar would put zeros there.

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, FileKind, InodeState};

use crate::format::tarball::layout::TIER_DIR;
use crate::format::tarball::member::{Member, Run};
use crate::write::limits::{MemberLimits, PATH_BYTES_MAX};

/// The path under which an inode can be a member of its own, for people with stock tar: short
/// enough, not below `.tier`, and of a kind that tar has.
pub(crate) fn member_path(inode: &InodeState, path: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let reserved =
        |path: &[u8]| path.split(|&byte| byte == b'/').next() == Some(TIER_DIR.as_bytes());
    let path = path.filter(|path| path.len() <= PATH_BYTES_MAX && !reserved(path));
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
    limits: &MemberLimits,
) -> Option<Member> {
    let attr = &inode.attr;
    let mut member =
        Member { metadata: Some(inode.clone()), whole_path: Some(path), ..Member::of(attr.ino) };
    // Nothing but a regular file has data.
    if !matches!(attr.kind, FileKind::Regular) {
        return Some(member);
    }
    let rewrite = attr.size_bytes <= limits.rewrite_bytes && !touched.is_empty();
    for run in runs {
        match run.state {
            // Its data is not at hand, and recalling it to archive it again would be absurd.
            ChunkState::Cold | ChunkState::Lost => return None,
            ChunkState::Hot | ChunkState::Warm => {
                // Unchanged data of a large file is not written again: the index has it.
                if !rewrite && !touched.iter().any(|range| range.covers(run.chunks)) {
                    return None;
                }
                member.data.push(Run { chunks: run.chunks, data_xid: run.data_xid });
                member.data_bytes += run.chunks.len_bytes(limits.chunk_bytes, attr.size_bytes);
            }
            // Of what did not change the index knows already that it is a hole.
            ChunkState::Hole => push_hole(&mut member.holes, run, touched),
        }
    }
    // The member is held in memory as a whole, and its header lists every run.
    let fits = member.data_bytes <= limits.whole_bytes;
    (fits && member.data.len() + member.holes.len() <= limits.n_runs).then_some(member)
}

/// Splits what changed of a file into members, of which the first one is the metadata, without
/// data: a restore reads no data to get at it.
pub(crate) struct PartMembers {
    limits: MemberLimits,
    file_bytes: u64,
    current: Member,
}

impl PartMembers {
    pub(crate) fn new(inode: &InodeState, limits: MemberLimits) -> Self {
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
            ChunkState::Lost => {
                full.extend(self.make_room(0));
                let Member { lost, .. } = &mut self.current;
                lost.push(Run { chunks: run.chunks, data_xid: run.data_xid });
            }
            ChunkState::Hot | ChunkState::Warm => {
                let mut rest = Some(run.chunks);
                while let Some(chunks) = rest {
                    // Room for a whole chunk at least, so that no part is filled by less.
                    full.extend(self.make_room(u64::from(self.limits.chunk_bytes)));
                    let now = self.part_of(chunks);
                    rest = ChunkRange::new(now.end(), chunks.end());
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
        let has_runs = self.n_runs() > 0;
        // The last member that was full may have taken everything with it.
        (has_runs || self.current.metadata.is_some()).then_some(self.current)
    }

    /// As many of these chunks as the member has room for, and one at least.
    #[expect(clippy::expect_used, reason = "it is at least one chunk")]
    fn part_of(&self, chunks: ChunkRange) -> ChunkRange {
        let room = self.limits.part_bytes.saturating_sub(self.current.data_bytes);
        let n_chunks = (room / u64::from(self.limits.chunk_bytes)).max(1).min(chunks.len());
        let end = ChunkNo::new(chunks.start().get() + n_chunks);
        ChunkRange::new(chunks.start(), end).expect("at least one chunk is taken")
    }

    fn n_runs(&self) -> usize {
        let Member { data, holes, lost, .. } = &self.current;
        data.len() + holes.len() + lost.len()
    }

    fn make_room(&mut self, bytes: u64) -> Option<Member> {
        let Member { metadata, data_bytes, .. } = &self.current;
        // The metadata's member takes runs but no data.
        let full = self.n_runs() >= self.limits.n_runs
            || (metadata.is_some() && bytes > 0)
            || (*data_bytes > 0 && data_bytes + bytes > self.limits.part_bytes);
        let next = Member::of(self.current.ino);
        full.then(|| std::mem::replace(&mut self.current, next))
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
    use proptest::prelude::*;
    use tier_types::{FileAttr, Ino, Timestamp, Xid};

    use super::*;

    const LIMITS: MemberLimits = MemberLimits {
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
        let lost = [run(0, 1, ChunkState::Lost, 5), run(1, 2, ChunkState::Hot, 6)];
        assert!(!whole(&lost, &[range(0, 2)]), "stock tar would make zeros of it");
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

    fn any_state() -> impl Strategy<Value = ChunkState> {
        prop_oneof![
            Just(ChunkState::Hole),
            Just(ChunkState::Hot),
            Just(ChunkState::Warm),
            Just(ChunkState::Cold),
            Just(ChunkState::Lost),
        ]
    }

    proptest! {
        /// Parts hold every resident chunk once and in order, every hole, all that is lost, nothing
        /// that is cold, and no more than a part may.
        #[test]
        fn parts_are_what_changed(
            lens in prop::collection::vec((1_u64..12, any_state()), 1..8),
            short in 0_u64..10,
        ) {
            let n_chunks: u64 = lens.iter().map(|(len, _)| len).sum();
            let file_bytes = n_chunks * 10 - short;
            let mut parts = PartMembers::new(&inode(file_bytes), LIMITS);
            let (mut at, mut members, mut resident) = (0, Vec::new(), 0);
            let (mut holes, mut lost) = (0, 0);
            let mut expected = Vec::new();
            for (len, state) in lens {
                let run = run(at, at + len, state, 5);
                members.extend(parts.add(&run));
                match state {
                    ChunkState::Hot | ChunkState::Warm => {
                        expected.extend(at..at + len);
                        resident += run.chunks.len_bytes(10, file_bytes);
                    }
                    ChunkState::Hole => holes += 1,
                    ChunkState::Lost => lost += 1,
                    ChunkState::Cold => {}
                }
                at += len;
            }
            members.extend(parts.finish());
            let data = members.iter().flat_map(|member| &member.data);
            let chunks = data.flat_map(|run| run.chunks.start().get()..run.chunks.end().get());
            prop_assert!(chunks.eq(expected));
            prop_assert_eq!(members.iter().map(|m| m.data_bytes).sum::<u64>(), resident);
            prop_assert!(members.iter().all(|m| m.data_bytes <= LIMITS.part_bytes));
            prop_assert_eq!(members.iter().map(|m| m.holes.len()).sum::<usize>(), holes);
            prop_assert_eq!(members.iter().map(|m| m.lost.len()).sum::<usize>(), lost);
            prop_assert!(members.iter().skip(1).all(|member| member.metadata.is_none()));
        }
    }
}
