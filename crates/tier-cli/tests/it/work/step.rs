//! The steps of a writer: what each does to a directory, and what the directory is after it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use tier_types::{to_u64, to_usize};

use super::history::{FileState, State, stamped};
use crate::random::Random;

const RECORD: u64 = 4096;
/// Files that are written over in place, of several chunks.
const LARGE: [&str; 2] = ["large-0", "large-1"];
const N_LARGE_RECORDS_MAX: u64 = 100;
const N_LOG_RECORDS_MAX: u64 = 60;
const N_MADE_MAX: usize = 8;
const LOG: &str = "log";
const REPLACED: &str = "replaced";

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Writes stamped bytes into a file, which is made if it is not there.
    Write {
        name: String,
        offset: u64,
        n_bytes: u64,
    },
    Resize {
        name: String,
        n_bytes: u64,
    },
    Punch {
        name: String,
        offset: u64,
        n_bytes: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    /// Reads a file, and finds what was written.
    Read {
        name: String,
    },
    /// Syncs a file, or the directory if there is no such file.
    Sync {
        name: String,
    },
}

/// A length that is a multiple of records, or seldom none.
fn length(random: &mut Random, n_records_max: u64) -> u64 {
    let n_bytes = (1 + random.below(n_records_max)) * RECORD;
    if random.one_of(4) { n_bytes - 1 - random.below(RECORD - 1) } else { n_bytes }
}

impl Step {
    /// The next step from a state.
    pub(super) fn next(state: &State, stamp: u64, random: &mut Random) -> Self {
        let large = LARGE[usize::from(random.one_of(2))].to_string();
        // A loss may have left it empty.
        let large_bytes = state.get(&large).map(|file| to_u64(file.content.len()));
        let large_bytes = large_bytes.filter(|n_bytes| *n_bytes > 0);
        let made: Vec<_> = state.keys().filter(|name| name.starts_with("made")).collect();
        let any = |random: &mut Random, names: &[&String]| {
            let n_names = to_u64(names.len());
            (n_names > 0).then(|| names[to_usize(random.below(n_names))].clone())
        };
        let all: Vec<_> = state.keys().collect();
        let name = large.clone();
        match (random.below(22), large_bytes) {
            (0..=2, _) => Self::append(state),
            (3..=6, Some(n_bytes)) => {
                let offset = random.below(n_bytes / RECORD + 1) * RECORD;
                let n_records = 1 + random.below(40);
                Self::Write { name, offset, n_bytes: n_records * RECORD }
            }
            (7..=8, Some(_)) => Self::Resize { name, n_bytes: length(random, N_LARGE_RECORDS_MAX) },
            (9..=10, Some(n_bytes)) => {
                let offset = random.below(n_bytes);
                let n_bytes = length(random, 40).min(n_bytes - offset);
                Self::Punch { name, offset, n_bytes }
            }
            (11, Some(_)) => Self::Remove { name },
            (3..=11, None) => {
                Self::Write { name, offset: 0, n_bytes: length(random, N_LARGE_RECORDS_MAX) }
            }
            (12..=13, _) if made.len() < N_MADE_MAX => {
                let name = format!("made-{stamp}");
                Self::Write { name, offset: 0, n_bytes: length(random, 10) }
            }
            (12..=14, _) => match any(random, &made) {
                Some(from) => Self::Rename { from, to: REPLACED.to_string() },
                None => Self::append(state),
            },
            (15, _) => match any(random, &made) {
                Some(name) => Self::Remove { name },
                None => Self::append(state),
            },
            (16..=17, _) => match any(random, &all) {
                Some(name) => Self::Read { name },
                None => Self::append(state),
            },
            (_, _) => match any(random, &all) {
                Some(name) => Self::Sync { name },
                None => Self::append(state),
            },
        }
    }

    fn append(state: &State) -> Self {
        let name = LOG.to_string();
        let n_bytes = state.get(LOG).map_or(0, |file| to_u64(file.content.len()));
        if n_bytes >= N_LOG_RECORDS_MAX * RECORD {
            return Self::Resize { name, n_bytes: 0 };
        }
        Self::Write { name, offset: n_bytes, n_bytes: RECORD }
    }

    /// The state that it leads to.
    pub(super) fn apply(&self, state: &State, stamp: u64) -> State {
        let mut state = state.clone();
        let mut change = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let new = || FileState { id: stamp, content: Arc::default() };
            let file = state.entry(name.to_string()).or_insert_with(new);
            change(Arc::make_mut(&mut file.content));
        };
        match self {
            Self::Write { name, offset, n_bytes } => change(name, &|content| {
                let (start, end) = (to_usize(*offset), to_usize(offset + n_bytes));
                content.resize(content.len().max(end), 0);
                content[start..end].copy_from_slice(&stamped(stamp, *n_bytes));
            }),
            Self::Resize { name, n_bytes } => {
                change(name, &|content| content.resize(to_usize(*n_bytes), 0));
            }
            Self::Punch { name, offset, n_bytes } => change(name, &|content| {
                content[to_usize(*offset)..to_usize(offset + n_bytes)].fill(0);
            }),
            Self::Rename { from, to } => {
                let file = state.remove(from).expect("it was chosen from the state");
                state.insert(to.clone(), file);
            }
            Self::Remove { name } => {
                state.remove(name);
            }
            Self::Read { .. } | Self::Sync { .. } => {}
        }
        state
    }

    /// The names that it may have changed when it fails.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Write { name, .. }
            | Self::Resize { name, .. }
            | Self::Punch { name, .. }
            | Self::Remove { name } => vec![name.clone()],
            Self::Rename { from, to } => vec![from.clone(), to.clone()],
            Self::Read { .. } | Self::Sync { .. } => Vec::new(),
        }
    }

    /// Whether everything until its end is durable.
    pub(super) fn is_synced(&self, syncs: bool) -> bool {
        match self {
            Self::Sync { .. } => true,
            Self::Write { .. } | Self::Resize { .. } | Self::Punch { .. } => syncs,
            Self::Rename { .. } | Self::Remove { .. } | Self::Read { .. } => false,
        }
    }

    /// Takes it in a directory whose files are in this state. With `syncs`, what was written is
    /// synced: the kernel writes behind, and tells of an error only then.
    pub(super) fn take(
        &self,
        directory: &Path,
        state: &State,
        stamp: u64,
        syncs: bool,
    ) -> io::Result<()> {
        let path = |name: &str| directory.join(name);
        match self {
            Self::Write { name, offset, n_bytes } => {
                let file =
                    OpenOptions::new().write(true).create(true).truncate(false).open(path(name))?;
                file.write_all_at(&stamped(stamp, *n_bytes), *offset)?;
                if syncs { file.sync_data() } else { Ok(()) }
            }
            Self::Resize { name, n_bytes } => {
                let file = OpenOptions::new().write(true).open(path(name))?;
                file.set_len(*n_bytes)?;
                if syncs { file.sync_all() } else { Ok(()) }
            }
            Self::Punch { name, offset, n_bytes } => {
                let file = OpenOptions::new().write(true).open(path(name))?;
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&file, flags, *offset, *n_bytes)?;
                if syncs { file.sync_all() } else { Ok(()) }
            }
            Self::Rename { from, to } => fs::rename(path(from), path(to)),
            Self::Remove { name } => fs::remove_file(path(name)),
            Self::Read { name } => {
                let found = fs::read(path(name))?;
                assert!(found == *state[name].content, "{}: wrong bytes", path(name).display());
                Ok(())
            }
            Self::Sync { name } => File::open(path(name))?.sync_all(),
        }
    }
}
