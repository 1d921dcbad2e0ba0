//! The shape of a source file.

/// A longer file holds more than one idea.
const LINES_MAX: usize = 500;

/// As wide as code, which is formatted; comments are not.
const COLUMNS_MAX: usize = 100;

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
        let n_columns = line.chars().count();
        let line = line.trim_start();
        // A row of a table cannot be broken, nor an address.
        let is_one_piece = line.contains("| ") || line.contains("://");
        if line.starts_with("//") && n_columns > COLUMNS_MAX && !is_one_piece {
            problems.push(format!(
                "line {}: a comment of {n_columns} columns; at most {COLUMNS_MAX}",
                line_idx + 1
            ));
        }
        if line.starts_with("#[allow(") || line.starts_with("#![allow(") {
            problems.push(format!("line {}: allow; use expect with a reason", line_idx + 1));
        }
        if line.starts_with("#[ignore") {
            problems.push(format!("line {}: an ignored test", line_idx + 1));
        }
    }
    problems
}
