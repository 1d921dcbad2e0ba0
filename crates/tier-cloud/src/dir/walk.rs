//! Listings of a directory: names in order, a page at a time.
//!
//! A page costs what it shows, and the directories on the way to it. Entries of a directory are
//! taken in the order of the names that they lead to: `a-b` comes before `a/c`, because `-` comes
//! before the slash. A file that cannot be an object is none, and stops nothing.

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
pub(super) struct Entry {
    /// The name that it leads to; of a directory it ends with a slash.
    name: String,
    path: PathBuf,
    len_bytes: u64,
}

/// A page of a listing, from the entries of the root.
pub(super) fn page(
    top: Vec<Entry>,
    call: &Call<'_>,
    wanted: &Wanted<'_>,
) -> Result<ListPage, PortError> {
    assert!(wanted.n_max > 0, "a page has an object, or a listing would never end");
    let mut page = ListPage { objects: Vec::new(), is_last: true };
    add(top, call, wanted, &mut page)?;
    Ok(page)
}

fn add(
    entries: Vec<Entry>,
    call: &Call<'_>,
    wanted: &Wanted<'_>,
    page: &mut ListPage,
) -> Result<(), PortError> {
    call.check(&"a listing")?;
    for Entry { name, path, len_bytes } in entries {
        if !page.is_last {
            return Ok(());
        }
        if name.ends_with('/') {
            if wanted.may_be_below(&name) {
                match self::entries(&path, &name) {
                    Ok(below) => add(below, call, wanted, page)?,
                    // It went meanwhile.
                    Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(failed("list", &path, source)),
                }
            }
        } else if let Some(name) = ObjectName::new(name).filter(|name| wanted.is_wanted(name)) {
            if page.objects.len() == wanted.n_max {
                page.is_last = false;
            } else {
                page.objects.push(ListedObject { name, len_bytes });
            }
        }
    }
    Ok(())
}

/// What of a directory may be objects or have some, in the order of names.
pub(super) fn entries(directory: &Path, above: &str) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        match looked_at(&entry?, above) {
            Ok(entry) => entries.extend(entry),
            // It went meanwhile.
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(source),
        }
    }
    entries.sort_unstable_by(|a: &Entry, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn looked_at(entry: &DirEntry, above: &str) -> io::Result<Option<Entry>> {
    let Ok(part) = entry.file_name().into_string() else { return Ok(None) };
    // A directory of the filesystem's own, as `lost+found`, may not even be readable.
    if ObjectName::new(part.as_str()).is_none() {
        return Ok(None);
    }
    let path = entry.path();
    let kind = entry.file_type()?;
    let slash = if kind.is_dir() { "/" } else { "" };
    // Through a symbolic link, too, but only to a file.
    let metadata = if kind.is_symlink() { fs::metadata(&path)? } else { entry.metadata()? };
    let is_object = metadata.is_file() && !part.ends_with(TEMPORARY);
    let entry = Entry { name: format!("{above}{part}{slash}"), path, len_bytes: metadata.len() };
    Ok((kind.is_dir() || is_object).then_some(entry))
}

/// The files that a crash left, which no listing shows.
pub(super) fn temporaries(directory: &Path) -> Result<Vec<PathBuf>, PortError> {
    let list = |source| failed("list", directory, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(list)? {
        let entry = entry.map_err(list)?;
        let path = entry.path();
        if entry.file_type().map_err(list)?.is_dir() {
            found.extend(temporaries(&path)?);
        } else if path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}
