//! The status chain: text lines, each with a digest that continues the line before.
//!
//! A line is `TEXT DIGEST\n`. The digest is cut from the SHA-256 of the *previous line's digest*
//! and TEXT, and the first line starts from nothing. A digest of one line therefore vouches for
//! every line up to it, in their order: a line that was changed, swapped, left out or taken from
//! another log does not fit, and neither does any line after it.
//!
//! The log is appended to while a crash may come at any byte. What a crash can leave is a prefix of
//! what was written: whole lines, then perhaps the first bytes of one more. The two cases look
//! different, and are told apart by the newline alone:
//!
//! - **A last line without a newline is torn.** It did not happen. The writer returns from a report
//!   only after the line was synced, so that no work was built on it; the next writer cuts it off.
//! - **A line with a newline is complete**, and then its digest must fit. If it does not, the file
//!   is damaged, wherever the line is: bytes under a newline were all written, and a disk that
//!   brings others back has lost something that work was built on.
//!
//! A torn line whose lost bytes come back as zeros has no newline either, and is cut in the same
//! way. A newline that turned into another byte joins two lines, whose digest does not fit, or
//! makes the last line a torn one. That loss cannot be told from a crash, and costs what a crash
//! costs: the step of which the event told is done once more, and every step can be repeated.
//!
//! Damage is an error and never skipped. Events after a damaged line may say "verified", on which
//! eviction relies, and a chain that is broken vouches for none of them. An operator may move the
//! file away: what it said is found out again, from the manifest and by reading the objects back.
//!
//! 64 bits of digest find accidents. They are no signature: a program that can write the file can
//! make a chain that fits.

use std::collections::HashMap;
use std::fmt::{Display, Write};

use ring::digest::{SHA256, digest};
use tier_types::{ByteRange, CloudId, CloudPlace, Epoch, SnapshotId, Timestamp, Xid, XidRange};

use crate::{Event, EventRecord, Place, StatusHeader};

/// Longest line that a reader accepts, without its newline.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// Longest value of a field; what is longer is cut when it is written. Escaped it has up to three
/// times as many bytes, and no event has more than two fields that are text.
const VALUE_BYTES_MAX: usize = 2048;
/// Bytes of the SHA-256 that a line keeps.
const DIGEST_BYTES: usize = 8;

/// The digest that the next line continues: 16 hexadecimal digits, none before the first line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chain(String);

impl Chain {
    /// `text` with the digest that chains it to the lines before, and a newline.
    pub(crate) fn seal(&mut self, text: &str) -> String {
        assert!(!text.contains('\n'), "a line is one line");
        self.0 = self.digest_of(text);
        let line = format!("{text} {}\n", self.0);
        assert!(line.len() <= LINE_BYTES_MAX, "a writer writes no line that a reader refuses");
        line
    }

    /// The text of a line whose digest fits.
    pub(crate) fn open<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        // From the end, because the text holds spaces and a digest none.
        let (text, stored) = line.rsplit_once(' ')?;
        let expected = self.digest_of(text);
        if stored != expected {
            return None;
        }
        // Only a line that fits moves the chain on, and no reader goes past one that does not.
        self.0 = expected;
        Some(text)
    }

    fn digest_of(&self, text: &str) -> String {
        // A newline keeps the two apart, because no text contains one.
        let full = digest(&SHA256, format!("{}\n{text}", self.0).as_bytes());
        let digits =
            full.as_ref().iter().take(DIGEST_BYTES).fold(String::new(), |mut out, byte| {
                // Writing to a string cannot fail.
                let _ = write!(out, "{byte:02x}");
                out
            });
        assert_eq!(digits.len(), 2 * DIGEST_BYTES, "a digest has a fixed length");
        digits
    }
}

pub(crate) fn header_to_text(header: &StatusHeader) -> String {
    format!("tier-status 1 epoch={} snapshot={}", header.epoch, header.snapshot)
}

pub(crate) fn header_from_text(text: &str) -> Option<StatusHeader> {
    // The version is part of the prefix, so that a header of another version is none.
    let fields = Fields::parse(text.strip_prefix("tier-status 1 ")?)?;
    Some(StatusHeader {
        epoch: Epoch::new(fields.number("epoch")?),
        snapshot: SnapshotId::new(fields.number("snapshot")?),
    })
}

