//! The scanner: reads a tarball from its first member to its last and says what is in it, without
//! its table of contents: on all cores, and past what is damaged.
//!
//! Frames are scanned apart from each other, because each is either marked (it starts with a
//! member) or continues the last member of a frame before it. Threads take turns with them, each a
//! few ahead, and one merger joins what they found in order. It alone knows whether a frame that
//! continues has something to continue: content is content, whatever it looks like, as long as the
//! member that it belongs to is not complete. Behind a frame that cannot be read, the member before
//! it has what was found of it, and scanning goes on with the next marked frame.

use std::thread;

use crossbeam_channel::bounded;
use tier_index::TarballId;
use tier_types::{ErrorKind, HasKind, to_u64};

use crate::error::PersistError;
use crate::format::names::FilesystemId;
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::identity::{self, TarballIdentity};
use crate::format::tarball::layout::{FramePosition, to_u32};
use crate::format::tarball::locate::{Located, Locator};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::parse::parse_member;
use crate::format::tarball::pax;
use crate::format::tarball::toc::entry::TocEntry;
use crate::read::tarball_reader::TarballReader;

/// Frames that a scanning thread is ahead of the merger.
const FRAMES_AHEAD: usize = 2;

/// What is known of a tarball before it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) filesystem: FilesystemId,
    pub(crate) id: TarballId,
    pub(crate) chunk_bytes: u32,
}

/// Takes what a scan finds.
pub(crate) trait ScanVisitor {
    /// A member that is about an inode.
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError>;

    /// Something that cannot be read. Returning it ends the scan.
    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError>;
}

/// What a frame must say to be one of the tarball's.
#[derive(Clone, Copy)]
struct Known {
    expected: Expected,
    /// The token of its marks, if the first frame could be read.
    token: Option<u64>,
}

impl Known {
    fn matches(&self, mark: &FrameMark) -> bool {
        let Expected { filesystem, id, .. } = self.expected;
        mark.filesystem == filesystem
            && (mark.epoch, mark.snapshot) == (id.epoch, id.snapshot)
            && self.token.is_none_or(|token| mark.token == token)
    }
}

/// What one frame holds.
#[derive(Default)]
struct ScannedFrame {
    len: u64,
    /// Whether a member starts it, or one of an earlier frame goes on.
    starts: bool,
    entries: Vec<TocEntry>,
    /// The last member, if it goes on in the next frame.
    open: Option<Locator>,
    problem: Option<&'static str>,
}

/// Goes through all frames. Returns what the tarball says it is, if that can be read.
pub(crate) fn scan(
    reader: &TarballReader<'_>,
    expected: Option<Expected>,
    visitor: &mut dyn ScanVisitor,
) -> Result<Option<TarballIdentity>, PersistError> {
    let identity = match (read_identity(reader), expected) {
        (Ok(identity), Some(Expected { filesystem, id, .. }))
            if (identity.filesystem, identity.id) != (filesystem, id) =>
        {
            return Err(PersistError::damaged(reader.name(), "it is another tarball"));
        }
        (Ok(identity), _) => Some(identity),
        // What the caller expects is enough to tell the tarball's own frames by their marks.
        (Err(damage), Some(_)) if !ends_the_scan(&damage) => {
            visitor.damage(damage)?;
            None
        }
        (Err(damage), _) => return Err(damage),
    };
    // Without the first frame any token is taken for the right one: better than to find nothing.
    let token = identity.map(|identity| identity.token);
    if let Some(expected) = identity.map(Expected::from).or(expected) {
        scan_frames(reader, Known { expected, token }, visitor)?;
    }
    Ok(identity)
}

impl From<TarballIdentity> for Expected {
    fn from(identity: TarballIdentity) -> Self {
        let TarballIdentity { filesystem, id, chunk_bytes, .. } = identity;
        Self { filesystem, id, chunk_bytes }
    }
}

/// Whether there is no point in looking at other frames.
fn ends_the_scan(damage: &PersistError) -> bool {
    // A later version may have another meaning of everything, which must not be guessed.
    let newer = matches!(
        damage,
        PersistError::Damaged { problem, .. } if *problem == identity::UNKNOWN_VERSION
    );
    // Of another kind (the store is away, the key is wrong) it would come again with every frame.
    newer || damage.kind() != ErrorKind::Damaged
}

fn read_identity(reader: &TarballReader<'_>) -> Result<TarballIdentity, PersistError> {
    let frame = reader.frame(0)?;
    let damaged = |problem| PersistError::damaged(frame_name(reader, 0), problem);
    let first = Blocks::new(&frame, 0)
        .next_member()
        .map_err(damaged)?
        .filter(|member| member.path.as_ref() == identity::PATH)
        .ok_or_else(|| damaged("its first member is not .tier/tarball"))?;
    TarballIdentity::from_records(&first.records).map_err(damaged)
}

fn frame_name(reader: &TarballReader<'_>, number: u32) -> String {
    format!("{} in frame {number}", reader.name())
}

/// Threads take turns with the frames: frame *n* is with thread *n* modulo their number, so that
/// the merger knows where the next one comes from.
fn scan_frames(
    reader: &TarballReader<'_>,
    known: Known,
    visitor: &mut dyn ScanVisitor,
) -> Result<(), PersistError> {
    // Where the system does not say how many, one thread is slow and right.
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let mut turns = Vec::new();
        for (_, first) in (0..n_threads).zip(1..) {
            let (found, arrived) = bounded(FRAMES_AHEAD);
            turns.push(arrived);
            scope.spawn(move || {
                for number in (first..reader.n_frames()).step_by(n_threads) {
                    let frame = reader.frame(number).map(|f| scan_frame(&f, number, known));
                    // The merger is gone when the scan was ended.
                    if found.send(frame).is_err() {
                        return;
                    }
                }
            });
        }
        // Frame 0 holds the identity and nothing else.
        let mut merger = Merger { reader, visitor, open: None, lost: false };
        for (number, turn) in (1..reader.n_frames()).zip(turns.iter().cycle()) {
            merger.take(number, turn.recv().map_err(|_| PersistError::Pipeline)?)?;
        }
        merger.finish()
    })
}

