//! The agreement of a store's parts: what an opening decides before anything is written.
//!
//! Four parts know where the log is: the key-value store's own last transaction id, its log records
//! together with its record of published segments, the segment files, and the witness. One is
//! enough to go on; all are compared, because each of them can be lost or put back by itself. The
//! decision is a pure function of what was found, so that every case is a test without a disk.
//!
//! With *published* for the last recorded segment's end, or the floor if there is none, a store is
//! whole if
//!
//! 1. its last id is not below the witness's, nor below the end of any segment file: both are
//!    written after a sync of what they speak of; and it has seen as many writes as the witness
//!    says, because evictions and recalls have no id;
//! 2. the recorded segments follow each other without a gap, and each has its file;
//! 3. the log records are those from behind *published* up to the last id. Only the ends are looked
//!    at: that a record within is missing is found by the check and by the publication.
//!
//! A file that is not recorded is a leftover, because the record decides: of a publication that was
//! cut short (its records are in the key-value store still) or of a retirement (it was recorded
//! first). Whether it was written to its end does not matter then, nor whether its name is durable.
//! A segment's content is not looked at: it is history, and a damaged one is reported by reading
//! it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tier_types::{SegmentInfo, Xid, XidRange};

use super::segments::{self, FoundSegments};
use super::witness::Synced;
use crate::error::Damage;
use crate::{FsError, Loss};

/// What was found.
#[derive(Debug)]
pub(super) struct Facts {
    /// The filesystem begins behind this transaction.
    pub(super) floor: Xid,
    /// The last transaction by the key-value store's own row.
    pub(super) last: Xid,
    /// The segments that were recorded as published, in order of their last transactions.
    pub(super) recorded: Vec<XidRange>,
    /// The first and the last log record.
    pub(super) logged: Option<(Xid, Xid)>,
    pub(super) found: FoundSegments,
    /// The rows that were ever written to the key-value store.
    pub(super) n_writes: u64,
    /// What the witness says.
    pub(super) synced: Option<Synced>,
}

/// Where the files are, to be named in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    pub(super) segments: &'a Path,
    pub(super) witness: &'a Path,
}

/// A store that is whole.
#[derive(Debug)]
pub(super) struct Agreed {
    /// The published segments, by the last transaction of each.
    pub(super) segments: BTreeMap<Xid, SegmentInfo>,
    /// Files that belong to nothing.
    pub(super) leftovers: Vec<PathBuf>,
}

/// Compares what was found. An error if anything is lost.
pub(super) fn agree(facts: Facts, places: Places<'_>) -> Result<Agreed, FsError> {
    // The end comes first: of a store that was put back it names all that is missing, where the
    // other comparisons would come upon a part of that at most.
    check_end(&facts, places)?;
    check_records(&facts)?;
    let Facts { recorded, found, .. } = facts;
    let FoundSegments { mut segments, mut leftovers } = found;
    let mut agreed = BTreeMap::new();
    for range in recorded {
        let path = segments::path(places.segments, range);
        let info = segments.remove(&path).ok_or(Loss::Segment { range, path })?;
        agreed.insert(range.last(), info);
    }
    leftovers.extend(segments.into_keys());
    Ok(Agreed { segments: agreed, leftovers })
}

/// The key-value store ends where the others say, or later.
fn check_end(facts: &Facts, places: Places<'_>) -> Result<(), FsError> {
    let by_segment = facts.found.segments.iter().map(|(path, info)| (info.range.last(), path));
    let by_witness = facts.synced.map(|synced| (synced.xid, places.witness));
    let proofs = by_segment.map(|(xid, path)| (xid, path.as_path())).chain(by_witness);
    // The one that proves most, so that the message says all that is missing.
    let Some((seen, proof)) = proofs.max_by_key(|(xid, _)| *xid) else { return Ok(()) };
    if let Some(missing) = XidRange::new(facts.last.next(), seen.next()) {
        return Err(Loss::RolledBack { missing, proof: proof.to_path_buf() }.into());
    }
    let n_synced = facts.synced.map_or(0, |synced| synced.n_writes);
    match n_synced.checked_sub(facts.n_writes) {
        None | Some(0) => Ok(()),
        Some(n_missing) => {
            Err(Loss::Writes { n_missing, proof: places.witness.to_path_buf() }.into())
        }
    }
}

