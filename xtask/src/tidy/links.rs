//! Files that prose names must be there.

use std::path::Path;

/// A path of the workspace begins with one of these.
const ROOTS: [&str; 5] = ["crates/", "xtask/", "docs/", "testdata/", "fuzz/"];

/// Paths in backquotes, and targets of links relative to the document, that lead nowhere.
pub(super) fn problems(root: &Path, document: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let directory = document.parent().unwrap_or(root);
    for (line_idx, line) in text.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        let named = quoted.filter(|path| is_path(path)).map(|path| (path, root.join(path)));
        let linked = targets(line).map(|target| (target, directory.join(target)));
        for (name, path) in named.chain(linked) {
            if !path.exists() {
                problems.push(format!("line {}: {name} is not there", line_idx + 1));
            }
        }
    }
    problems
}

fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    ROOTS.iter().any(|root| text.starts_with(root)) && text.chars().all(plain)
}

/// The targets of a line's links, without anchors; what leads out of the workspace is left out.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let links = line.split("](").skip(1);
    let targets = links.filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}
