//! One line of a status log (`docs/formats/status-log.md`).

use std::collections::HashMap;
use std::fmt::Write;

use ring::digest::{SHA256, digest};
use tier_types::{Epoch, SnapshotId, Timestamp, Xid, XidRange};

use crate::{Event, EventRecord, StatusHeader, Tier};

/// Longest line that a reader accepts.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// Longest value of a field; what is longer is cut when it is written.
const VALUE_BYTES_MAX: usize = 2048;

/// The digest that the next line continues: 16 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chain(String);

impl Chain {
    /// `text` with the digest that chains it to the lines before, and a newline.
    pub(crate) fn seal(&mut self, text: &str) -> String {
        self.0 = self.digest_of(text);
        format!("{text} {}\n", self.0)
    }

    /// The text of a line whose digest fits.
    pub(crate) fn open<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let (text, stored) = line.rsplit_once(' ')?;
        let expected = self.digest_of(text);
        if stored != expected {
            return None;
        }
        self.0 = expected;
        Some(text)
    }

    fn digest_of(&self, text: &str) -> String {
        let full = digest(&SHA256, format!("{}\n{text}", self.0).as_bytes());
        full.as_ref().iter().take(8).fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }
}

pub(crate) fn header_to_text(header: &StatusHeader) -> String {
    format!("tier-status 1 epoch={} snapshot={}", header.epoch, header.snapshot)
}

pub(crate) fn header_from_text(text: &str) -> Option<StatusHeader> {
    let fields = Fields::parse(text.strip_prefix("tier-status 1")?)?;
    Some(StatusHeader {
        epoch: Epoch::new(fields.number("epoch")?),
        snapshot: SnapshotId::new(fields.number("snapshot")?),
    })
}

pub(crate) fn event_to_text(record: &EventRecord) -> String {
    let mut out = format!("{}.{:09} ", record.time.seconds, record.time.nanos);
    let mut line = |word: &str, fields: &[(&str, &dyn std::fmt::Display)]| {
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
        Event::Pushed { name, bytes } => line("pushed", &[("name", name), ("bytes", bytes)]),
        Event::Verified { tier: Tier::Local } => line("verified", &[("tier", &"local")]),
        Event::Verified { tier: Tier::Cloud } => line("verified", &[("tier", &"cloud")]),
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
        "committed" => Event::Committed {
            manifest: fields.text("manifest")?,
            n_tarballs: fields.number("tarballs")?,
            n_inodes: fields.number("inodes")?,
            data_bytes: fields.number("data")?,
            tarball_bytes: fields.number("bytes")?,
        },
        "indexed" => Event::Indexed,
        "pushed" => Event::Pushed { name: fields.text("name")?, bytes: fields.number("bytes")? },
        "verified" => match fields.text("tier")?.as_str() {
            "local" => Event::Verified { tier: Tier::Local },
            "cloud" => Event::Verified { tier: Tier::Cloud },
            _ => return None,
        },
        "evicted" => {
            Event::Evicted { n_inodes: fields.number("inodes")?, bytes: fields.number("bytes")? }
        }
        "failed" => Event::Failed { step: fields.text("step")?, error: fields.text("error")? },
        _ => return None,
    };
    Some(EventRecord { time, event })
}

struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        text.split_ascii_whitespace()
            .map(|field| field.split_once('='))
            .collect::<Option<_>>()
            .map(Self)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.parse().ok()
    }

    fn text(&self, key: &str) -> Option<String> {
        unescape(self.0.get(key)?)
    }
}

/// Percent-encodes everything that could end a field or a line.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
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
            let digits = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    // A value that was cut may end within a character.
    Some(String::from_utf8_lossy(&out).into_owned())
}
