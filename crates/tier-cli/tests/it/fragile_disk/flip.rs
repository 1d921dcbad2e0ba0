//! A bit of a file that is not what it was when it was written.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where a bit was flipped.
#[derive(Clone, Debug)]
pub(crate) struct Flip {
    path: PathBuf,
    bit: u64,
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bit {} of byte {} in {}", self.bit % 8, self.bit / 8, self.path.display())
    }
}

/// Flips a bit of a file, which is given by a number that is taken by the file's length. `None` for
/// an empty file.
pub(crate) fn flip_bit(path: &Path, random: u64) -> io::Result<Option<Flip>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let Some(bit) = random.checked_rem(file.metadata()?.len() * 8) else { return Ok(None) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8)?;
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8)?;
    Ok(Some(Flip { path: path.to_path_buf(), bit }))
}
