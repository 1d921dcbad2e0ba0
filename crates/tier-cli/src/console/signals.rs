//! Signals that the program heeds. One that was ignored when the program was started stays ignored:
//! that is how `nohup`, and a shell without job control, keep a program going.

use std::fs;

/// Those of these signals that were not ignored at the start.
pub(crate) fn heeded<const N: usize>(signals: [i32; N]) -> Vec<i32> {
    // Where the system does not say, a signal does what it says.
    let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
    signals.into_iter().filter(|signal| ignored & bit(*signal) == 0).collect()
}

/// The set of signals that a process ignores, by its status in `/proc`.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn bit(signal: i32) -> u64 {
    u32::try_from(signal - 1).ok().and_then(|n| 1_u64.checked_shl(n)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status_of_the_process() {
        let status = "Name:\ttier\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000001\n";
        assert_eq!(ignored(status), bit(1));
        assert_eq!(ignored("no status"), 0);
        assert_eq!((bit(1), bit(64), bit(0), bit(65)), (1, 1 << 63, 0, 0));
    }
}
