//! Lost ranges, as commands report them: by path where the file has one, and by inode.
//!
//! What tells of a lost range (a snapshot, the index, a restore) knows inodes. The path is that of
//! the file as it is now, and so is its length: a range may go on behind the end of a file that was
//! cut since.

use anyhow::Result;
use kvfs::{FsError, Kvfs};
use serde_json::{Value, json};
use tier_persist::{LostRange, LostRanges};
use tier_types::ByteRange;

use crate::console::output;

/// Lost ranges as lines, and as objects.
pub(super) struct Listed {
    pub(super) text: String,
    pub(super) json: Vec<Value>,
}

/// Lists ranges; `what` says in each line what became of them.
pub(super) fn list(fs: &Kvfs, ranges: &LostRanges, what: &str) -> Result<Listed> {
    let mut listed = Listed { text: String::new(), json: Vec::new() };
    for LostRange { ino, bytes } in ranges.listed() {
        let path = fs.path_of(*ino)?.map(|path| [b"/", &path[..]].concat());
        let bytes = match fs.getattr(*ino) {
            Ok(attr) => ByteRange::between(bytes.offset, end_of(*bytes).min(attr.size_bytes)),
            // It was removed since, and is told of all the same: the archive still has the rest.
            Err(FsError::NotFound) => *bytes,
            Err(error) => return Err(error.into()),
        };
        let shown = path.as_deref().map_or_else(|| format!("inode {ino}"), output::name);
        listed.text.push_str(&format!("{shown}: bytes {bytes} {what}\n"));
        listed.json.push(json!({
            "ino": ino.get(),
            "path": path.as_deref().map(String::from_utf8_lossy),
            "path_bytes": path,
            "offset": bytes.offset,
            "len": bytes.len,
        }));
    }
    let n_others = ranges.n_ranges().saturating_sub(tier_types::to_u64(ranges.listed().len()));
    if n_others > 0 {
        listed.text.push_str(&format!("and {n_others} more ranges {what}\n"));
    }
    Ok(listed)
}

/// The summary for an error: how many there are, and how much.
pub(super) fn summary(ranges: &LostRanges) -> String {
    format!("{} lost ranges of {}", ranges.n_ranges(), output::bytes(ranges.n_bytes()))
}

fn end_of(bytes: ByteRange) -> u64 {
    bytes.offset.saturating_add(bytes.len)
}
