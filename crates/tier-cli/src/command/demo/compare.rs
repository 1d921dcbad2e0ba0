//! The comparison of two trees of the host: names, kinds, modes, owners, times, links, extended
//! attributes, content.
//!
//! What an ordinary user cannot set on a copy (owners, attributes of the system) is compared only
//! where the copy was made by root. The attributes of the two roots are not compared: the copy's is
//! a new directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tier_types::Xattr;

use crate::console::DamageFound;
use crate::transfer::xattrs;

/// Bytes that are compared at a time.
const COMPARE_BYTES: usize = 1 << 16;

/// How to compare.
pub(super) struct Comparison<'a> {
    /// Asked for each path of the original whether the copy is to have it.
    pub(super) is_wanted: &'a dyn Fn(&Path) -> bool,
    /// Whether the copy was made by root.
    pub(super) as_root: bool,
}

/// What was compared, and is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Compared {
    /// Files and directories, without the root.
    pub(super) n_entries: u64,
    /// Content of files.
    pub(super) bytes: u64,
}

impl Comparison<'_> {
    /// Compares a copy with its original. Any difference is an error.
    pub(super) fn run(&self, original: &Path, copy: &Path) -> Result<Compared> {
        let mut compared = Compared::default();
        let mut links = Links::default();
        // A list and not recursion, because the depth of a tree of the user has no bound.
        let mut todo = vec![(original.to_path_buf(), copy.to_path_buf())];
        while let Some((original, copy)) = todo.pop() {
            let mut wanted = names(&original)?;
            // Only the original is filtered: a name that the copy has too many is a difference.
            wanted.retain(|name| (self.is_wanted)(&original.join(name)));
            if wanted != names(&copy)? {
                let (original, copy) = (original.display(), copy.display());
                bail!(DamageFound(format!("{original} and {copy} hold other names")));
            }
            for name in wanted {
                let pair = Pair::look_at(original.join(&name), copy.join(&name))?;
                let entry = self.entry(&pair).and_then(|()| links.compare(&pair));
                entry.with_context(|| format!("at {}", pair.original.path.display()))?;
                compared.n_entries += 1;
                if pair.original.metadata.is_file() {
                    compared.bytes += pair.original.metadata.len();
                }
                if pair.original.metadata.is_dir() {
                    // Directories alone: a link to a directory is compared by its target and not
                    // followed.
                    todo.push((pair.original.path, pair.copy.path));
                }
            }
        }
        Ok(compared)
    }

    fn entry(&self, pair: &Pair) -> Result<()> {
        let (original, copy) = (&pair.original.metadata, &pair.copy.metadata);
        pair.same("the mode", &original.mode(), &copy.mode())?;
        // Another user cannot give files away, so that a copy has that user as its owner.
        if self.as_root {
            pair.same("the owner", &original.uid(), &copy.uid())?;
            pair.same("the group", &original.gid(), &copy.gid())?;
        }
        // Seconds and nanoseconds are two fields, and a store that dropped the second would pass
        // the first.
        pair.same("the time of change", &original.mtime(), &copy.mtime())?;
        pair.same("the time of change", &original.mtime_nsec(), &copy.mtime_nsec())?;
        let (theirs, ours) = (&pair.original.path, &pair.copy.path);
        pair.same("an extended attribute or ACL", &self.xattrs(theirs)?, &self.xattrs(ours)?)?;
        let kind = original.file_type();
        if kind.is_symlink() {
            pair.same("the target", &fs::read_link(theirs)?, &fs::read_link(ours)?)?;
        }
        if kind.is_char_device() || kind.is_block_device() {
            pair.same("the device", &original.rdev(), &copy.rdev())?;
        }
        if kind.is_file() {
            // The size comes first: it is cheap, and the comparison of content relies on it.
            pair.same("the size", &original.len(), &copy.len())?;
            pair.same("the content", &same_content(theirs, ours)?, &true)?;
        }
        Ok(())
    }

    fn xattrs(&self, path: &Path) -> Result<Vec<Xattr>> {
        let mut xattrs = xattrs::read(path)?;
        // What only root may set was left out of the export as well.
        xattrs.retain(|xattr| self.as_root || !xattrs::is_for_root(&xattr.name));
        // The order in which a filesystem lists attributes has no meaning.
        xattrs.sort();
        Ok(xattrs)
    }
}

/// One entry of the original, and its copy.
struct Pair {
    original: Entry,
    copy: Entry,
}

struct Entry {
    path: PathBuf,
    metadata: Metadata,
}

impl Pair {
    fn look_at(original: PathBuf, copy: PathBuf) -> Result<Self> {
        let entry = |path: PathBuf| -> Result<Entry> {
            let metadata = fs::symlink_metadata(&path)
                .with_context(|| format!("cannot look at {}", path.display()))?;
            Ok(Entry { path, metadata })
        };
        Ok(Self { original: entry(original)?, copy: entry(copy)? })
    }

