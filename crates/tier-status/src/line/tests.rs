//! Unit tests of the status chain and its lines.

use super::*;

const TIME: Timestamp = Timestamp { seconds: -3, nanos: 7 };

fn there_and_back(event: Event) -> Event {
    let text = event_to_text(&EventRecord { time: TIME, event });
    let record = event_from_text(&text).expect("what was written can be read");
    assert_eq!(record.time, TIME, "{text}");
    record.event
}

#[test]
fn every_byte_of_a_value_survives() {
    let text: String = (0..=0xff).filter_map(char::from_u32).collect();
    for value in ["", " ", "%", "=", "a=b c\nd", "\u{0}", text.as_str()] {
        let event = Event::Failed { step: value.into(), error: value.into() };
        assert_eq!(there_and_back(event.clone()), event, "{value:?}");
    }
    assert_eq!(escape("a b%\n\u{e9}="), "a%20b%25%0a%c3%a9=");
}

#[test]
fn the_smallest_and_the_largest_numbers_survive() {
    for number in [0, 1, u64::MAX] {
        let event = Event::Evicted { n_inodes: number, bytes: number };
        assert_eq!(there_and_back(event.clone()), event);
        let bytes = ByteRange { offset: number, len: number };
        let event = Event::RangeUnread { ino: number, bytes, error: "damaged".into() };
        assert_eq!(there_and_back(event.clone()), event);
    }
}

#[test]
fn a_long_value_is_cut_and_its_line_is_still_readable() {
    // Two bytes each, of which the limit cuts none in half, and one byte before them, so that
    // it does.
    for value in ["\u{e9}".repeat(5000), format!("x{}", "\u{e9}".repeat(5000))] {
        let event = Event::Failed { step: value.clone(), error: value.clone() };
        let line = Chain::default().seal(&event_to_text(&EventRecord { time: TIME, event }));
        assert!(line.len() <= LINE_BYTES_MAX, "{}", line.len());
        let text = Chain::default().open(line.trim_end()).unwrap().to_string();
        let Some(Event::Failed { error, .. }) = event_from_text(&text).map(|r| r.event) else {
            panic!("{text} is no failure");
        };
        let whole = error.trim_end_matches(char::REPLACEMENT_CHARACTER);
        assert!(value.starts_with(whole), "{error}");
        assert!(whole.len() >= VALUE_BYTES_MAX - 1);
    }
}

#[test]
fn text_that_is_no_event_is_refused() {
    for text in [
        "",
        "resumed",
        "1 resumed",
        "1.0",
        "1.x resumed",
        "1.0 unheard-of",
        "1.0 started start=3 end=3",
        "1.0 started start=3",
        "1.0 evicted inodes=-1 bytes=0",
        "1.0 evicted inodes=18446744073709551616 bytes=0",
        "1.0 verified tier=moon",
        "1.0 verified cloud",
        "1.0 failed step=%2 error=",
        "1.0 failed step=%zz error=",
    ] {
        assert_eq!(event_from_text(text), None, "{text:?}");
    }
}

#[test]
fn only_a_header_of_version_1_is_one() {
    let header = StatusHeader { epoch: Epoch::new(2), snapshot: SnapshotId::new(u64::MAX) };
    assert_eq!(header_from_text(&header_to_text(&header)), Some(header));
    for text in [
        "tier-status 2 epoch=1 snapshot=1",
        "tier-status 10 epoch=1 snapshot=1",
        "tier-status 1epoch=1 snapshot=1",
        "tier-status 1 epoch=1",
        "tier-evict 1 epoch=1 snapshot=1",
    ] {
        assert_eq!(header_from_text(text), None, "{text:?}");
    }
}

#[test]
fn a_line_fits_only_where_it_was_sealed() {
    let mut writer = Chain::default();
    let lines = ["one", "two", "two"].map(|text| writer.seal(text));
    assert_ne!(lines[1], lines[2], "the same text at another place");
    let mut reader = Chain::default();
    let read = lines.each_ref().map(|line| reader.open(line.trim_end()).map(String::from));
    assert_eq!(read, ["one", "two", "two"].map(|text| Some(text.into())));
    assert_eq!(reader, writer, "a writer goes on where a reader ended");
    let mut late = Chain::default();
    assert_eq!(late.open(lines[1].trim_end()), None);
    assert_eq!(late, Chain::default(), "a line that does not fit moves nothing");
}
