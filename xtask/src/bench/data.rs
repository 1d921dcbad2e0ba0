//! Test data, made once: the same for all programs and for all runs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Plan;

const MIB: usize = 1 << 20;

/// One set of data.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) about: String,
    pub(crate) directory: PathBuf,
}

/// The sets that are asked for.
pub(crate) fn sets(plan: &Plan) -> Result<Vec<Set>> {
    let wanted = |name: &str| plan.sets.is_empty() || plan.sets.iter().any(|set| set == name);
    let mut sets = Vec::new();
    let sources = made(&plan.data.join("a"), |directory| copy_trees(&plan.trees, directory))?;
    if wanted("a") {
        let files = walk(&sources)?;
        let bytes: u64 = files.iter().map(|(_, len)| len).sum();
        let about = format!("{} source files, {} MB", files.len(), bytes / 1_000_000);
        sets.push(Set { name: "a", about, directory: sources.clone() });
    }
    if wanted("b") {
        let directory = made(&plan.data.join("b"), large_files)?;
        let about = "8 incompressible files of 256 MiB".to_string();
        sets.push(Set { name: "b", about, directory });
    }
    if wanted("c") {
        let n_files = plan.n_files;
        let directory = plan.data.join(format!("c-{n_files}"));
        let directory =
            made(&directory, |directory| small_files(&sources, (n_files, 0), directory))?;
        let about = format!("{n_files} files of 1 to 4 KiB of source text");
        sets.push(Set { name: "c", about, directory });
    }
    Ok(sets)
}

/// The directory, filled by `make` if it is not there yet.
pub(crate) fn made(directory: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if !directory.exists() {
        println!("==> making {}", directory.display());
        let partial = directory.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        make(&partial).with_context(|| format!("cannot make {}", directory.display()))?;
        fs::rename(&partial, directory)?;
    }
    Ok(directory.to_path_buf())
}

pub(crate) fn copy_trees(trees: &[PathBuf], to: &Path) -> Result<()> {
    for (number, tree) in trees.iter().enumerate() {
        let tree = tree.canonicalize().with_context(|| format!("no {}", tree.display()))?;
        for (path, _) in walk(&tree)? {
            let inside = path.strip_prefix(&tree).unwrap_or(&path);
            let copy = to.join(number.to_string()).join(inside);
            if let Some(directory) = copy.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::copy(&path, copy)?;
        }
    }
    Ok(())
}

/// The files below a directory in order, with their lengths.
fn walk(directory: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut todo = vec![directory.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                todo.push(entry.path());
            } else if metadata.is_file() {
                files.push((entry.path(), metadata.len()));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Numbers that look random and are always the same.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn large_files(directory: &Path) -> Result<()> {
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for number in 0..8 {
        let mut file = File::create(directory.join(format!("file-{number}")))?;
        for _ in 0..256 {
            let bytes: Vec<u8> = (0..MIB / 8).flat_map(|_| noise.next().to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// Pieces of the sources, a hundred to a directory; other ones for each seed.
pub(crate) fn small_files(
    sources: &Path,
    (n_files, seed): (u32, u32),
    directory: &Path,
) -> Result<()> {
    let mut text = Vec::new();
    for (path, _) in walk(sources)? {
        text.extend(fs::read(path)?);
    }
    if text.len() < MIB {
        bail!("{} has too few sources", sources.display());
    }
    let endings = ["c", "h", "py", "txt", "rs"];
    let mut noise = Noise(u64::from(n_files) + u64::from(seed) + 1);
    let mut at = usize::try_from(seed)?.wrapping_mul(7919) % (text.len() / 2);
    for number in 0..n_files {
        let dir = directory.join(format!("{:03}/{:02}", number / 10_000, number / 100 % 100));
        if number % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let len = 1024 + usize::try_from(noise.next() % 3073)?;
        if at + len > text.len() {
            at = usize::try_from(noise.next() % 4096)?;
        }
        let piece = text.get(at..at + len).context("the sources are long enough")?;
        let ending = endings.get(usize::try_from(noise.next() % 5)?).copied().unwrap_or("txt");
        fs::write(dir.join(format!("file-{number:07}.{ending}")), piece)?;
        at += len;
    }
    Ok(())
}
