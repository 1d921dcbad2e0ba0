//! Listings of a directory: names in order, a page at a time.
//!
//! Entries of a directory are taken in the order of the names that they lead to: `a-b` comes before
//! `a/c`, because `-` comes before the slash. A page reads the directories on the way to it, and
//! looks only at the files that it shows. What cannot be an object stops nothing; a directory that
//! may have objects and cannot be read does, because they would be missing.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use tier_types::{Call, ListPage, ListedObject, ObjectName, PortError};

use super::disk::failed;
use super::staged::TEMPORARY;

/// Which objects a page has.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) prefix: &'a str,
    pub(super) after: Option<&'a ObjectName>,
    pub(super) n_max: usize,
}

impl Wanted<'_> {
    /// Whether a directory may have some; its name ends with a slash.
    fn may_be_below(&self, directory: &str) -> bool {
        let fits = directory.starts_with(self.prefix) || self.prefix.starts_with(directory);
        // Everything below comes behind the name that was last shown, or some of it does.
        let is_ahead = |after: &ObjectName| {
            after.as_str() < directory || after.as_str().starts_with(directory)
        };
        fits && self.after.is_none_or(is_ahead)
    }

    fn is_wanted(&self, name: &ObjectName) -> bool {
        name.as_str().starts_with(self.prefix) && self.after.is_none_or(|after| after < name)
    }
}

/// An entry of a directory.
struct Entry {
    /// The name that it leads to; of a directory it ends with a slash.
    name: String,
    path: PathBuf,
}

/// A listing on its way through the directories.
struct Walk<'a> {
    root: &'a Path,
    call: &'a Call<'a>,
    wanted: &'a Wanted<'a>,
    page: ListPage,
}

/// A page of a listing of the objects below a root, which must be there.
pub(super) fn page(
    root: &Path,
    call: &Call<'_>,
    wanted: &Wanted<'_>,
) -> Result<ListPage, PortError> {
    assert!(wanted.n_max > 0, "a page has an object, or a listing would never end");
    let list = |source| failed(root, "list", root, source);
    let top = entries(root, "", wanted).map_err(list)?;
    let page = ListPage { objects: Vec::new(), is_last: true };
    let mut walk = Walk { root, call, wanted, page };
    walk.add(top)?;
    Ok(walk.page)
}

impl Walk<'_> {
    fn add(&mut self, entries: Vec<Entry>) -> Result<(), PortError> {
        for Entry { name, path } in entries {
            self.call.check(&"a listing")?;
            if !self.page.is_last {
                return Ok(());
            }
            if name.ends_with('/') {
                self.add_below(&name, &path)?;
            } else if let Some(name) = ObjectName::new(name)
                && self.wanted.is_wanted(&name)
            {
                self.add_file(name, &path)?;
            }
        }
        Ok(())
    }

    fn add_below(&mut self, name: &str, path: &Path) -> Result<(), PortError> {
        if !self.wanted.may_be_below(name) {
            return Ok(());
        }
        match entries(path, name, self.wanted) {
            Ok(below) => self.add(below),
            // It went meanwhile, if not all did.
            Err(source) if source.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(()),
            Err(source) => Err(failed(self.root, "list", path, source)),
        }
    }

    fn add_file(&mut self, name: ObjectName, path: &Path) -> Result<(), PortError> {
        // Through a symbolic link, too. One that leads nowhere is no object.
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(_) if path.is_symlink() => return Ok(()),
            Err(source) if source.kind() == io::ErrorKind::NotFound && self.root.is_dir() => {
                return Ok(());
            }
            Err(source) => return Err(failed(self.root, "look at", path, source)),
        };
        if !metadata.is_file() {
            return Ok(());
        }
        // Only an object that no longer fits proves that there is a next page: a full page alone
        // may be the last one.
        if self.page.objects.len() == self.wanted.n_max {
            self.page.is_last = false;
        } else {
            self.page.objects.push(ListedObject { name, len_bytes: metadata.len() });
        }
        Ok(())
    }
}

/// What of a directory may be wanted objects or have some, in the order of names.
fn entries(directory: &Path, above: &str, wanted: &Wanted<'_>) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        // What earlier pages showed is not sorted again.
        let is_new = |entry: &Entry| {
            entry.name.ends_with('/')
                || wanted.after.is_none_or(|after| after.as_str() < entry.name.as_str())
        };
        entries.extend(looked_at(&entry?, above)?.filter(is_new));
    }
    entries.sort_unstable_by(|a: &Entry, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn looked_at(entry: &DirEntry, above: &str) -> io::Result<Option<Entry>> {
    let Ok(part) = entry.file_name().into_string() else { return Ok(None) };
    // A directory of the filesystem's own, as `lost+found`, may not even be readable.
    if ObjectName::new(part.as_str()).is_none() || part.ends_with(TEMPORARY) {
        return Ok(None);
    }
    let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
    Ok(Some(Entry { name: format!("{above}{part}{slash}"), path: entry.path() }))
}

/// The files that a crash left, which no listing shows.
pub(super) fn temporaries(root: &Path, directory: &Path) -> Result<Vec<PathBuf>, PortError> {
    let list = |source| failed(root, "list", directory, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(list)? {
        let entry = entry.map_err(list)?;
        let path = entry.path();
        // The type is that of the entry: a symbolic link is not followed, because what it leads to
        // may lie outside of the root.
        if entry.file_type().map_err(list)?.is_dir() {
            found.extend(temporaries(root, &path)?);
        } else if path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}
