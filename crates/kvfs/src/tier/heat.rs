//! Heat: where the data of a file is.

use std::fmt;

use tier_types::{ChunkNo, ChunkState, Ino};

use crate::FsError;
use crate::core::Core;

/// Where the data of a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heat {
    /// All in the store, and some of it perhaps only there; also a file without data.
    Hot,
    /// All in the store, recalled and unchanged since.
    Warm,
    /// All evicted.
    Cold,
    /// Some here, some there.
    Mixed,
    /// Some of it is nowhere: it could not be read when it was persisted.
    Lost,
}

/// The states of which there is any.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of states, each by its name")]
struct States {
    hot: bool,
    warm: bool,
    cold: bool,
    lost: bool,
}

impl States {
    fn add(&mut self, state: ChunkState) {
        match state {
            ChunkState::Hole => {}
            ChunkState::Hot => self.hot = true,
            ChunkState::Warm => self.warm = true,
            ChunkState::Cold => self.cold = true,
            ChunkState::Lost => self.lost = true,
        }
    }

    fn heat(self) -> Heat {
        // Wherever the rest is, this is what its owner must know.
        if self.lost {
            return Heat::Lost;
        }
        match (self.hot, self.warm, self.cold) {
            (false, true, false) => Heat::Warm,
            (false, false, true) => Heat::Cold,
            (true, _, false) | (false, false, false) => Heat::Hot,
            (_, _, true) => Heat::Mixed,
        }
    }
}

impl fmt::Display for Heat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Mixed => "mixed",
            Self::Lost => "lost",
        })
    }
}

impl Core {
    /// Where the data of a regular file is.
    pub fn heat(&self, ino: Ino) -> Result<Heat, FsError> {
        self.reader().regular(ino)?;
        let mut states = States::default();
        for run in self.reader().all_runs(ino, ChunkNo::new(0)) {
            states.add(run?.state);
        }
        Ok(states.heat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_is_what_all_data_have_in_common() {
        use ChunkState::{Cold, Hole, Hot, Lost, Warm};
        for (states, heat) in [
            (&[][..], Heat::Hot),
            (&[Hole], Heat::Hot),
            (&[Hole, Hot], Heat::Hot),
            (&[Hot, Warm], Heat::Hot),
            (&[Warm, Hole], Heat::Warm),
            (&[Cold, Hole], Heat::Cold),
            (&[Cold, Warm], Heat::Mixed),
            (&[Cold, Hot], Heat::Mixed),
            (&[Cold, Hot, Warm], Heat::Mixed),
            (&[Lost], Heat::Lost),
            (&[Hot, Lost, Cold], Heat::Lost),
        ] {
            let mut all = States::default();
            for state in states {
                all.add(*state);
            }
            assert_eq!(all.heat(), heat, "{states:?}");
        }
    }
}
