//! Reads a tarball from its first member to its last and says what is in it, without its table of
//! contents: on all cores, and past what is damaged.

use std::thread;

use crossbeam_channel::bounded;
use tier_index::TarballId;
use tier_types::{ErrorKind, HasKind, to_u64};

use crate::error::PersistError;
use crate::format::names::FilesystemId;
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::identity::{self, TarballIdentity};
use crate::format::tarball::locate::{Located, Locator};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::parse::parse_member;
use crate::format::tarball::pax;
use crate::format::tarball::toc::entry::TocEntry;
use crate::read::tarball_reader::TarballReader;

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

/// What one frame holds.
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
    let identity = read_identity(reader);
    let identity = match (identity, expected) {
        (Ok(identity), Some(Expected { filesystem, id, .. }))
            if (identity.filesystem, identity.id) != (filesystem, id) =>
        {
            return Err(PersistError::damaged(reader.name(), "it is another tarball"));
        }
        (Ok(identity), _) => Some(identity),
        (Err(damage), Some(_)) if !ends_the_scan(&damage) => {
            visitor.damage(damage)?;
            None
        }
        (Err(damage), _) => return Err(damage),
    };
    let says = identity.map(|TarballIdentity { filesystem, id, chunk_bytes, .. }| Expected {
        filesystem,
        id,
        chunk_bytes,
    });
    if let Some(known) = says.or(expected) {
        scan_frames(reader, (known, identity.map(|identity| identity.token)), visitor)?;
    }
    Ok(identity)
}

/// Whether there is no point in looking at other frames.
fn ends_the_scan(damage: &PersistError) -> bool {
    let newer = matches!(
        damage,
        PersistError::Damaged { problem, .. } if *problem == identity::UNKNOWN_VERSION
    );
    newer || damage.kind() != ErrorKind::Damaged
}

fn read_identity(reader: &TarballReader<'_>) -> Result<TarballIdentity, PersistError> {
    let frame = reader.frame(0)?;
    let damaged = |problem| PersistError::damaged(frame_name(reader, 0), problem);
    let first = Blocks::new(&frame, 0).next_member().map_err(damaged)?;
    let first = first.filter(|member| member.path.as_ref() == identity::PATH);
    let first = first.ok_or_else(|| damaged("its first member is not .tier/tarball"))?;
    TarballIdentity::from_records(&first.records).map_err(damaged)
}

fn frame_name(reader: &TarballReader<'_>, number: u32) -> String {
    format!("{} in frame {number}", reader.name())
}

/// Threads take turns with the frames, each a few ahead, so that the order is kept and little
/// waits.
fn scan_frames(
    reader: &TarballReader<'_>,
    known: (Expected, Option<u64>),
    visitor: &mut dyn ScanVisitor,
) -> Result<(), PersistError> {
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let mut turns = Vec::new();
        for (_, first) in (0..n_threads).zip(1..) {
            let (found, arrived) = bounded(2);
            turns.push(arrived);
            scope.spawn(move || {
                for number in (first..reader.n_frames()).step_by(n_threads.max(1)) {
                    let frame = reader.frame(number).map(|f| scan_frame(&f, number, known));
                    // Nobody waits any more when the scan was ended.
                    if found.send(frame).is_err() {
                        return;
                    }
                }
            });
        }
        let mut merger = Merger { reader, visitor, open: None, lost: false };
        for (number, turn) in (1..reader.n_frames()).zip(turns.iter().cycle()) {
            merger.take(number, turn.recv().map_err(|_| PersistError::Pipeline)?)?;
        }
        merger.finish()
    })
}

/// `known` has the token of the marks, if the first frame could be read.
fn scan_frame(frame: &[u8], number: u32, known: (Expected, Option<u64>)) -> ScannedFrame {
    let mut scanned = ScannedFrame {
        len: to_u64(frame.len()),
        starts: false,
        entries: Vec::new(),
        open: None,
        problem: None,
    };
    if let Err(problem) = scan_members(frame, number, known, &mut scanned) {
        scanned.problem = Some(problem);
    }
    scanned
}

fn scan_members(
    frame: &[u8],
    number: u32,
    (known, token): (Expected, Option<u64>),
    scanned: &mut ScannedFrame,
) -> Result<(), &'static str> {
    let mut blocks = Blocks::new(frame, 0);
    // What has no mark of this snapshot is the content of a file, whatever it looks like.
    let first = blocks.next_member().ok().flatten();
    let mark = first.as_ref().and_then(|member| FrameMark::from_records(&member.records));
    let ours = mark.is_some_and(|mark| {
        mark.filesystem == known.filesystem
            && (mark.epoch, mark.snapshot) == (known.id.epoch, known.id.snapshot)
            && token.is_none_or(|token| mark.token == token)
    });
    if !ours {
        return Ok(());
    }
    scanned.starts = true;
    let mut next = first;
    while let Some(raw) = next {
        if raw.records.get(pax::INO).is_some() {
            let parsed = parse_member(&raw.records, raw.header, raw.content_bytes)?;
            let start = (number, u32::try_from(raw.start).unwrap_or(u32::MAX));
            let locator = Locator::new(parsed, start, raw.content_bytes, known.chunk_bytes)?;
            let offset = to_u64(raw.content_at);
            match locator.advance(number, offset, scanned.len.saturating_sub(offset))? {
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
                self.give_up()?;
                return self.visitor.damage(damage);
            }
        };
        // What still belongs to a member is its content, whatever it looks like.
        if let Some(open) = self.open.take() {
            return self.go_on(open, number, frame.len);
        }
        if !frame.starts {
            if self.lost {
                return Ok(());
            }
            self.lost = true;
            return self.damage(number, "it does not start with a member");
        }
        self.lost = false;
        frame.entries.into_iter().try_for_each(|entry| self.visitor.entry(entry))?;
        self.open = frame.open;
        if let Some(problem) = frame.problem {
            self.lost = true;
            self.damage(number, problem)?;
        }
        Ok(())
    }

    /// A frame with nothing but content of the open member.
    fn go_on(&mut self, open: Locator, number: u32, len: u64) -> Result<(), PersistError> {
        match open.advance(number, 0, len) {
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
        self.damage(self.reader.n_frames(), "the last member is cut short")
    }

    fn damage(&mut self, number: u32, problem: &'static str) -> Result<(), PersistError> {
        self.visitor.damage(PersistError::damaged(frame_name(self.reader, number), problem))
    }
}

/// Reads bytes as a frame.
#[cfg(fuzzing)]
pub(crate) fn fuzz_frame(bytes: &[u8], known: Expected) {
    let scanned = scan_frame(bytes, 1, (known, None));
    if let Some(open) = scanned.open {
        drop(open.advance(2, 0, to_u64(bytes.len())));
    }
}
