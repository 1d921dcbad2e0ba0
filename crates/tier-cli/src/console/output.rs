//! The texts that commands print: sizes, names and times to be read, and damages.
//!
//! Names are printed so that a name cannot do harm on a terminal or look like two: control
//! characters are escaped, and what is not UTF-8 is escaped as a whole. JSON has names as bytes
//! besides.

use serde_json::{Value, json};
use tier_persist::Damage;

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
    let Ok(text) = std::str::from_utf8(name) else { return name.escape_ascii().to_string() };
    let escaped =
        |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
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
    fn damages_are_lines_and_objects() {
        let damage = Damage { object: "a".into(), problem: "odd".into(), missing: false };
        let (text, objects) = damages(&[damage]);
        assert_eq!(text, "a: odd\n");
        assert_eq!(objects, [json!({ "object": "a", "problem": "odd" })]);
    }
}