/// The rows of the key-value store fit together. They are written in the same batches, so that
/// what does not fit is damage of the key-value store itself.
fn check_records(facts: &Facts) -> Result<(), FsError> {
    let mut published = facts.floor;
    for range in &facts.recorded {
        // Before the first one are those that were retired.
        let follows = published == facts.floor || range.start() == published.next();
        if !follows || range.start() <= facts.floor || range.last() > facts.last {
            return Err(FsError::damaged_store(Damage::SegmentRow));
        }
        published = range.last();
    }
    let unpublished = XidRange::new(published.next(), facts.last.next());
    let lost = |from: Xid, until: Xid| {
        // A range that is empty the other way round: records that should not be there.
        let range = XidRange::new(from, until);
        range.map_or_else(
            || FsError::damaged_store(Damage::LastXid),
            |range| Loss::Records { range }.into(),
        )
    };
    match (facts.logged, unpublished) {
        (None, Some(range)) => Err(Loss::Records { range }.into()),
        (Some((first, _)), _) if first != published.next() => Err(lost(published.next(), first)),
        (Some((_, last)), _) if last != facts.last => Err(lost(last.next(), facts.last.next())),
        (None, None) | (Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> XidRange {
        XidRange::new(Xid::new(first), Xid::new(last + 1)).unwrap()
    }

    fn found(ranges: &[(u64, u64)]) -> FoundSegments {
        let segments = ranges.iter().map(|(first, last)| {
            let range = range(*first, *last);
            let name = segments::path(Path::new("/segments"), range);
            (name.clone(), SegmentInfo { range, len_bytes: 7, name })
        });
        FoundSegments { segments: segments.collect(), leftovers: vec!["/segments/x.tmp".into()] }
    }

    /// A store whose segments hold 11 to 20 (up to there all is retired) and 21 to 30, and whose
    /// records go on to 35.
    fn whole() -> Facts {
        Facts {
            floor: Xid::new(3),
            last: Xid::new(35),
            recorded: vec![range(11, 20), range(21, 30)],
            logged: Some((Xid::new(31), Xid::new(35))),
            found: found(&[(11, 20), (21, 30)]),
            n_writes: 500,
            synced: Some(synced(33)),
        }
    }

    fn synced(xid: u64) -> Synced {
        Synced { xid: Xid::new(xid), n_writes: 500 }
    }

    fn agreed(facts: Facts) -> Result<Agreed, FsError> {
        agree(facts, Places { segments: Path::new("/segments"), witness: Path::new("/witness") })
    }

    fn lost(facts: Facts) -> Loss {
        match agreed(facts) {
            Err(FsError::Lost(loss)) => loss,
            other => panic!("{other:?}"),
        }
    }

    fn damage(facts: Facts) -> Damage {
        match agreed(facts) {
            Err(FsError::Damaged { damage, .. }) => damage,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_store_is_found_whole() {
        let Agreed { segments, leftovers } = agreed(whole()).unwrap();
        let ranges: Vec<_> = segments.into_values().map(|info| info.range).collect();
        assert_eq!(ranges, [range(11, 20), range(21, 30)]);
        assert_eq!(leftovers, [Path::new("/segments/x.tmp")]);
        // A new one, one that was restored, one without records, and one without a witness.
        let new = |floor| Facts {
            floor,
            last: floor,
            recorded: Vec::new(),
            logged: None,
            found: FoundSegments::default(),
            n_writes: 0,
            synced: None,
        };
        agreed(new(Xid::new(0))).unwrap();
        agreed(new(Xid::new(9))).unwrap();
        agreed(Facts { last: Xid::new(30), logged: None, synced: None, ..whole() }).unwrap();
        agreed(Facts { synced: Some(synced(35)), ..whole() }).unwrap();
    }

    #[test]
    fn files_that_are_not_recorded_are_leftovers() {
        let stray = [(4, 10), (11, 20), (15, 20), (21, 30), (31, 33), (31, 35)];
        let Agreed { segments, leftovers } =
            agreed(Facts { found: found(&stray), ..whole() }).unwrap();
        assert_eq!(segments.len(), 2);
        let names: Vec<_> = [(4, 10), (15, 20), (31, 33), (31, 35)]
            .map(|(first, last)| segments::path(Path::new("/segments"), range(first, last)))
            .to_vec();
        assert_eq!(leftovers[1..], names);
    }

    #[test]
    fn an_end_before_what_was_synced_is_a_loss() {
        let loss = lost(Facts { synced: Some(synced(36)), ..whole() });
        assert_eq!(loss, Loss::RolledBack { missing: range(36, 36), proof: "/witness".into() });
        let found = found(&[(11, 20), (21, 30), (31, 40)]);
        let proof = segments::path(Path::new("/segments"), range(31, 40));
        let loss = lost(Facts { found, synced: Some(synced(36)), ..whole() });
        assert_eq!(loss, Loss::RolledBack { missing: range(36, 40), proof });
    }

    #[test]
    fn writes_without_an_id_that_are_missing_are_a_loss() {
        let loss = lost(Facts { n_writes: 497, ..whole() });
        assert_eq!(loss, Loss::Writes { n_missing: 3, proof: "/witness".into() });
        agreed(Facts { n_writes: 501, ..whole() }).unwrap();
    }

    #[test]
    fn a_recorded_segment_without_its_file_is_a_loss() {
        for (left, missing) in [((21, 30), range(11, 20)), ((11, 20), range(21, 30))] {
            let path = segments::path(Path::new("/segments"), missing);
            let loss = lost(Facts { found: found(&[left]), ..whole() });
            assert_eq!(loss, Loss::Segment { range: missing, path });
        }
    }

    #[test]
    fn records_that_are_missing_at_an_end_are_a_loss() {
        let logged = |first, last| Some((Xid::new(first), Xid::new(last)));
        for (logged, missing) in [
            (None, range(31, 35)),
            (logged(33, 35), range(31, 32)),
            (logged(31, 34), range(35, 35)),
        ] {
            assert_eq!(lost(Facts { logged, ..whole() }), Loss::Records { range: missing });
        }
    }

    #[test]
    fn rows_that_contradict_each_other_are_damage() {
        let logged = |first, last| Some((Xid::new(first), Xid::new(last)));
        for logged in [logged(30, 35), logged(31, 36)] {
            assert_eq!(damage(Facts { logged, ..whole() }), Damage::LastXid);
        }
        for recorded in [
            vec![range(11, 19), range(21, 30)],
            vec![range(11, 21), range(21, 30)],
            vec![range(3, 20), range(21, 30)],
            vec![range(11, 20), range(21, 40)],
        ] {
            assert_eq!(damage(Facts { recorded, ..whole() }), Damage::SegmentRow);
        }
    }
}
