//! What the numbers of a demo mean, said at its end.

use std::iter;
use std::time::Duration;

use serde_json::{Value, json};

use super::compare::Compared;
use crate::console::output;

/// What a demo measured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// What was compared with the original, each time.
    pub(super) compared: Compared,
    /// File data, and the tarballs that it went into.
    pub(super) data_bytes: u64,
    pub(super) tarball_bytes: u64,
    /// The key-value store on disk, before and after everything was evicted.
    pub(super) kvs_before_bytes: u64,
    pub(super) kvs_after_bytes: u64,
    /// The first byte of a file whose data was evicted, if there was one.
    pub(super) first_byte: Option<FirstByte>,
    /// Whether owners were compared.
    pub(super) as_root: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FirstByte {
    /// The length of the file.
    pub(super) file_bytes: u64,
    /// How long it took.
    pub(super) elapsed: Duration,
}

impl Numbers {
    pub(super) fn text(&self) -> String {
        let mut text = String::from("What the numbers mean:\n");
        let mut row = |name: &str, lines: &[String]| {
            let names = iter::once(name).chain(iter::repeat(""));
            for (name, line) in names.zip(lines) {
                text.push_str(&format!("  {name:<11}  {line}\n"));
            }
        };
        row("compared", &self.compared_text());
        row("compression", &self.compression_text());
        row("space", &self.space_text());
        if let Some(first) = self.first_byte {
            row("cold read", &first.text());
        }
        text
    }

    fn compared_text(&self) -> [String; 3] {
        let Compared { n_entries, bytes } = self.compared;
        let owners = if self.as_root { "owners, " } else { "" };
        [
            format!(
                "{n_entries} files and directories, {}, in names, content, modes,",
                output::bytes(bytes)
            ),
            format!(
                "{owners}times, links and extended attributes: the same after eviction, and the"
            ),
            "same in a second store, which was made from the cloud's copy alone".into(),
        ]
    }

    fn compression_text(&self) -> [String; 1] {
        let [data, tarballs] = [self.data_bytes, self.tarball_bytes].map(output::bytes);
        let sentence = format!("encrypted: {data} of data lie in {tarballs} of tarballs");
        [match self.compression() {
            Some(ratio) => format!("{ratio:.1} to 1, {sentence}"),
            None => sentence,
        }]
    }

    fn space_text(&self) -> [String; 3] {
        let [before, after] = [self.kvs_before_bytes, self.kvs_after_bytes];
        let [freed, before, after] =
            // Where little was evicted, the store may have grown by its own bookkeeping.
            [before.saturating_sub(after), before, after].map(output::bytes);
        [
            format!("{freed} of {before} that the key-value store took went back to the disk;"),
            format!("{after} are left: names and attributes, and what the key-value store has not"),
            "compacted yet".into(),
        ]
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "compared": self.compared.n_entries,
            "compared_bytes": self.compared.bytes,
            "data_bytes": self.data_bytes,
            "tarball_bytes": self.tarball_bytes,
            "kvs_before_bytes": self.kvs_before_bytes,
            "kvs_after_bytes": self.kvs_after_bytes,
            "first_byte_seconds": self.first_byte.map(|first| first.elapsed.as_secs_f64()),
        })
    }

    /// Data for each byte of tarball; none where there is no data.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a ratio to be read")]
    fn compression(&self) -> Option<f64> {
        // Without data the ratio would be no number, and with no tarballs it would be infinite.
        let is_some = self.data_bytes > 0 && self.tarball_bytes > 0;
        is_some.then(|| self.data_bytes as f64 / self.tarball_bytes as f64)
    }
}

impl FirstByte {
    fn text(self) -> [String; 2] {
        let milliseconds = self.elapsed.as_secs_f64() * 1000.0;
        let file = output::bytes(self.file_bytes);
        [
            format!(
                "{milliseconds:.1} ms to the first byte of an evicted file of {file}: one range of"
            ),
            "a tarball is read and decrypted; a cloud's own latency comes on top".into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_told_in_words() {
        let numbers = Numbers {
            compared: Compared { n_entries: 12_345, bytes: 300 << 20 },
            data_bytes: 290 << 20,
            tarball_bytes: 100 << 20,
            kvs_before_bytes: 310 << 20,
            kvs_after_bytes: 6 << 20,
            first_byte: Some(FirstByte {
                file_bytes: 20 << 20,
                elapsed: Duration::from_micros(3_210),
            }),
            as_root: true,
        };
        insta::assert_snapshot!(numbers.text());
        let nothing = Numbers::default().text();
        assert!(nothing.contains("compression  encrypted: 0 B of data"), "{nothing}");
        assert!(!nothing.contains("cold read") && !nothing.contains("owners"), "{nothing}");
    }
}
