//! Comparing two trees of the host: names, kinds, modes, owners, times, links, extended attributes,
//! content.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::console::DamageFound;
use crate::transfer::read_xattrs;

/// Bytes that are compared at a time.
const COMPARE_BYTES: usize = 1 << 16;

/// Compares two trees of the host: names, kinds, modes, owners, times, links, extended attributes,
/// content. Returns the number of entries.
pub(super) fn compare_trees(a: &Path, b: &Path) -> Result<u64> {
    let mut n_entries = 1;
    let mut links = Links::default();
    let mut todo = vec![(a.to_path_buf(), b.to_path_buf())];
    while let Some((a, b)) = todo.pop() {
        let names = |dir: &Path| -> Result<Vec<_>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(dir)? {
                names.push(entry?.file_name());
            }
            names.sort();
            Ok(names)
        };
        let (in_a, in_b) = (names(&a)?, names(&b)?);
        if in_a != in_b {
            bail!(DamageFound(format!("{} and {} hold other names", a.display(), b.display())));
        }
        for name in in_a {
            let (a, b) = (a.join(&name), b.join(&name));
            n_entries += 1;
            compare_entry(&a, &b).with_context(|| format!("at {}", a.display()))?;
            links.compare(&a, &b)?;
            if fs::symlink_metadata(&a)?.is_dir() {
                todo.push((a, b));
            }
        }
    }
    Ok(n_entries)
}

/// Which names are of one file, in each tree: by device and inode, the first name that was seen.
#[derive(Default)]
struct Links([HashMap<(u64, u64), usize>; 2]);

impl Links {
    fn compare(&mut self, a: &Path, b: &Path) -> Result<()> {
        let mut first = [0, 0];
        let trees = self.0.iter_mut().zip([a, b]).zip(&mut first);
        for ((seen, path), first) in trees {
            let metadata = fs::symlink_metadata(path)?;
            let number = seen.len();
            *first = match metadata.is_dir() {
                true => 0,
                false => *seen.entry((metadata.dev(), metadata.ino())).or_insert(number),
            };
        }
        let [of_a, of_b] = first;
        if of_a != of_b {
            bail!(DamageFound(format!("hard links differ at {}", a.display())));
        }
        Ok(())
    }
}

fn compare_entry(a: &Path, b: &Path) -> Result<()> {
    let (of_a, of_b) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
    let differs = |what: &str| DamageFound(format!("{what} differs at {}", a.display()));
    if of_a.mode() != of_b.mode() || (of_a.uid(), of_a.gid()) != (of_b.uid(), of_b.gid()) {
        bail!(differs("mode or owner"));
    }
    if (of_a.mtime(), of_a.mtime_nsec()) != (of_b.mtime(), of_b.mtime_nsec()) {
        bail!(differs("time of change"));
    }
    if sorted_xattrs(a)? != sorted_xattrs(b)? {
        bail!(differs("an extended attribute or ACL"));
    }
    let kind = of_a.file_type();
    if kind.is_symlink() && fs::read_link(a)? != fs::read_link(b)? {
        bail!(differs("target"));
    }
    if (kind.is_char_device() || kind.is_block_device()) && of_a.rdev() != of_b.rdev() {
        bail!(differs("device"));
    }
    if kind.is_file() {
        if of_a.len() != of_b.len() {
            bail!(differs("size"));
        }
        if !same_content(a, b)? {
            bail!(differs("content"));
        }
    }
    Ok(())
}

fn sorted_xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut xattrs = read_xattrs(path)?;
    xattrs.sort();
    Ok(xattrs)
}

fn same_content(a: &Path, b: &Path) -> Result<bool> {
    let open = |path| File::open(path).map(|file| BufReader::with_capacity(COMPARE_BYTES, file));
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut of_a, mut of_b) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        let n = a.read(&mut of_a)?;
        let piece = of_b.get_mut(..n).unwrap_or_default();
        b.read_exact(piece)?;
        if of_a.get(..n) != Some(piece) {
            return Ok(false);
        }
        if n == 0 {
            return Ok(b.read(&mut of_b)? == 0);
        }
    }
}