pub(crate) fn event_to_text(record: &EventRecord) -> String {
    // Nanoseconds with zeros in front, so that the time reads as a decimal number of seconds.
    let mut out = format!("{}.{:09} ", record.time.seconds, record.time.nanos);
    let mut line = |word: &str, fields: &[(&str, &dyn Display)]| {
        out.push_str(word);
        for (key, value) in fields {
            let _ = write!(out, " {key}={}", escape(&value.to_string()));
        }
    };
    match &record.event {
        Event::Started { range } => {
            line("started", &[("start", &range.start()), ("end", &range.end())]);
        }
        Event::Resumed => line("resumed", &[]),
        Event::TarballSealed { name, bytes, n_members } => {
            line("sealed", &[("name", name), ("bytes", bytes), ("members", n_members)]);
        }
        Event::InodeFailed { ino, error } => {
            line("inode-failed", &[("ino", ino), ("error", error)]);
        }
        Event::RangeUnread { ino, bytes: ByteRange { offset, len }, error } => line(
            "range-unread",
            &[("ino", ino), ("offset", offset), ("len", len), ("error", error)],
        ),
        Event::Committed { manifest, n_tarballs, n_inodes, data_bytes, tarball_bytes } => line(
            "committed",
            &[
                ("manifest", manifest),
                ("tarballs", n_tarballs),
                ("inodes", n_inodes),
                ("data", data_bytes),
                ("bytes", tarball_bytes),
            ],
        ),
        Event::Indexed => line("indexed", &[]),
        Event::Pushed { name, bytes, cloud: CloudPlace { id, url } } => {
            line("pushed", &[("name", name), ("bytes", bytes), ("cloud", id), ("url", url)]);
        }
        Event::Verified { place: Place::Local } => line("verified", &[("tier", &"local")]),
        Event::Verified { place: Place::Cloud(CloudPlace { id, url }) } => {
            line("verified", &[("tier", &"cloud"), ("cloud", id), ("url", url)]);
        }
        Event::Unverified { place: Place::Local, problem } => {
            line("unverified", &[("tier", &"local"), ("problem", problem)]);
        }
        Event::Unverified { place: Place::Cloud(CloudPlace { id, url }), problem } => line(
            "unverified",
            &[("tier", &"cloud"), ("cloud", id), ("url", url), ("problem", problem)],
        ),
        Event::RestoredFrom { place: Place::Local } => line("restored", &[("tier", &"local")]),
        Event::RestoredFrom { place: Place::Cloud(CloudPlace { id, url }) } => {
            line("restored", &[("tier", &"cloud"), ("cloud", id), ("url", url)]);
        }
        Event::ObjectLost { name, checkpoint: None } => line("object-lost", &[("name", name)]),
        Event::ObjectLost { name, checkpoint: Some(checkpoint) } => {
            line("object-lost", &[("name", name), ("checkpoint", checkpoint)]);
        }
        Event::ObjectFound { name } => line("object-found", &[("name", name)]),
        Event::Evicted { n_inodes, bytes } => {
            line("evicted", &[("inodes", n_inodes), ("bytes", bytes)]);
        }
        Event::Failed { step, error } => line("failed", &[("step", step), ("error", error)]),
    }
    out
}

pub(crate) fn event_from_text(text: &str) -> Option<EventRecord> {
    let (time, rest) = text.split_once(' ')?;
    let (seconds, nanos) = time.split_once('.')?;
    let time = Timestamp { seconds: seconds.parse().ok()?, nanos: nanos.parse().ok()? };
    // A word without fields is the whole rest.
    let (word, fields) = rest.split_once(' ').unwrap_or((rest, ""));
    let fields = Fields::parse(fields)?;
    let event = match word {
        "started" => Event::Started {
            range: XidRange::new(
                Xid::new(fields.number("start")?),
                Xid::new(fields.number("end")?),
            )?,
        },
        "resumed" => Event::Resumed,
        "sealed" => Event::TarballSealed {
            name: fields.text("name")?,
            bytes: fields.number("bytes")?,
            n_members: fields.number("members")?,
        },
        "inode-failed" => {
            Event::InodeFailed { ino: fields.number("ino")?, error: fields.text("error")? }
        }
        "range-unread" => Event::RangeUnread {
            ino: fields.number("ino")?,
            bytes: ByteRange { offset: fields.number("offset")?, len: fields.number("len")? },
            error: fields.text("error")?,
        },
        "committed" => Event::Committed {
            manifest: fields.text("manifest")?,
            n_tarballs: fields.number("tarballs")?,
            n_inodes: fields.number("inodes")?,
            data_bytes: fields.number("data")?,
            tarball_bytes: fields.number("bytes")?,
        },
        "indexed" => Event::Indexed,
        "pushed" => Event::Pushed {
            name: fields.text("name")?,
            bytes: fields.number("bytes")?,
            cloud: fields.cloud()?,
        },
        "verified" => Event::Verified { place: fields.place()? },
        "unverified" => {
            Event::Unverified { place: fields.place()?, problem: fields.text("problem")? }
        }
        "restored" => Event::RestoredFrom { place: fields.place()? },
        "object-lost" => Event::ObjectLost {
            name: fields.text("name")?,
            checkpoint: fields.number("checkpoint").map(SnapshotId::new),
        },
        "object-found" => Event::ObjectFound { name: fields.text("name")? },
        "evicted" => {
            Event::Evicted { n_inodes: fields.number("inodes")?, bytes: fields.number("bytes")? }
        }
        "failed" => Event::Failed { step: fields.text("step")?, error: fields.text("error")? },
        // Not skipped: a later version's event may take back what an earlier one said.
        _ => return None,
    };
    Some(EventRecord { time, event })
}

struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        text.split_ascii_whitespace()
            // Fields that no event asks for do no harm: the digest vouches for the whole line.
            .map(|field| field.split_once('='))
            .collect::<Option<_>>()
            .map(Self)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.parse().ok()
    }

    fn cloud(&self) -> Option<CloudPlace> {
        Some(CloudPlace { id: CloudId::parse(self.0.get("cloud")?)?, url: self.text("url")? })
    }

    fn place(&self) -> Option<Place> {
        match *self.0.get("tier")? {
            "local" => Some(Place::Local),
            "cloud" => Some(Place::Cloud(self.cloud()?)),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        unescape(self.0.get(key)?)
    }
}

/// Percent-encodes everything that could end a field or a line.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    // Cut before it is escaped: at most three times as long, it then fits whatever its bytes are.
    for byte in value.bytes().take(VALUE_BYTES_MAX) {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
    }
    out
}

fn unescape(value: &str) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            // Values are cut before they are escaped: an escape that is cut off was never written.
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    // A value that was cut may end within a character.
    Some(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests;
