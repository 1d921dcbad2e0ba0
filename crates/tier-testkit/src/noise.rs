//! Content of files that no compression makes smaller.

/// Bytes that do not compress, the same ones for each seed.
///
/// ```
/// let noise = tier_testkit::noise(1000, 1);
/// assert_eq!(noise.len(), 1000);
/// assert_ne!(noise, tier_testkit::noise(1000, 2));
/// ```
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    // Xorshift (Marsaglia, "Xorshift RNGs", 2003), of which the middle bits are taken.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    (0..len).map(|_| next()).collect()
}
