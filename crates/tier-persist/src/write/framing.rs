//! Framing: which members share a frame. Pure.
//!
//! Members gather in a window and are cut into frames in order of directory, then of type, then of
//! inode: what is alike compresses better next to each other, and what lies together is often read
//! together. Small members share a frame, and a large one has its own; it is put behind the frame
//! that was open when its turn came, so that it does not cut that one short. The window is bounded
//! both by members and by what their headers take in memory, so that the order is a local one.

use tier_types::{Ino, InodeState, to_usize};

use crate::format::tarball::member::{Member, header_bytes_about};
use crate::write::limits::{WINDOW_BYTES_MAX, WINDOW_MEMBERS_MAX};

/// What orders members: directory, type as the name's ending tells it, inode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct SortKey {
    pub(crate) directory: Option<Ino>,
    pub(crate) ending: Vec<u8>,
    pub(crate) ino: Ino,
}

impl SortKey {
    /// By the first of the inode's names.
    pub(crate) fn of(inode: &InodeState) -> Self {
        let ino = inode.attr.ino;
        // Without a name (it is open and unlinked) it goes first, with the tombstones.
        let Some(link) = inode.links.first() else { return Self { ino, ..Self::default() } };
        let name = link.name.as_bytes();
        let dot = name.iter().rposition(|&byte| byte == b'.').unwrap_or(name.len());
        let (_, ending) = name.split_at(dot);
        Self { directory: Some(link.parent), ending: ending.to_vec(), ino }
    }
}

/// Members that are planned and not yet cut into frames.
pub(crate) struct Window {
    members: Vec<WindowMember>,
    /// What their headers will about take.
    bytes: usize,
    /// Plaintext bytes after which a frame ends.
    frame_bytes: usize,
}

struct WindowMember {
    key: SortKey,
    member: Member,
}

impl Window {
    pub(crate) fn new(frame_bytes: usize) -> Self {
        Self { members: Vec::new(), bytes: 0, frame_bytes }
    }

    pub(crate) fn add(&mut self, key: SortKey, member: Member) {
        self.bytes += window_bytes(&member);
        self.members.push(WindowMember { key, member });
    }

    /// How many members wait.
    pub(crate) fn n_members(&self) -> usize {
        self.members.len()
    }

    /// Takes out all members but the first so many, as if the others had never come.
    pub(crate) fn truncate(&mut self, n_members: usize) {
        assert!(n_members <= self.members.len(), "what was handed out cannot be taken back");
        let removed = self.members.drain(n_members..);
        self.bytes -= removed.map(|removed| window_bytes(&removed.member)).sum::<usize>();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.members.len() >= WINDOW_MEMBERS_MAX || self.bytes >= WINDOW_BYTES_MAX
    }

    /// Empties the window into frames: the members of each, in the order of writing.
    pub(crate) fn take_frames(&mut self) -> Vec<Vec<Member>> {
        // Stable: the parts of one file have one key, and stay in the order of the file.
        self.members.sort_by(|a, b| a.key.cmp(&b.key));
        self.bytes = 0;
        let mut frames = Vec::new();
        let mut frame = Frame::default();
        for WindowMember { member, .. } in self.members.drain(..) {
            let data_bytes = to_usize(member.data_bytes);
            // Two that are smaller fit into a frame together.
            if data_bytes >= self.frame_bytes / 2 {
                frame.large.push(member);
                continue;
            }
            // About: the header's exact length is known only when it is written. A frame may come
            // out a little larger than it should.
            let member_bytes = header_bytes_about(&member) + data_bytes;
            if frame.bytes + member_bytes > self.frame_bytes {
                std::mem::take(&mut frame).append_to(&mut frames);
            }
            frame.bytes += member_bytes;
            frame.small.push(member);
        }
        frame.append_to(&mut frames);
        frames
    }
}

/// What a member takes in a window. A file with thousands of names fills it by itself.
fn window_bytes(member: &Member) -> usize {
    let path_bytes = member.other_paths.iter().map(Vec::len).sum::<usize>();
    header_bytes_about(member) + path_bytes
}