fn scan_frame(frame: &[u8], number: u32, known: Known) -> ScannedFrame {
    let mut scanned = ScannedFrame { len: to_u64(frame.len()), ..ScannedFrame::default() };
    if let Err(problem) = scan_members(frame, number, known, &mut scanned) {
        scanned.problem = Some(problem);
    }
    scanned
}

fn scan_members(
    frame: &[u8],
    number: u32,
    known: Known,
    scanned: &mut ScannedFrame,
) -> Result<(), &'static str> {
    let mut blocks = Blocks::new(frame, 0);
    // What has no mark of this snapshot is the content of a file, whatever it looks like.
    let first = blocks.next_member().ok().flatten();
    let mark = first.as_ref().and_then(|member| FrameMark::from_records(&member.records));
    if !mark.is_some_and(|mark| known.matches(&mark)) {
        return Ok(());
    }
    scanned.starts = true;
    let mut next = first;
    while let Some(raw) = next {
        if raw.records.get(pax::INO).is_some() {
            let parsed = parse_member(&raw.records, raw.header, raw.content_bytes)?;
            let at = FramePosition { frame: number, offset: to_u32(raw.start) };
            let chunk_bytes = known.expected.chunk_bytes;
            let locator = Locator::new(parsed, at, raw.content_bytes, chunk_bytes)?;
            let available = to_u64(frame.len() - raw.content_at);
            match locator.advance(number, to_u64(raw.content_at), available)? {
                Located::All(entry) => scanned.entries.push(entry),
                Located::More(open) => {
                    scanned.open = Some(open);
                    return Ok(());
                }
            }
        } else if raw.bytes_beyond(frame.len()) > 0 {
            return Err("a member of no inode goes beyond its frame");
        }
        next = blocks.next_member()?;
    }
    Ok(())
}

/// Puts frames together again.
struct Merger<'a> {
    reader: &'a TarballReader<'a>,
    visitor: &'a mut dyn ScanVisitor,
    /// The member that goes on in the next frame.
    open: Option<Locator>,
    /// Whether the member that goes on was lost with its header.
    lost: bool,
}

impl Merger<'_> {
    fn take(
        &mut self,
        number: u32,
        frame: Result<ScannedFrame, PersistError>,
    ) -> Result<(), PersistError> {
        let frame = match frame {
            Ok(frame) => frame,
            Err(damage) if ends_the_scan(&damage) => return Err(damage),
            Err(damage) => {
                // The lost frame may hold the end of the open member, or the header of one that
                // goes on.
                self.give_up()?;
                return self.visitor.damage(damage);
            }
        };
        // What still belongs to a member is its content, whatever it looks like.
        if let Some(open) = self.open.take() {
            return self.continue_member(open, number, frame.len);
        }
        if !frame.starts {
            // The rest of a member whose header was in a damaged frame, and was reported with it.
            if self.lost {
                let object = self.reader.name();
                tracing::debug!(%object, frame = number, "skipping the rest of a lost member");
                return Ok(());
            }
            self.lost = true;
            return self.damage(number, "it does not start with a member");
        }
        self.lost = false;
        frame.entries.into_iter().try_for_each(|entry| self.visitor.entry(entry))?;
        self.open = frame.open;
        // What came before the problem counts; what follows it in this frame cannot be found.
        if let Some(problem) = frame.problem {
            self.lost = true;
            self.damage(number, problem)?;
        }
        Ok(())
    }

    /// A frame with nothing but content of the open member.
    fn continue_member(
        &mut self,
        open: Locator,
        number: u32,
        len: u64,
    ) -> Result<(), PersistError> {
        match open.advance(number, 0, len) {
            // Behind it the frame holds other names of the same inode at most, and the entry has
            // those.
            Ok(Located::All(entry)) => self.visitor.entry(entry),
            Ok(Located::More(open)) => {
                self.open = Some(open);
                Ok(())
            }
            Err(problem) => {
                self.lost = true;
                self.damage(number, problem)
            }
        }
    }

    /// The open member ends here: what was found of it counts.
    fn give_up(&mut self) -> Result<(), PersistError> {
        self.lost = true;
        self.open.take().map_or(Ok(()), |open| self.visitor.entry(open.into_found()))
    }

    fn finish(&mut self) -> Result<(), PersistError> {
        if self.open.is_none() {
            return Ok(());
        }
        self.give_up()?;
        // Named by the frame that is lacking: the last one that is there is whole.
        self.damage(self.reader.n_frames(), "the last member is cut short")
    }

    fn damage(&mut self, number: u32, problem: &'static str) -> Result<(), PersistError> {
        self.visitor.damage(PersistError::damaged(frame_name(self.reader, number), problem))
    }
}

/// Reads bytes as a frame.
#[cfg(fuzzing)]
pub(crate) fn fuzz_frame(bytes: &[u8], known: Expected) {
    let scanned = scan_frame(bytes, 1, Known { expected: known, token: None });
    if let Some(open) = scanned.open {
        drop(open.advance(2, 0, to_u64(bytes.len())));
    }
}
