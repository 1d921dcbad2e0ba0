//! The shape of a source file.

/// A longer file holds more than one idea.
const LINES_MAX: usize = 500;

pub(super) fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let n_lines = text.lines().count();
    if n_lines > LINES_MAX {
        problems.push(format!("{n_lines} lines; at most {LINES_MAX}"));
    }
    let has_head = ["//!", "#![no_main]\n//!"].iter().any(|head| text.starts_with(head));
    if !has_head {
        problems.push("does not open with a //! sentence".into());
    }
    for (line_idx, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
            problems.push(format!("line {}: allow; use expect with a reason", line_idx + 1));
        }
        if line.starts_with("#[ignore") {
            problems.push(format!("line {}: an ignored test", line_idx + 1));
        }
    }
    problems
}
