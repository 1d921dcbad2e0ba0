//! Random numbers from a seed, which is printed by a test that fails and can be given to the next
//! run of it.
//!
//! The numbers decide what is done and what a loss of power leaves; when threads run is up to the
//! machine, so that a seed repeats the work and makes the failure likely.

use std::time::{SystemTime, UNIX_EPOCH};

/// Random numbers (xorshift).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Seeds that are alike begin with numbers that are alike.
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The low bits of this generator are the worst.
        (self.next() >> 11) % end
    }

    pub(crate) fn one_of(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The seed in the environment variable of this name, or a new one.
#[expect(clippy::disallowed_methods, reason = "each run is to try something else")]
pub(crate) fn seed(variable: &str) -> u64 {
    if let Some(given) = number(variable) {
        return given;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::from(since.subsec_nanos()) + (since.as_secs() << 30)
}

/// The number in the environment variable of this name, if there is one.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let given = std::env::var(variable).ok()?;
    Some(given.parse().unwrap_or_else(|_| panic!("{variable}={given} is no number")))
}
