//! The data of a file of the host, without its holes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, bail};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tier_types::{ByteRange, Ino, to_u64, to_usize};

use super::Import;

/// The data at the start of a file of `len` bytes, as far as it fits into the buffer; none if the
/// file begins with a hole.
pub(super) fn first_piece(file: &File, len: u64, buffer: &mut [u8]) -> Result<Vec<u8>> {
    match next_data(file, 0, len)? {
        // Only data at the very start: the file is made with one run of content from offset 0.
        Some(ByteRange { offset: 0, len }) => Ok(read_piece(file, 0, len, buffer)?.to_vec()),
        Some(_) | None => Ok(Vec::new()),
    }
}

impl Import<'_> {
    /// Copies the rest of a file, which ends with `rest`, and leaves out what is a hole.
    pub(super) fn rest(
        &self,
        file: &File,
        ino: Ino,
        rest: ByteRange,
        buffer: &mut [u8],
    ) -> Result<()> {
        let len = rest.offset + rest.len;
        let mut at = rest.offset;
        while let Some(range) = next_data(file, at, len)? {
            let end = range.offset + range.len;
            // Between two ranges lies a hole, which the store has without being told.
            at = range.offset;
            while at < end {
                let piece = read_piece(file, at, end - at, buffer)?;
                // Nothing is put in place of what is missing: the host's time is not set either, so
                // that the next import finds the file incomplete and begins it again.
                if piece.is_empty() {
                    bail!("it became shorter while it was read");
                }
                self.in_room(|| self.fs.write(ino, at, piece))?;
                at += to_u64(piece.len());
                // A stop within a long file must not wait for its end.
                self.still_at_it()?;
            }
        }
        // A file that was cut into a hole has no piece that is short, so that the length is asked
        // as well.
        if file.metadata()?.len() < len {
            bail!("it became shorter while it was read");
        }
        // The file ends with a hole, which no write has reached.
        if at < len {
            self.in_room(|| self.fs.truncate(ino, len))?;
        }
        Ok(())
    }
}

/// Reads up to `len` bytes, as many as fit into the buffer.
fn read_piece<'a>(file: &File, offset: u64, len: u64, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let n_wanted = to_usize(len.min(to_u64(buffer.len())));
    let (wanted, _) = buffer.split_at_mut(n_wanted);
    let n_read = file.read_at(wanted, offset)?;
    let (piece, _) = wanted.split_at(n_read);
    Ok(piece)
}

/// The next range at or after an offset that is not a hole, within the first `len` bytes.
fn next_data(file: &File, from: u64, len: u64) -> Result<Option<ByteRange>> {
    if from >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        // No data follows: the rest is a hole.
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(ByteRange::between(from, len))),
        Err(error) => return Err(error.into()),
    };
    // The file may have grown meanwhile; what is new is left to the next import.
    let end = seek(file, SeekFrom::Hole(start))?.min(len);
    Ok((start < end).then_some(ByteRange::between(start, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_and_holes_are_not() {
        let file = tempfile::tempfile().unwrap();
        let len = 4 << 20;
        file.set_len(len).unwrap();
        file.write_all_at(b"data", 2 << 20).unwrap();
        let mut buffer = vec![0; 1 << 20];
        assert_eq!(first_piece(&file, len, &mut buffer).unwrap(), b"", "it begins with a hole");
        let range = next_data(&file, 0, len).unwrap().unwrap();
        assert!((range.offset..range.offset + range.len).contains(&(2 << 20)), "{range:?}");
        // A filesystem may keep more than the four bytes, but what it keeps ends with the file.
        let last = next_data(&file, range.offset + range.len, len).unwrap();
        assert!(last.is_none_or(|last| last.offset + last.len <= len));
        assert_eq!(next_data(&file, len, len).unwrap(), None);
    }

    #[test]
    fn a_piece_is_no_longer_than_the_buffer_nor_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(first_piece(&file, 10, &mut buffer).unwrap(), b"0123");
        assert_eq!(read_piece(&file, 8, 4, &mut buffer).unwrap(), b"89");
        assert_eq!(read_piece(&file, 10, 4, &mut buffer).unwrap(), b"");
    }
}