/// A frame that is being put together, and the large members that come after it.
#[derive(Default)]
struct Frame {
    small: Vec<Member>,
    bytes: usize,
    large: Vec<Member>,
}

impl Frame {
    fn append_to(self, frames: &mut Vec<Vec<Member>>) {
        if !self.small.is_empty() {
            frames.push(self.small);
        }
        frames.extend(self.large.into_iter().map(|member| vec![member]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME_BYTES: usize = 64 << 10;

    fn member(ino: u64, data_bytes: u64) -> Member {
        Member { data_bytes, ..Member::of(Ino::new(ino)) }
    }

    fn key(directory: u64, ending: &str, ino: u64) -> SortKey {
        SortKey { directory: Some(Ino::new(directory)), ending: ending.into(), ino: Ino::new(ino) }
    }

    fn inos(frames: &[Vec<Member>]) -> Vec<Vec<u64>> {
        frames.iter().map(|frame| frame.iter().map(|member| member.ino.get()).collect()).collect()
    }

    #[test]
    fn members_of_a_directory_are_together_and_large_ones_are_alone() {
        let mut window = Window::new(FRAME_BYTES);
        window.add(key(2, ".c", 9), member(9, 100));
        window.add(key(1, ".h", 8), member(8, 100));
        window.add(key(1, ".c", 7), member(7, 40_000));
        window.add(key(1, ".c", 6), member(6, 100));
        assert_eq!(inos(&window.take_frames()), [vec![6, 8, 9], vec![7]]);
        assert!(window.take_frames().is_empty());
    }

    #[test]
    fn the_window_is_bounded_by_headers_too() {
        let mut window = Window::new(FRAME_BYTES);
        let other_paths = vec![vec![b'x'; 4000]; 5000];
        window.add(key(1, "", 1), Member { other_paths, ..member(1, 0) });
        assert!(window.is_full());
        window.take_frames();
        assert!(!window.is_full());
    }

    #[test]
    fn what_is_taken_out_leaves_the_window_as_it_was() {
        let mut window = Window::new(FRAME_BYTES);
        window.add(key(1, "", 1), member(1, 100));
        let before = (window.n_members(), window.bytes);
        let other_paths = vec![vec![b'x'; 4000]; 5000];
        window.add(key(0, "", 2), Member { other_paths, ..member(2, 100) });
        window.add(key(0, "", 2), member(2, 100));
        window.truncate(before.0);
        assert_eq!((window.n_members(), window.bytes), before);
        assert_eq!(inos(&window.take_frames()), [vec![1]]);
    }

    proptest! {
        /// Every member is in one frame, small ones fill it no further than it may be filled, and
        /// equal keys (the parts of one file) keep their order.
        #[test]
        fn frames_hold_all_members_once(
            members in prop::collection::vec((0_u64..4, 0_u64..60_000), 0..80),
        ) {
            let mut window = Window::new(FRAME_BYTES);
            for ((directory, data_bytes), ino) in members.iter().zip(1..) {
                window.add(key(*directory, "", 0), member(ino, *data_bytes));
            }
            let frames = window.take_frames();
            for frame in &frames {
                let bytes: usize = frame
                    .iter()
                    .map(|member| header_bytes_about(member) + to_usize(member.data_bytes))
                    .sum();
                prop_assert!(!frame.is_empty() && (frame.len() == 1 || bytes <= FRAME_BYTES));
            }
            let small = |member: &&Member| to_usize(member.data_bytes) < FRAME_BYTES / 2;
            let found = frames.iter().flatten().filter(small).map(|member| member.ino.get());
            let mut expected: Vec<_> = members.iter().zip(1..).collect();
            expected.sort_by_key(|((directory, _), ino)| (*directory, *ino));
            let expected = expected.into_iter().filter(|((_, data_bytes), _)| {
                to_usize(*data_bytes) < FRAME_BYTES / 2
            });
            prop_assert!(found.eq(expected.map(|(_, ino)| ino)));
            prop_assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), members.len());
        }
    }
}