    fn same<T: PartialEq>(&self, what: &str, original: &T, copy: &T) -> Result<()> {
        if original != copy {
            let path = self.original.path.display();
            bail!(DamageFound(format!("{what} differs at {path}")));
        }
        Ok(())
    }
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Result<Vec<OsString>> {
    let failed = || format!("cannot list {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(failed)? {
        names.push(entry.with_context(failed)?.file_name());
    }
    // Two filesystems list the same names in different orders.
    names.sort();
    Ok(names)
}

/// Which names are of one file, in each tree.
#[derive(Default)]
struct Links {
    original: FirstNames,
    copy: FirstNames,
}

impl Links {
    fn compare(&mut self, pair: &Pair) -> Result<()> {
        // A directory has one name on every filesystem.
        if pair.original.metadata.is_dir() {
            return Ok(());
        }
        // Inode numbers differ between the trees; the order in which files were first met does not.
        let original = self.original.number(&pair.original.metadata);
        pair.same("which names are of one file", &original, &self.copy.number(&pair.copy.metadata))
    }
}

/// Files by device and inode, numbered in the order in which they were met.
#[derive(Default)]
struct FirstNames(HashMap<(u64, u64), usize>);

impl FirstNames {
    /// The number of a file: that of the first of its names.
    fn number(&mut self, metadata: &Metadata) -> usize {
        let next = self.0.len();
        *self.0.entry((metadata.dev(), metadata.ino())).or_insert(next)
    }
}

fn same_content(original: &Path, copy: &Path) -> Result<bool> {
    let open = |path| File::open(path).map(|file| BufReader::with_capacity(COMPARE_BYTES, file));
    let (mut original, mut copy) = (open(original)?, open(copy)?);
    let (mut theirs, mut ours) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        let n = original.read(&mut theirs)?;
        if n == 0 {
            return Ok(copy.read(&mut ours)? == 0);
        }
        // One read may bring less than the buffer holds; the other file is read to the same length.
        let ((theirs, _), (ours, _)) = (theirs.split_at(n), ours.split_at_mut(n));
        // They have the same length, unless one of them changes meanwhile.
        copy.read_exact(ours)?;
        if theirs != ours {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    struct Trees(tempfile::TempDir);

    impl Trees {
        /// A tree and its copy.
        fn new() -> Self {
            let trees = Self(tempfile::tempdir().unwrap());
            let a = trees.at("a");
            fs::create_dir_all(a.join("dir")).unwrap();
            fs::write(a.join("dir/file"), "content").unwrap();
            fs::hard_link(a.join("dir/file"), a.join("other-name")).unwrap();
            fs::write(a.join("alone"), "content").unwrap();
            for name in ["dir/file", "alone"] {
                let file = File::options().write(true).open(a.join(name)).unwrap();
                file.set_modified(UNIX_EPOCH).unwrap();
            }
            symlink("dir/file", a.join("link")).unwrap();
            let mut copy = Command::new("cp");
            assert!(copy.arg("-a").args([&a, &trees.at("b")]).status().unwrap().success());
            trees
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn compare(&self) -> Result<Compared> {
            let comparison = Comparison { is_wanted: &|_| true, as_root: true };
            comparison.run(&self.at("a"), &self.at("b"))
        }
    }

    #[test]
    fn a_copy_is_the_same() {
        let trees = Trees::new();
        assert_eq!(trees.compare().unwrap(), Compared { n_entries: 5, bytes: 21 });
    }

    #[test]
    fn every_difference_is_found() {
        type Change = fn(&Trees);
        let changes: [(&str, Change); 6] = [
            ("other names", |trees| fs::write(trees.at("b/more"), "").unwrap()),
            ("other names", |trees| fs::remove_file(trees.at("b/alone")).unwrap()),
            ("the mode", |trees| {
                fs::set_permissions(trees.at("b/alone"), Permissions::from_mode(0o601)).unwrap();
            }),
            ("the time of change", |trees| {
                let file = File::options().write(true).open(trees.at("b/alone")).unwrap();
                file.set_modified(UNIX_EPOCH + Duration::from_nanos(1)).unwrap();
            }),
            ("the content", |trees| {
                fs::write(trees.at("b/alone"), "CONTENT").unwrap();
                let file = File::options().write(true).open(trees.at("b/alone")).unwrap();
                file.set_modified(UNIX_EPOCH).unwrap();
            }),
            ("which names are of one file", |trees| {
                fs::remove_file(trees.at("b/other-name")).unwrap();
                fs::hard_link(trees.at("b/alone"), trees.at("b/other-name")).unwrap();
            }),
        ];
        for (what, change) in changes {
            let trees = Trees::new();
            change(&trees);
            let error = format!("{:#}", trees.compare().unwrap_err());
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_missed() {
        let trees = Trees::new();
        fs::remove_file(trees.at("b/alone")).unwrap();
        trees.compare().unwrap_err();
        let is_wanted = |path: &Path| !path.ends_with("alone");
        let comparison = Comparison { is_wanted: &is_wanted, as_root: true };
        assert_eq!(comparison.run(&trees.at("a"), &trees.at("b")).unwrap().n_entries, 4);
    }
}
