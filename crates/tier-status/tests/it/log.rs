//! What a status log keeps, and what it does not take.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tier_status::{
    Event, Place, Stage, StatusError, StatusHeader, StatusLog, StatusSink, StatusWriter,
};
use tier_types::{
    ByteRange, Clock, CloudId, CloudPlace, Epoch, ErrorKind, HasKind, SnapshotId, Timestamp, Xid,
    XidRange,
};

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: 1_480_000_000, nanos: 5 }
    }
}

const HEADER: StatusHeader = StatusHeader { epoch: Epoch::new(1), snapshot: SnapshotId::new(12) };

fn events() -> Vec<Event> {
    vec![
        Event::Started { range: XidRange::new(Xid::new(3), Xid::new(90)).unwrap() },
        Event::InodeFailed { ino: 7, error: "no chunk\nat all = 100 %".into() },
        Event::RangeUnread {
            ino: 8,
            bytes: ByteRange { offset: 65536, len: 131_072 },
            error: "no chunk".into(),
        },
        Event::TarballSealed { name: "t0".into(), bytes: 1000, n_members: 3 },
        Event::Resumed,
        Event::Committed {
            manifest: "m".into(),
            n_tarballs: 1,
            n_inodes: 3,
            data_bytes: 5000,
            tarball_bytes: 1000,
        },
        Event::Indexed,
        Event::Failed { step: "push".into(), error: "away".into() },
        Event::Pushed { name: "t0".into(), bytes: 1000, cloud: cloud() },
        Event::Verified { place: Place::Cloud(cloud()) },
        Event::Verified { place: Place::Local },
        Event::Unverified { place: Place::Local, problem: "t0 is damaged".into() },
        Event::RestoredFrom { place: Place::Cloud(cloud()) },
        Event::ObjectLost { name: "t0".into(), checkpoint: Some(SnapshotId::new(9)) },
        Event::ObjectLost { name: "t1".into(), checkpoint: None },
        Event::ObjectFound { name: "t1".into() },
        Event::Evicted { n_inodes: 2, bytes: 4000 },
    ]
}

fn cloud() -> CloudPlace {
    let url = "file:///a b".into();
    CloudPlace { id: CloudId::from_bytes([7; 16]), url }
}

fn written(path: &Path) -> Vec<u8> {
    let writer = StatusWriter::open(path, HEADER, Arc::new(Stopped)).unwrap();
    for event in events() {
        writer.report(event).unwrap();
    }
    fs::read(path).unwrap()
}

#[test]
fn events_survive_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = written(&dir.path().join("s"));
    let log = StatusLog::parse(&bytes, Path::new("s")).unwrap().unwrap();
    assert_eq!(log.header(), HEADER);
    let read: Vec<_> = log.records().iter().map(|record| record.event.clone()).collect();
    assert_eq!(read, events());
    let status = log.status();
    assert_eq!(
        (status.stage_in(&Place::Cloud(cloud())), status.evicted_bytes),
        (Stage::Evicted, 4000)
    );
    assert_eq!((status.failed_inodes, status.last_error), (vec![7], None));
    insta::assert_snapshot!(String::from_utf8(bytes).unwrap());
}

#[test]
fn a_torn_last_line_did_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let bytes = written(&path);
    for len in 0..bytes.len() {
        let n_whole = bytes[..len].split(|&byte| byte == b'\n').count() - 1;
        let log = StatusLog::parse(&bytes[..len], &path).unwrap();
        assert_eq!(log.map_or(0, |log| log.records().len() + 1), n_whole);
    }
    // The writer cuts it off and goes on.
    fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let writer = StatusWriter::open(&path, HEADER, Arc::new(Stopped)).unwrap();
    writer.report(Event::Resumed).unwrap();
    let log = StatusLog::read(&path).unwrap().unwrap();
    assert_eq!(log.records().len(), events().len());
    assert_eq!(log.records().last().unwrap().event, Event::Resumed);
}

#[test]
fn a_changed_or_missing_line_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = written(&dir.path().join("s"));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let parsed = StatusLog::parse(&damaged, Path::new("s"));
        // A changed newline at the end makes a torn line.
        let torn = at == bytes.len() - 1;
        assert!(torn || matches!(parsed, Err(StatusError::Damaged { .. })), "byte {at}");
    }
    let lines: Vec<_> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    for missing in 0..lines.len() - 1 {
        let rest: Vec<_> = (0..lines.len()).filter(|i| *i != missing).map(|i| lines[i]).collect();
        let parsed = StatusLog::parse(&rest.concat(), Path::new("s"));
        assert!(matches!(parsed, Err(StatusError::Damaged { .. })), "line {missing}");
    }
}

#[test]
fn lines_that_are_swapped_or_from_another_log_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = written(&dir.path().join("s"));
    let other = StatusHeader { snapshot: SnapshotId::new(13), ..HEADER };
    let path = dir.path().join("t");
    let writer = StatusWriter::open(&path, other, Arc::new(Stopped)).unwrap();
    for event in events() {
        writer.report(event).unwrap();
    }
    let theirs = fs::read(&path).unwrap();
    let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let (own, theirs) = (lines(&bytes), lines(&theirs));
    for at in 0..own.len() - 1 {
        let mut swapped = own.clone();
        swapped.swap(at, at + 1);
        let mut foreign = own.clone();
        foreign[at + 1] = theirs[at + 1].clone();
        let mut zeroed = bytes.clone();
        let start: usize = own[..at].iter().map(Vec::len).sum();
        zeroed[start..start + own[at].len()].fill(0);
        for damaged in [swapped.concat(), foreign.concat(), zeroed] {
            let parsed = StatusLog::parse(&damaged, Path::new("s"));
            assert!(matches!(parsed, Err(StatusError::Damaged { .. })), "line {at}: {parsed:?}");
        }
    }
}

#[test]
fn a_log_of_another_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    written(&path);
    let other = StatusHeader { snapshot: SnapshotId::new(13), ..HEADER };
    assert!(StatusWriter::open(&path, other, Arc::new(Stopped)).is_err());
}

#[test]
fn a_log_without_a_complete_header_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let bytes = written(&path);
    let header_bytes = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for torn_bytes in [0, 1, header_bytes - 1] {
        fs::write(&path, &bytes[..torn_bytes]).unwrap();
        assert_eq!(StatusLog::read(&path).unwrap(), None, "nothing happened yet");
        assert_eq!(written(&path), bytes, "{torn_bytes} bytes were left");
    }
}

#[test]
fn a_log_that_is_opened_again_continues_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let whole = written(&dir.path().join("whole"));
    let path = dir.path().join("s");
    for event in events() {
        let writer = StatusWriter::open(&path, HEADER, Arc::new(Stopped)).unwrap();
        writer.report(event).unwrap();
    }
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn damage_is_never_cut_off_by_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut bytes = written(&path);
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = StatusWriter::open(&path, HEADER, Arc::new(Stopped)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains(&format!("line {}", events().len() + 1)), "{text}");
    assert!(text.contains("move it away"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "evidence stays");
}

#[test]
fn a_line_that_is_too_long_or_no_text_is_damage() {
    for line in [vec![b'x'; 17 * 1024], vec![0xff; 20]] {
        let bytes = [&line[..], b"\n"].concat();
        let error = StatusLog::parse(&bytes, Path::new("s")).unwrap_err();
        assert!(matches!(error, StatusError::Damaged { line: 1, .. }), "{error:?}");
    }
}
