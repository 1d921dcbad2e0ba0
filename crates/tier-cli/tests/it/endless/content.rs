//! The content of files, as a function of which version of which file it is: any part of it can be
//! written and compared without the rest. A half of it can be compressed away.

/// Bytes that repeat as random bytes and zeros.
const WORDS_RANDOM: u64 = 4;
const WORDS: u64 = 8;

/// Which version of which file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Version(pub(crate) u64);

impl Version {
    /// Fills a buffer with what the file has from an offset on, which is a multiple of 8.
    pub(crate) fn fill(self, offset: u64, buffer: &mut [u8]) {
        assert_eq!(offset % 8, 0);
        let first = offset / 8;
        for (number, bytes) in (first..).zip(buffer.chunks_mut(8)) {
            let word = if number % WORDS < WORDS_RANDOM { self.word(number) } else { 0 };
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
    }

    /// A number that depends on all bits of both (splitmix64).
    fn word(self, number: u64) -> u64 {
        let mut z =
            self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
