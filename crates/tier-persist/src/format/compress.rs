//! The compressor of frames: zstd, or raw blocks where compressing would be wasted time.
//!
//! Much of what a filesystem holds was compressed before. Two cheap looks at samples from all over
//! a frame tell: are all bytes about equally frequent, and does a fast compressor find nothing?
//! Only if both say so is the frame stored. A wrong answer costs time or room, and no correctness:
//! either way it is a zstd frame that any decoder reads. Each carries the format's own checksum, so
//! that a flipped bit is found without a manifest as well.

use tier_types::to_u64;

/// Samples are taken of frames of this many bytes and more; smaller ones are just compressed.
const SAMPLED_BYTES_MIN: usize = 64 << 10;
const N_SAMPLES: usize = 8;
const SAMPLE_BYTES: usize = 4 << 10;
/// So little effort that zstd finds nothing and stores raw blocks, about as fast as memory.
const STORING_LEVEL: i32 = -10_000;

/// Compresses frames one after another, reusing its tables.
pub(crate) struct FrameCompressor {
    compressor: zstd::bulk::Compressor<'static>,
    storing: zstd::bulk::Compressor<'static>,
    /// Fast, for samples.
    sampler: zstd::bulk::Compressor<'static>,
    sample: Vec<u8>,
    sample_out: Vec<u8>,
}

impl FrameCompressor {
    pub(crate) fn new(level: i32) -> std::io::Result<Self> {
        let with_checksum = |level| {
            let mut compressor = zstd::bulk::Compressor::new(level)?;
            compressor.include_checksum(true)?;
            Ok::<_, std::io::Error>(compressor)
        };
        Ok(Self {
            compressor: with_checksum(level)?,
            storing: with_checksum(STORING_LEVEL)?,
            sampler: zstd::bulk::Compressor::new(1)?,
            sample: Vec::new(),
            sample_out: Vec::new(),
        })
    }

    /// One frame that holds `plain`.
    pub(crate) fn frame(&mut self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        // Storing is a compressor as well: it writes the same kind of frame, with the same
        // checksum.
        let incompressible = self.is_incompressible(plain);
        let compressor = if incompressible { &mut self.storing } else { &mut self.compressor };
        let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()));
        compressor.compress_to_buffer(plain, &mut out)?;
        // The frame may wait for its turn in the order: the room that it did not need is given
        // back.
        out.shrink_to_fit();
        Ok(out)
    }

    /// Whether samples from all over `plain` look like what was compressed or encrypted before.
    fn is_incompressible(&mut self, plain: &[u8]) -> bool {
        // Sampling a small frame would take as long as compressing it.
        if plain.len() < SAMPLED_BYTES_MIN {
            return false;
        }
        self.sample.clear();
        let stride = plain.len() / N_SAMPLES;
        for sample in plain.chunks(stride).take(N_SAMPLES) {
            // From the middle: headers of files and members are at the start.
            let start = (sample.len() / 2).saturating_sub(SAMPLE_BYTES / 2);
            let (_, rest) = sample.split_at(start);
            let (middle, _) = rest.split_at(SAMPLE_BYTES.min(rest.len()));
            self.sample.extend_from_slice(middle);
        }
        if !all_bytes_are_as_frequent(&self.sample) {
            return false;
        }
        // Bytes that are equally frequent may still repeat.
        self.sample_out.clear();
        self.sample_out.reserve(zstd::zstd_safe::compress_bound(self.sample.len()));
        let compressed = self.sampler.compress_to_buffer(&self.sample[..], &mut self.sample_out);
        // A sampler that fails says nothing against compressing.
        compressed
            .inspect_err(|error| tracing::debug!(%error, "a sample cannot be compressed"))
            .is_ok_and(|len| len >= self.sample.len())
    }
}

/// A coarse test on the histogram: chi-squared of random bytes is 255 +- 23; text has thousands.
#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn all_bytes_are_as_frequent(sample: &[u8]) -> bool {
    let mut counts = [0_u32; 256];
    for &byte in sample {
        counts[usize::from(byte)] += 1;
    }
    let expected = to_u64(sample.len()) / 256;
    let squares: u64 = counts.iter().map(|&n| u64::from(n).abs_diff(expected).pow(2)).sum();
    squares < 1024 * expected.max(1)
}

#[cfg(test)]
mod tests {
    use tier_testkit::noise;

    use super::*;

    #[test]
    fn noise_is_stored_and_read_back() {
        let mut compressor = FrameCompressor::new(3).unwrap();
        for len in [SAMPLED_BYTES_MIN, 128 << 10, (128 << 10) + 1, (1 << 20) + 1536] {
            let plain = noise(len, 1);
            assert!(compressor.is_incompressible(&plain), "{len}");
            let frame = compressor.frame(&plain).unwrap();
            // Raw blocks: the first bytes lie there as they are.
            assert!(frame.windows(100).any(|window| *window == plain[..100]), "{len}");
            assert!(zstd::bulk::decompress(&frame, len).unwrap() == plain, "{len}");
            let mut flipped = frame.clone();
            flipped[len / 2] ^= 1;
            assert!(zstd::bulk::decompress(&flipped, len).is_err(), "the checksum tells");
        }
    }

    #[test]
    fn what_compresses_is_compressed() {
        let mut compressor = FrameCompressor::new(3).unwrap();
        let text: Vec<u8> = (0..40_000).flat_map(|n: u32| n.to_string().into_bytes()).collect();
        // Every byte is as frequent as any other, and yet it repeats.
        let repeating = noise(SAMPLE_BYTES, 1).repeat(64);
        for plain in [text, repeating] {
            let frame = compressor.frame(&plain).unwrap();
            assert!(frame.len() < plain.len() / 2);
            assert!(zstd::bulk::decompress(&frame, plain.len()).unwrap() == plain);
        }
    }
}
