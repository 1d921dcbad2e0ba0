//! Records of a pax extended header: `length key=value\n`, where the length counts itself.
//!
//! All that this software needs to know of a member is in records `TIER.*`, which other programs
//! skip; what those know by another name (times, extended attributes, long paths) is under that
//! name. Keys and values are read by length and not by line, because a file's name, and so a value,
//! may hold newlines.

use tier_types::{FileName, Ino, Link, Timestamp, to_u64};

pub(crate) const FILESYSTEM: &str = "TIER.filesystem";
pub(crate) const VERSION: &str = "TIER.version";
pub(crate) const EPOCH: &str = "TIER.epoch";
pub(crate) const SNAPSHOT: &str = "TIER.snapshot";
pub(crate) const PART: &str = "TIER.part";
pub(crate) const RANGE: &str = "TIER.range";
pub(crate) const CHUNK: &str = "TIER.chunk";
pub(crate) const INO: &str = "TIER.ino";
pub(crate) const XID: &str = "TIER.xid";
pub(crate) const TYPE: &str = "TIER.type";
pub(crate) const SIZE: &str = "TIER.size";
pub(crate) const NLINK: &str = "TIER.nlink";
pub(crate) const LINKS: &str = "TIER.links";
pub(crate) const TARGET: &str = "TIER.target";
pub(crate) const DEVICE: &str = "TIER.device";
pub(crate) const CREATED: &str = "TIER.btime";
pub(crate) const XATTRS: &str = "TIER.xattrs";
pub(crate) const DATA: &str = "TIER.data";
pub(crate) const HOLES: &str = "TIER.holes";
pub(crate) const LOST: &str = "TIER.lost";
pub(crate) const MAP_BYTES: &str = "TIER.map";
pub(crate) const GONE: &str = "TIER.gone";
pub(crate) const MARK: &str = "TIER.frame";
/// Prefix of extended attributes, as GNU tar and bsdtar know it.
pub(crate) const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// Records being written.
#[derive(Debug)]
pub(crate) struct PaxWriter(Vec<u8>);

impl Default for PaxWriter {
    fn default() -> Self {
        Self(Vec::with_capacity(USUAL_BYTES))
    }
}

/// Room for the records of most members.
const USUAL_BYTES: usize = 512;

impl PaxWriter {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        // " " + key + "=" + value + "\n". The length counts its own digits, and one more digit may
        // make it one digit longer.
        let rest = key.len() + value.len() + 3;
        let mut len = rest + decimal_digits(rest);
        if rest + decimal_digits(len) != len {
            len = rest + decimal_digits(len);
        }
        push_number(&mut self.0, to_u64(len));
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.add(key.as_bytes(), itoa::Buffer::new().format(value).as_bytes());
    }

    pub(crate) fn time(&mut self, key: &str, time: Timestamp) {
        self.add(key.as_bytes(), &format_time(time));
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn decimal_digits(n: usize) -> usize {
    itoa::Buffer::new().format(n).len()
}

/// Appends a decimal number.
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Records that were read, keys and values as they were.
#[derive(Debug, Default)]
pub(crate) struct PaxRecords<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> PaxRecords<'a> {
    pub(crate) fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut records = Vec::with_capacity(16);
        while !bytes.is_empty() {
            // No length has more digits than that: a long record without a space is not searched.
            let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
            let len: usize = std::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
            let (record, rest) = bytes.split_at_checked(len)?;
            // A length that ends within its own digits is refused here.
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            // The first one ends the key; a value may hold more.
            let equals = record.iter().position(|&byte| byte == b'=')?;
            let (key, value) = record.split_at_checked(equals)?;
            records.push((key, value.get(1..)?));
            bytes = rest;
        }
        Some(Self(records))
    }

    /// The last value of a key: later records win.
    pub(crate) fn get(&self, key: &str) -> Option<&'a [u8]> {
        let found = self.0.iter().rev().find(|(k, _)| *k == key.as_bytes());
        found.map(|(_, value)| *value)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    pub(crate) fn time(&self, key: &str) -> Option<Timestamp> {
        parse_time(self.text(key)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.iter().copied()
    }
}

