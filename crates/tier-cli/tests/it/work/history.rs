//! What a writer did, and what of it must be found again.
//!
//! A writer notes the state of its directory that each step leads to before it takes the step, and
//! moves a mark when a sync has returned. From the mark on every state may be found after a loss of
//! power, and none before it. Names and lengths are rows of the log, so that all of them must be
//! those of one state. The bytes of a large chunk that were not synced may be lost while later rows
//! are not; the chunk is what it was before then. So each record of a file must be what it is in
//! one of these states, whichever.
//!
//! A step is not atomic (the kernel hands a long write over in pieces), so that a length may also
//! lie between that of a state and of the one before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tier_types::to_usize;

/// What writers write at a time, and what comes back as a whole.
pub(crate) const RECORD_BYTES: usize = 4096;

/// A file, which may change its name.
#[derive(Clone, Debug)]
pub(crate) struct FileState {
    pub(crate) id: u64,
    pub(crate) content: Arc<Vec<u8>>,
}

/// The files of a directory by name.
pub(crate) type State = BTreeMap<String, FileState>;

/// What is found in a directory.
pub(crate) type Found = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
pub(crate) struct History {
    states: VecDeque<State>,
    /// The number of the first of them.
    first: u64,
    /// The last state that a step has reached, and the last one that a sync covers.
    reached: u64,
    synced: u64,
}

impl History {
    pub(crate) fn new(state: State) -> Self {
        Self { states: VecDeque::from([state]), first: 0, reached: 0, synced: 0 }
    }

    /// The state that the last step led to, or leads to.
    pub(crate) fn last(&self) -> &State {
        self.states.back().expect("the states from the synced one on are kept")
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, state: State) {
        self.states.push_back(state);
    }

    /// The last step has ended.
    pub(crate) fn end(&mut self) -> u64 {
        self.reached = self.first + u64::try_from(self.states.len() - 1).unwrap();
        self.reached
    }

    /// A sync has returned that began when this state was reached.
    pub(crate) fn synced(&mut self, state: u64) {
        self.synced = self.synced.max(state);
    }

    /// Forgets what no loss of power brings back.
    pub(crate) fn forget_before_synced(&mut self) {
        self.forget_before(self.synced);
    }

    /// Forgets what the death of a process does not bring back: the system has all that was done.
    pub(crate) fn forget_before_reached(&mut self) {
        self.forget_before(self.reached);
    }

    /// What was found after a restart is what there is from then on.
    pub(crate) fn adopt(&mut self, found: &Found) {
        // Other numbers than those of the files to come.
        let ids = (0..u64::MAX).rev();
        let files = ids.zip(found).map(|(id, (name, content))| {
            (name.clone(), FileState { id, content: Arc::new(content.clone()) })
        });
        *self = Self::new(files.collect());
    }

    fn forget_before(&mut self, number: u64) {
        while self.first < number {
            self.states.pop_front();
            self.first += 1;
        }
    }

    /// Says what is wrong with a directory.
    pub(crate) fn check(&self, found: &Found) -> Result<(), String> {
        let mut wrong = Err(self.no_state(found));
        // States with the same names and lengths may have other files behind them.
        for state in self.matching(found) {
            wrong = self.check_content(state, found);
            if wrong.is_ok() {
                break;
            }
        }
        wrong
    }

    /// Says what is wrong with what was given out of a damaged directory: only files with these
    /// names may be missing, or lack bytes, which are zeros then.
    pub(crate) fn check_parts(
        &self,
        found: &Found,
        is_told: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        for (name, content) in found {
            let records = content.chunks(RECORD_BYTES).enumerate();
            let wrong = records.filter(|(idx, record)| {
                let is_lost = record.iter().all(|byte| *byte == 0) && is_told(name);
                let named = self.states.iter().filter_map(|state| state.get(name));
                let mut ids = named.map(|file| file.id);
                !is_lost && !ids.any(|id| self.may_be(id, idx * RECORD_BYTES, record))
            });
            if let Some(idx) = wrong.map(|(idx, _)| idx).next() {
                return Err(format!("{name}: record {idx} is wrong, or lost without a word"));
            }
        }
        Ok(())
    }

    /// The states with these names and lengths.
    fn matching<'a>(&'a self, found: &'a Found) -> impl Iterator<Item = &'a State> {
        // What led to the first state has ended.
        let before = self.states.front().into_iter().chain(&self.states);
        let both = before.zip(&self.states);
        both.filter(|(before, state)| fits(found, before, state)).map(|(_, state)| state)
    }

