//! The texts that commands print: sizes, names and times to be read, and damages.
//!
//! Names are printed so that a name cannot do harm on a terminal or look like two: control
//! characters are escaped, and what is not UTF-8 is escaped as a whole. JSON has names as bytes
//! besides.

use serde_json::{Value, json};
use tier_persist::Damage;
use tier_types::Timestamp;

/// Damages as lines, and as objects.
pub(crate) fn damages(damages: &[Damage]) -> (String, Vec<Value>) {
    let line = |damage: &Damage| format!("{}: {}\n", damage.object, damage.problem);
    let object = |damage: &Damage| json!({ "object": damage.object, "problem": damage.problem });
    (damages.iter().map(line).collect(), damages.iter().map(object).collect())
}

/// Bytes with a binary unit, three digits.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// A name to be read: as it is, but for control characters; if it is not UTF-8, escaped.
pub(crate) fn name(name: &[u8]) -> String {
    // A name that is half text and half bytes could look like another one, so that all is escaped.
    let Ok(text) = std::str::from_utf8(name) else { return name.escape_ascii().to_string() };
    let escaped =
        |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// A time in UTC, to the second.
pub(crate) fn time(time: Timestamp) -> String {
    // Euclidean, so that a time before 1970 counts from the midnight before it.
    let days = time.seconds.div_euclid(86_400);
    let second = time.seconds.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01; with March first, leap days come last.
    let shifted = days + 719_468;
    // 146,097 days are 400 years, after which the calendar repeats.
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    assert!((1..=12).contains(&month) && (1..=31).contains(&day), "a day of the calendar");
    // January and February belong to the year before in a year that begins with March.
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_and_three_digits() {
        let texts = [0, 1, 1023, 1024, 1536, 5 << 20, 300_000_000, u64::MAX].map(bytes);
        let expected =
            ["0 B", "1 B", "1023 B", "1.00 KiB", "1.50 KiB", "5.00 MiB", "286.10 MiB", "16.00 EiB"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn names_are_readable() {
        assert_eq!(name("Müller's\n".as_bytes()), "Müller's\\n");
        assert_eq!(name(b"\xff"), "\\xff");
        assert_eq!(name(b"a b\tc"), "a b\\tc");
        assert_eq!(name("\u{1b}[31mred\u{85}".as_bytes()), "\\u{1b}[31mred\\u{85}");
        assert_eq!(name(b""), "");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let text = |seconds| time(Timestamp { seconds, nanos: 0 });
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(text(1_482_019_445), "2016-12-18T00:04:05Z");
        // The ends of a common year, of a leap year, and of a century without a leap day.
        assert_eq!(text(1_672_531_199), "2022-12-31T23:59:59Z");
        assert_eq!(text(1_709_164_800), "2024-02-29T00:00:00Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn damages_are_lines_and_objects() {
        let damage = Damage { object: "a".into(), problem: "odd".into(), missing: false };
        let (text, objects) = damages(&[damage]);
        assert_eq!(text, "a: odd\n");
        assert_eq!(objects, [json!({ "object": "a", "problem": "odd" })]);
    }
}
