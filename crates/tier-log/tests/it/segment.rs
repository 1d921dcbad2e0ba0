//! Segments: what is written is read, and nothing else is taken for it.

use std::path::Path;

use tier_log::{LogError, LogRecord, Operation, SegmentReader, SegmentWriter};
use tier_types::{FileName, Ino, Link, Timestamp, Xid, XidRange};

fn records(n: u64) -> Vec<LogRecord> {
    let link = |i: u64| Link {
        parent: Ino::new(1),
        name: FileName::new(format!("file {i}\n").as_bytes()).unwrap(),
    };
    let operation = |i: u64| match i % 5 {
        0 => Operation::Create { ino: Ino::new(i), link: Some(link(i)) },
        1 => Operation::Write { ino: Ino::new(i), offset: i << 33, len: 7 },
        2 => Operation::Rename { ino: Ino::new(i), from: link(i), to: link(i + 1), replaced: None },
        3 => Operation::SetXattr { ino: Ino::new(i), name: b"user.\xff".to_vec() },
        _ => Operation::Gone { ino: Ino::new(i) },
    };
    let time = |i: u64| Timestamp { seconds: -5, nanos: u32::try_from(i % 1000).unwrap() };
    (0..n)
        .map(|i| LogRecord { xid: Xid::new(i + 10), time: time(i), operation: operation(i) })
        .collect()
}

fn segment(records: &[LogRecord]) -> Vec<u8> {
    let range = XidRange::new(records[0].xid, records.last().unwrap().xid.next()).unwrap();
    let mut writer = SegmentWriter::new(Vec::new(), Path::new("test"), range, 4096).unwrap();
    for record in records {
        writer.append(record).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<LogRecord>, LogError> {
    SegmentReader::new(bytes, Path::new("test"))?.collect()
}

#[test]
fn a_segment_survives_a_round_trip() {
    let records = records(10_000);
    assert_eq!(read(&segment(&records)).unwrap(), records);
}

#[test]
fn no_cut_of_a_segment_is_a_segment() {
    let bytes = segment(&records(20));
    for len in 0..bytes.len() {
        let error = read(&bytes[..len]).unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "{len}: {error}");
    }
    assert!(read(&[&bytes[..], b"x"].concat()).is_err());
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = segment(&records(20));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = read(&damaged).unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "byte {at}: {error}");
    }
}

#[test]
fn a_zeroed_block_is_found() {
    let mut bytes = segment(&records(20));
    bytes[48..].fill(0);
    assert!(matches!(read(&bytes), Err(LogError::Damaged { offset_bytes: 48, .. })));
}

/// Blocks that are swapped, replaced, or of an older file of the same name.
#[test]
fn no_mixture_of_segments_is_a_segment() {
    // Long names, so that there is more than one block.
    let long = |n: u64, first: u64| {
        let name = FileName::new(&[b'n'; 255]).unwrap();
        let link = Link { parent: Ino::new(1), name };
        let record = |i: u64| LogRecord {
            xid: Xid::new(first + i),
            time: Timestamp::default(),
            operation: Operation::Create { ino: Ino::new(i), link: Some(link.clone()) },
        };
        segment(&(0..n).map(record).collect::<Vec<_>>())
    };
    let (whole, other) = (long(9000, 10), long(9000, 20));
    let starts: Vec<_> = (0..whole.len() - 4).filter(|&at| &whole[at..at + 4] == b"BLCK").collect();
    assert!(starts.len() > 2, "{starts:?}");
    let (first, second, third) = (starts[0], starts[1], starts[2]);
    let swapped =
        [&whole[..first], &whole[second..third], &whole[first..second], &whole[third..]].concat();
    let doubled = [&whole[..second], &whole[first..]].concat();
    let dropped = [&whole[..first], &whole[second..]].concat();
    let mixed = [&whole[..second], &other[second..]].concat();
    let headed = [&whole[..first], &other[first..]].concat();
    for (what, bytes) in [
        ("swapped", swapped),
        ("doubled", doubled),
        ("dropped", dropped),
        ("mixed", mixed),
        ("another's blocks", headed),
    ] {
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("test"), "it names the file: {error}");
    }
}

#[test]
fn the_golden_segment_of_version_1_is_read() {
    let golden = include_bytes!("../../../../testdata/formats/v1/log.segment");
    assert_eq!(read(golden).unwrap(), records(12));
    assert_eq!(segment(&records(12)), golden, "the format has not changed");
}
