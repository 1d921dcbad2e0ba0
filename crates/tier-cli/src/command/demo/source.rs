//! The tree that a demo takes: the one that it is given, or one that is large enough to show
//! something.
//!
//! Without a directory to take, a demo takes `/usr/share`, which most systems have: many files of
//! many kinds and sizes, some hundred megabytes of them; where it is not there, the current
//! directory. Of such a tree it takes no more than a newcomer waits for: what comes first in a
//! walk, up to a limit of bytes and of entries, and nothing that this user cannot read. What was
//! taken and what was left out is said. A directory that the user names is taken as a whole.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{Access, access, statvfs};

use crate::console::output;

/// The tree of choice.
const SHARED: &str = "/usr/share";

/// No more than this of a tree that the user did not name.
const LIMIT: Limit = Limit { bytes: 300_000_000, n_entries: 50_000 };

/// The data lies in two stores, in tarballs here and in what stands for the cloud, and in the tree
/// that was read back, some of it twice for a while.
const N_COPIES: u64 = 8;

#[derive(Clone, Copy)]
struct Limit {
    bytes: u64,
    n_entries: usize,
}

/// A tree of the host, or a part of it.
pub(super) struct SourceTree {
    pub(super) dir: PathBuf,
    /// What of it is taken, where that is not all.
    part: Option<Part>,
}

#[derive(Default)]
struct Part {
    taken: HashSet<PathBuf>,
    /// Content of files that are taken.
    bytes: u64,
    n_unreadable: u64,
    /// Whether the limit left something out.
    is_cut: bool,
}

impl SourceTree {
    /// The tree that the user named, or else one that this chooses, for which there is room where
    /// the demo works.
    pub(super) fn choose(named: Option<&Path>, work: &Path) -> Result<Self> {
        // A named tree is taken whole, unreadable files and all: the import then fails with their
        // names.
        if let Some(dir) = named {
            return Ok(Self { dir: canonical(dir)?, part: None });
        }
        let shared = Path::new(SHARED);
        let dir = if shared.is_dir() { shared } else { Path::new(".") };
        // The room is that of the disk on which the demo works, which need not be the tree's.
        let room = statvfs(work).context("cannot tell how much room there is")?;
        // Blocks that are left to an ordinary user, each as long as a fragment.
        let free_bytes = room.f_bavail.saturating_mul(room.f_frsize);
        let bytes = LIMIT.bytes.min(free_bytes / N_COPIES);
        Self::part_of(&canonical(dir)?, Limit { bytes, ..LIMIT })
    }

    /// As much of a tree as is within the limit and can be read.
    fn part_of(dir: &Path, limit: Limit) -> Result<Self> {
        let mut part = Part::default();
        part.take(dir, limit)?;
        let is_whole = part.n_unreadable == 0 && !part.is_cut;
        // A part that is the whole needs no list of paths to ask.
        Ok(Self { dir: dir.to_path_buf(), part: (!is_whole).then_some(part) })
    }

    /// Whether a path below the directory is taken.
    pub(super) fn is_wanted(&self, path: &Path) -> bool {
        self.part.as_ref().is_none_or(|part| part.taken.contains(path))
    }

    /// What is taken, for the user.
    pub(super) fn text(&self) -> String {
        let dir = self.dir.display();
        let Some(part) = &self.part else { return format!("Taking {dir}.") };
        let (n, bytes) = (part.taken.len(), output::bytes(part.bytes));
        let mut text = format!("Taking {n} files and directories of {dir}, {bytes}");
        if part.is_cut {
            text.push_str(" (name a directory to take all that is in it)");
        }
        if part.n_unreadable > 0 {
            text.push_str(&format!("; left out, for they cannot be read: {}", part.n_unreadable));
        }
        text + "."
    }
}

fn canonical(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().with_context(|| format!("cannot open {}", dir.display()))
}

impl Part {
    /// Takes what is below a directory, in the order of names, until the limit is reached.
    fn take(&mut self, dir: &Path, limit: Limit) -> Result<()> {
        let failed = || format!("cannot list {}", dir.display());
        let mut entries = fs::read_dir(dir).with_context(failed)?.collect::<Result<Vec<_>, _>>()?;
        // Sorted, so that the same tree gives the same part at each run.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if self.taken.len() >= limit.n_entries {
                self.is_cut = true;
                return Ok(());
            }
            let (path, kind) = (entry.path(), entry.file_type()?);
            // One file that cannot be read would make the import fail at its end.
            if !is_readable(&path, kind) {
                self.n_unreadable += 1;
                continue;
            }
            if kind.is_dir() {
                // Also if nothing below it fits: the parents of what is taken must be taken.
                self.taken.insert(path.clone());
                self.take(&path, limit)?;
                continue;
            }
            let bytes = if kind.is_file() { entry.metadata()?.len() } else { 0 };
            if self.bytes + bytes > limit.bytes {
                // A smaller one that comes later may still fit.
                self.is_cut = true;
                continue;
            }
            self.bytes += bytes;
            self.taken.insert(path);
        }
        Ok(())
    }
}

/// Whether this user can read a file, or list a directory and look into it.
fn is_readable(path: &Path, kind: fs::FileType) -> bool {
    let wanted = if kind.is_dir() { Access::READ_OK | Access::EXEC_OK } else { Access::READ_OK };
    // What is neither is not opened, only looked at.
    !(kind.is_dir() || kind.is_file()) || access(path, wanted).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten files of ten bytes in two directories.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for dir in ["a", "b"] {
            fs::create_dir(tree.path().join(dir)).unwrap();
            for number in 0..5 {
                fs::write(tree.path().join(format!("{dir}/{number}")), "0123456789").unwrap();
            }
        }
        tree
    }

    fn part(bytes: u64, n_entries: usize) -> Vec<String> {
        let tree = tree();
        let source = SourceTree::part_of(tree.path(), Limit { bytes, n_entries }).unwrap();
        let all = ["a", "a/0", "a/1", "a/2", "a/3", "a/4", "b", "b/0", "b/1", "b/2", "b/3", "b/4"];
        let taken = all.iter().filter(|name| source.is_wanted(&tree.path().join(name)));
        taken.map(ToString::to_string).collect()
    }

    #[test]
    fn a_tree_within_the_limit_is_taken_as_a_whole() {
        assert_eq!(part(100, 12).len(), 12);
        let tree = tree();
        let source = SourceTree::part_of(tree.path(), Limit { bytes: 100, n_entries: 12 }).unwrap();
        assert_eq!(source.text(), format!("Taking {}.", tree.path().display()));
    }

    #[test]
    fn of_a_larger_tree_the_first_is_taken() {
        assert_eq!(part(30, 12), ["a", "a/0", "a/1", "a/2", "b"]);
        assert_eq!(part(100, 3), ["a", "a/0", "a/1"]);
        let tree = tree();
        let source = SourceTree::part_of(tree.path(), Limit { bytes: 30, n_entries: 12 }).unwrap();
        let text = source.text();
        assert!(text.starts_with("Taking 5 files and directories of /"), "{text}");
        assert!(text.contains(", 30 B (name a directory"), "{text}");
    }

    #[test]
    fn what_the_user_names_is_taken_whatever_its_size() {
        let tree = tree();
        let source = SourceTree::choose(Some(tree.path()), tree.path()).unwrap();
        assert!(source.is_wanted(Path::new("/any/path")));
        assert!(SourceTree::choose(Some(&tree.path().join("nowhere")), tree.path()).is_err());
    }
}