    fn check_content(&self, state: &State, found: &Found) -> Result<(), String> {
        for (name, file) in state {
            for (idx, record) in found[name].chunks(RECORD_BYTES).enumerate() {
                if !self.may_be(file.id, idx * RECORD_BYTES, record) {
                    let shown = String::from_utf8_lossy(&record[..record.len().min(64)]);
                    return Err(format!(
                        "{name}: record {idx} is {shown:?}: {}",
                        self.say(file.id)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether a file may have these bytes at a place.
    fn may_be(&self, id: u64, at: usize, record: &[u8]) -> bool {
        // A file that was made since the first state was empty then.
        let unmade = self.states.front().filter(|first| version(first, id).is_none());
        let made = || self.states.iter().filter_map(|state| version(state, id));
        let versions = || unmade.map(|_| &[][..]).into_iter().chain(made());
        if versions().any(|content| has(content, at, record)) {
            return true;
        }
        // A record in which a version ends is joined from several ones, with zeros behind its end.
        let ends_within = |content: &[u8]| (at + 1..at + RECORD_BYTES).contains(&content.len());
        let byte = |content: &[u8], idx: usize| content.get(at + idx).copied().unwrap_or(0);
        versions().any(ends_within)
            && record.iter().enumerate().all(|(idx, found)| {
                *found == 0 || versions().any(|content| byte(content, idx) == *found)
            })
    }

    fn no_state(&self, found: &Found) -> String {
        let lens = |state: &State| {
            let lens = state.iter().map(|(name, file)| format!("{name}:{}", file.content.len()));
            lens.collect::<Vec<_>>().join(" ")
        };
        let states = (self.first..).zip(&self.states);
        let states: Vec<_> =
            states.map(|(number, state)| format!("{number}: {}", lens(state))).collect();
        let found: Vec<_> =
            found.iter().map(|(name, content)| format!("{name}:{}", content.len())).collect();
        format!("found {}; but none of the states is\n{}", found.join(" "), states.join("\n"))
    }

    fn say(&self, id: u64) -> String {
        let states = (self.first..).zip(&self.states);
        let lens = states.filter_map(|(number, state)| {
            version(state, id).map(|content| format!("{number}: {} bytes", content.len()))
        });
        lens.collect::<Vec<_>>().join(", ")
    }
}

/// Whether these names and lengths are those of a state, or of a step from the one before it.
fn fits(found: &Found, before: &State, state: &State) -> bool {
    found.keys().eq(state.keys())
        && found.iter().all(|(name, content)| {
            let file = &state[name];
            let ends = [version(before, file.id).map_or(0, <[u8]>::len), file.content.len()];
            (ends[0].min(ends[1])..=ends[0].max(ends[1])).contains(&content.len())
        })
}

/// Whether a file has these bytes at a place; behind its end there are zeros.
fn has(content: &[u8], at: usize, bytes: &[u8]) -> bool {
    let stored = content.get(at..).unwrap_or_default();
    let (stored, len) = (&stored[..stored.len().min(bytes.len())], bytes.len());
    bytes.starts_with(stored) && bytes[stored.len()..len].iter().all(|byte| *byte == 0)
}

fn version(state: &State, id: u64) -> Option<&[u8]> {
    state.values().find(|file| file.id == id).map(|file| file.content.as_slice())
}

/// A record's worth of bytes and more that no other stamp has.
pub(crate) fn stamped(stamp: u64, bytes: u64) -> Vec<u8> {
    format!("{stamp:015}\n").bytes().cycle().take(to_usize(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(files: &[(&str, u64, &[u8])]) -> State {
        let files = files.iter().map(|(name, id, content)| {
            ((*name).to_string(), FileState { id: *id, content: Arc::new(content.to_vec()) })
        });
        files.collect()
    }

    fn found(files: &[(&str, &[u8])]) -> Found {
        files.iter().map(|(name, content)| ((*name).to_string(), content.to_vec())).collect()
    }

    #[test]
    fn what_was_synced_must_be_found_and_what_came_after_may_be() {
        let [one, two, three] = [1, 2, 3].map(|stamp| stamped(stamp, 8192));
        let mut history = History::new(state(&[("a", 1, &one)]));
        for content in [&two, &three] {
            history.begin(state(&[("a", 1, content)]));
            history.end();
        }
        history.begin(state(&[("b", 1, &three)]));
        let mixed = [&one[..4096], &three[4096..]].concat();
        for (name, content) in [("a", &one), ("a", &mixed), ("b", &three), ("b", &two)] {
            assert_eq!(history.check(&found(&[(name, content)])), Ok(()), "{name}");
        }
        history.synced(1);
        history.forget_before_synced();
        assert_eq!(history.check(&found(&[("a", &two)])), Ok(()));
        let four = stamped(4, 8192);
        for content in [&one, &mixed, &four, &two[..4096].to_vec()] {
            history.check(&found(&[("a", content)])).unwrap_err();
        }
        history.check(&found(&[])).unwrap_err();
        history.check(&found(&[("a", &two), ("b", &two)])).unwrap_err();
        history.forget_before_reached();
        history.check(&found(&[("a", &two)])).unwrap_err();
        assert_eq!(history.check(&found(&[("b", &three)])), Ok(()));
    }

    #[test]
    fn a_file_that_takes_the_name_of_another_has_its_own_bytes_alone() {
        let [one, two] = [1, 2].map(|stamp| stamped(stamp, 8192));
        let mut history = History::new(state(&[("a", 1, &one), ("b", 2, &two)]));
        history.begin(state(&[("a", 2, &two)]));
        assert_eq!(history.check(&found(&[("a", &one), ("b", &two)])), Ok(()));
        assert_eq!(history.check(&found(&[("a", &two)])), Ok(()));
        history.check(&found(&[("a", &one)])).unwrap_err();
    }

    #[test]
    fn a_step_may_end_half_way() {
        let long = stamped(1, 12288);
        let mut history = History::new(State::new());
        history.begin(state(&[("a", 1, &[])]));
        history.begin(state(&[("a", 1, &long)]));
        let half = [&long[..4096], &[0; 4096]].concat();
        assert_eq!(history.check(&found(&[("a", &half)])), Ok(()));
        let mut made_at_once = History::new(State::new());
        made_at_once.begin(state(&[("a", 1, &long)]));
        assert_eq!(made_at_once.check(&found(&[("a", &half)])), Ok(()));
        made_at_once.end();
        made_at_once.forget_before_reached();
        made_at_once.check(&found(&[("a", &half)])).unwrap_err();
        history.begin(state(&[("a", 1, &long[..5000])]));
        assert_eq!(history.check(&found(&[("a", &long[..5000])])), Ok(()));
        history.check(&found(&[("a", &[&long[..], &[0; 1]].concat())])).unwrap_err();
    }
}