/// A decimal number of seconds; nine places after the point.
fn format_time(time: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    // Seconds are rounded down, and the text has a sign and a magnitude.
    let (seconds, nanos) = if time.seconds < 0 && time.nanos > 0 {
        out.push(b'-');
        (-(time.seconds + 1), 1_000_000_000 - time.nanos)
    } else {
        (time.seconds, time.nanos)
    };
    out.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
    out.push(b'.');
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(nanos).as_bytes();
    assert!(digits.len() <= 9, "nanoseconds are less than a second");
    out.resize(out.len() + 9 - digits.len(), b'0');
    out.extend_from_slice(digits);
    out
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    // Other programs may write fewer places, or more than can be kept.
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let whole: i64 = seconds.parse().ok()?;
    // By the text, because `-0` is parsed to a number without a sign.
    Some(match (text.starts_with('-'), nanos) {
        (false, _) | (true, 0) => Timestamp { seconds: whole, nanos },
        (true, _) => Timestamp { seconds: whole.checked_sub(1)?, nanos: 1_000_000_000 - nanos },
    })
}

/// `parent length:name` for each link, one after another.
pub(crate) fn put_links(out: &mut Vec<u8>, links: &[Link]) {
    for link in links {
        push_number(out, link.parent.get());
        out.push(b' ');
        put_counted(out, link.name.as_bytes());
    }
}

pub(crate) fn parse_links(mut bytes: &[u8]) -> Option<Vec<Link>> {
    let mut links = Vec::new();
    while !bytes.is_empty() {
        let parent = take_number(&mut bytes, b' ')?;
        let name = FileName::new(take_counted(&mut bytes)?)?;
        links.push(Link { parent: Ino::new(parent), name });
    }
    Some(links)
}

/// `length:bytes`.
pub(crate) fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    push_number(out, to_u64(bytes.len()));
    out.push(b':');
    out.extend_from_slice(bytes);
}

pub(crate) fn take_counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_number(bytes, b':')?;
    // Before it becomes a `usize`: the number is from outside.
    if len > to_u64(bytes.len()) {
        return None;
    }
    let (head, rest) = bytes.split_at_checked(tier_types::to_usize(len))?;
    *bytes = rest;
    Some(head)
}

fn take_number(bytes: &mut &[u8], end: u8) -> Option<u64> {
    // A number of 64 bits has at most 20 digits.
    let at = bytes.iter().take(21).position(|&byte| byte == end)?;
    let (digits, rest) = bytes.split_at_checked(at)?;
    *bytes = rest.get(1..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for value_len in (0..120).chain(985..1000) {
            let mut writer = PaxWriter::default();
            writer.add(b"key", &vec![b'\n'; value_len]);
            writer.number("n", 7);
            let bytes = writer.into_bytes();
            let records = PaxRecords::parse(&bytes).unwrap();
            assert_eq!(records.get("key").unwrap().len(), value_len);
            assert_eq!(records.number("n"), Some(7));
        }
    }

    #[test]
    fn times_before_the_epoch_survive() {
        for (seconds, nanos) in [(0, 0), (5, 1), (-1, 500_000_000), (-1, 0), (-7, 999_999_999)] {
            let time = Timestamp { seconds, nanos };
            let text = String::from_utf8(format_time(time)).unwrap();
            assert_eq!(parse_time(&text), Some(time), "{text}");
        }
        let time = Timestamp { seconds: -2, nanos: 500_000_000 };
        assert_eq!(format_time(time), b"-1.500000000");
    }

    #[test]
    fn links_hold_any_bytes() {
        let link =
            |parent, name| Link { parent: Ino::new(parent), name: FileName::new(name).unwrap() };
        let links = vec![link(1, &b"a:b 7\n"[..]), link(u64::MAX, b"\xff")];
        let mut text = Vec::new();
        put_links(&mut text, &links);
        assert_eq!(parse_links(&text), Some(links));
        assert_eq!(parse_links(b"1 99999999999999999999:a"), None);
        assert_eq!(parse_links(b"1 9:a"), None);
    }

    proptest! {
        #[test]
        fn any_keys_and_values_survive(
            records in prop::collection::vec(("[^=]{1,20}", any::<Vec<u8>>()), 0..6),
        ) {
            let mut writer = PaxWriter::default();
            for (key, value) in &records {
                writer.add(key.as_bytes(), value);
            }
            let bytes = writer.into_bytes();
            let read = PaxRecords::parse(&bytes).unwrap();
            let expected: Vec<_> = records.iter().map(|(k, v)| (k.as_bytes(), &v[..])).collect();
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_time_survives(seconds in -1_i64 << 60..1 << 60, nanos in 0_u32..1_000_000_000) {
            let time = Timestamp { seconds, nanos };
            let text = String::from_utf8(format_time(time)).unwrap();
            prop_assert_eq!(parse_time(&text), Some(time));
        }
    }
}
