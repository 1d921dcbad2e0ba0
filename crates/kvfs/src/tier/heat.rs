//! Heat: where the data of a file is.

use std::fmt;

use tier_types::Ino;

use crate::FsError;
use crate::core::Core;
use crate::store::DataSums;

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
}

impl Heat {
    fn of(sums: DataSums) -> Self {
        let DataSums { resident_bytes, warm_bytes, cold_bytes } = sums;
        match (resident_bytes > warm_bytes, warm_bytes > 0, cold_bytes > 0) {
            (false, true, false) => Self::Warm,
            (false, false, true) => Self::Cold,
            (true, _, false) | (false, false, false) => Self::Hot,
            (_, _, true) => Self::Mixed,
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
        })
    }
}

impl Core {
    /// Where the data of a regular file is. What was cut off it counts until the reaper has deleted
    /// it, unless nothing is left of the file.
    pub fn heat(&self, ino: Ino) -> Result<Heat, FsError> {
        let attr = self.reader().regular(ino)?;
        let sums = self.reader().data_sums(ino)?;
        Ok(Heat::of(if attr.size_bytes == 0 { DataSums::default() } else { sums }))
    }
}

#[cfg(test)]
mod tests {
    use tier_types::ChunkState;

    use super::*;
    use crate::store::Counters;

    #[test]
    fn heat_is_what_all_data_have_in_common() {
        use ChunkState::{Cold, Hole, Hot, Warm};
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
        ] {
            let mut counters = Counters::default();
            for state in states {
                counters.gain(*state, 7);
            }
            assert_eq!(Heat::of(DataSums::default().changed_by(&counters)), heat, "{states:?}");
        }
    }
}
